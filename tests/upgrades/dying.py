"""Upgrades that do not come to their end, each in a process of its own, which is forked: hundreds of them in seconds.

    python -m tests.upgrades.dying URL statements     killed at each statement, one after the other
    python -m tests.upgrades.dying URL moments 20     SQLite: killed at so many random moments
    python -m tests.upgrades.dying URL sizes 8192     SQLite: on a disk that takes no file larger than 0, 8192, … bytes

The database at URL is what an earlier program has left. A line of JSON tells of each: where it ended, what it said, and
whether the database is then as it was ("old"), upgraded ("new"), or neither. The last one comes to its end.
"""

import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

from loguru import logger
from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.upgrades.dumps import State, state_of
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.migrations import HEAD, migrate

SEED = 20261128


class Trials:
    """On one database, which the last of them upgrades."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.old = state_of(url)
        self.path = Path(url.removeprefix("sqlite:///"))

    def at_statements(self) -> None:
        for number in count(1):
            if self.tell(number, self.run(lambda: kill_at(number))) != "old":  # noqa: B023 - it runs at once
                return

    def at_moments(self, times: int) -> None:
        rng, content = random.Random(SEED), self.path.read_bytes()
        begun = time.monotonic()
        self.run(nothing)
        whole = time.monotonic() - begun
        for number in range(times):
            for suffix in ("-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            self.path.write_bytes(content)
            self.tell(number, self.run(nothing, seconds=rng.uniform(0, whole)))
        self.tell(times, self.run(nothing))

    def at_sizes(self, step: int) -> None:
        """With a copy, for which no size will do; then without one."""
        size = self.path.stat().st_size
        for limit in range(0, size, size // 4):
            self.tell(limit, self.run(lambda: limit_files(limit)))  # noqa: B023 - as above
        for limit in count(0, step):
            if self.tell(limit, self.run(lambda: limit_files(limit), has_copy=False)) != "old":  # noqa: B023
                return

    def run(self, prepare: Callable[[], None], *, has_copy: bool = True, seconds: float | None = None) -> str:
        """An upgrade in another process, killed after `seconds`. What it said; empty when it was killed or all went
        well."""
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            prepare()
            os.write(writing, outcome(self.url, has_copy=has_copy).encode())
            os._exit(0)
        os.close(writing)
        if seconds is not None:
            time.sleep(seconds)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        with os.fdopen(reading) as pipe:
            said = pipe.read()
        os.waitpid(child, 0)
        return said

    def tell(self, at: int, said: str) -> str:
        """Returns the state that it prints."""
        now = state_of(self.url)
        state = "old" if now == self.old else "new" if is_upgraded(self.old, now) else "neither"
        sys.stdout.write(json.dumps({"at": at, "said": said, "state": state}) + "\n")
        sys.stdout.flush()  # a child that is forked would write it again
        return state


def outcome(url: str, *, has_copy: bool) -> str:
    try:
        migrate(url, has_copy=has_copy)
    except DatabaseUnusable as error:
        return str(error)
    return ""


def nothing() -> None:
    """Nothing stands in its way."""


def limit_files(size: int) -> None:
    """Python ignores the signal that goes with it: writes fail, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def kill_at(number: int) -> None:
    """This process, once it has run so many statements; what comes before them is no statement of SQLAlchemy."""
    left = iter(range(number, 0, -1))

    def die(*_: object) -> None:
        if next(left) == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "after_cursor_execute", die)


def is_upgraded(old: State, now: State) -> bool:
    """With every row that it had."""
    counts = {name: len(rows) for name, rows in now.rows.items()}
    return now.revision == HEAD and all(counts[name] == len(rows) for name, rows in old.rows.items())


def main() -> None:
    logger.remove()
    url, where, *numbers = sys.argv[1:]
    trials = Trials(url)
    if where == "statements":
        trials.at_statements()
    elif where == "moments":
        trials.at_moments(int(numbers[0]))
    else:
        trials.at_sizes(int(numbers[0]))


if __name__ == "__main__":
    main()
