"""Makes the dumps of `data` with the real programs of earlier revisions, out of the history of this repository:

    python -m tests.upgrades.make 0003

A revision needs it once: before the next one is added, put its last commit into `versions.py` and run this. What is
written is what its program left: the database, the files beside it, and what its people saw of it.
"""

import asyncio
import gzip
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import orjson

from tests.service import FakeModel
from tests.upgrades.dumps import DATA, write
from tests.upgrades.life import AT_REST, Town
from tests.upgrades.seen import Looking
from tests.upgrades.versions import COMMITS, OldService, source_of, unpack

# Nobody listens there: what is to be told to somebody waits.
NOBODY = "http://127.0.0.1:1/told"
SETTINGS = {
    "MEMORIES_ENABLED": "true",
    "HISTORY_MESSAGES": "6",
    "ADMIN_API_KEY": "an-admin-key-of-the-tests",
    "QUOTA_TOKENS_PER_USER_DAY": "100000000",
    "PUSH_URL": NOBODY,
    "OPERATOR_WEBHOOK_URL": NOBODY,
    "PUSH_SECRET": "a-secret-that-signs-webhooks",
    "BREAKER_FAILURES": "1000",
}
# Beside the database: what a start makes anew by itself is not kept.
KEPT = ("media", "erasures.jsonl")
MOST_TRIES = 10


async def live(service: OldService, model: FakeModel) -> bytes:
    """A life, from the first start to a kill. Returns what people saw before the last part of it."""
    with service:
        town = Town(service, model)
        await town.talk_offline()
        await town.close()
        assert service.stop() == 0
    service.settings |= model.settings | SETTINGS
    with service:
        town = Town(service, model)
        await town.live()
        await rest(service)
        seen = {name: await look(town, name) for name in AT_REST}
        await town.close()
        for _ in range(MOST_TRIES):
            if not service.running or service.process.process.poll() is not None:
                service.start()
            town = Town(service, model)
            await town.leave_unfinished()
            await town.close()
            if count(service, "turns") and count(service, "jobs", "WHERE attempts = 0"):
                return orjson.dumps(seen, option=orjson.OPT_SORT_KEYS)
    raise AssertionError("nothing is left to be done")


async def look(town: Town, name: str) -> object:
    looking = Looking(town.service.url, town.document, name)
    try:
        return await looking.look()
    finally:
        await looking.api.close()


async def rest(service: OldService) -> None:
    """Until all that is left to be done is to tell somebody who does not listen."""
    for _ in range(500):
        waiting = count(service, "jobs", "WHERE name NOT LIKE 'push.%' AND name NOT LIKE 'operator.%'")
        if not waiting and not count(service, "counter_deltas") and not count(service, "turns"):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it does not come to rest")


def count(service: OldService, table: str, where: str = "") -> int:
    with closing(sqlite3.connect(service.folder / "data/yral_chat.db")) as connection:
        found: int = connection.execute(f"SELECT count(*) FROM {table} {where}").fetchone()[0]
        return found


def make(revision: str, model: FakeModel, folder: Path) -> None:
    source = source_of(revision)
    assert source is not None, f"{COMMITS[revision]} is not in this clone"
    service = OldService(folder, unpack(source, folder / "program"))
    seen = asyncio.run(live(service, model))
    target = DATA / revision
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    write(folder / "data/yral_chat.db", target / "database.sql.gz")
    (target / "seen.json.gz").write_bytes(gzip.compress(seen, mtime=0))
    for name in KEPT:
        place = folder / "data" / name
        if place.is_dir():
            shutil.copytree(place, target / name, ignore=shutil.ignore_patterns(".incoming"))
        elif place.exists():
            shutil.copy(place, target / name)


def main() -> None:
    model = FakeModel()
    try:
        for revision in sys.argv[1:]:
            model.reset()
            with tempfile.TemporaryDirectory(prefix="yral-") as folder:
                make(revision, model, Path(folder))
    finally:
        model.close()


if __name__ == "__main__":
    main()
