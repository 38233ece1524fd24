"""Objects of the backup that are deleted, cut or changed: verify and the drill name them.

DAMAGE_TRIALS says how many of each kind (`DAMAGE_TRIALS=200 make test-long ARGS="-k test_damage"` takes some minutes).
What is named is compared with what really happens: for every transaction that was ever sent, Litestream is asked to
restore it, and the rows are compared with those of before.
"""

import asyncio
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.backups.conftest import MakeMachine
from tests.backups.ltx_objects import pages_of
from tests.backups.targets import Machine, Person, replicated
from tests.object_stores import settings_for
from yral_chat.clients.backup_store import BackupStore, Target
from yral_chat.clients.litestream import Litestream, LitestreamError, find_litestream
from yral_chat.services.backups.catalogue import Catalogue, place
from yral_chat.services.backups.drill import Drill
from yral_chat.services.backups.histories import SNAPSHOTS
from yral_chat.services.backups.verifying import Verifier

TRIALS = int(os.environ.get("DAMAGE_TRIALS", "8"))
SHOWN = 5


def delete(path: Path, chance: random.Random) -> None:
    path.unlink()


def cut(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


KINDS: tuple[Callable[[Path, random.Random], None], ...] = (delete, cut, flip)


class Backup(msgspec.Struct):
    """A backup at rest, in a folder, and another copy of it to be damaged."""

    machine: Machine
    whole: Path
    target: Target
    place: str
    states: dict[str, str]  # the whole database after each transaction that was sent, as a checksum

    def litestream(self) -> Litestream:
        path = self.machine.data / "yral_chat.db"
        return Litestream(find_litestream(None), path, self.target, self.place, self.machine.data)

    def put_back(self) -> None:
        shutil.rmtree(self.target.path)
        shutil.copytree(self.whole, self.target.path)

    def objects(self) -> list[Path]:
        return sorted((Path(self.target.path) / self.place).rglob("*.ltx"))


async def state_at(litestream: Litestream, folder: Path, txid: str) -> str | None:
    """What a restore of this transaction gives; None: nothing."""
    to = folder / "state.db"
    try:
        await litestream.restore(to, txid=txid)
    except LitestreamError:
        return None
    found = str(hash(to.read_bytes()))
    to.unlink()
    return found


@pytest.fixture
async def backup(new_machine: MakeMachine, folder_target: Target, tmp_path: Path) -> Backup:
    """Of a service that ran long enough for levels 0 and 1 and a snapshot, and was stopped."""
    machine = new_machine(folder_target)
    machine.start()
    person = Person(machine)
    for number in range(6):
        person.say(machine, f"Number {number}")
        await replicated(machine)
    machine.service.stop()
    entry = await Catalogue(BackupStore(folder_target)).current()
    assert entry is not None
    whole = tmp_path / "whole"
    shutil.copytree(folder_target.path, whole)
    found = Backup(machine, whole, folder_target, place(entry.database_id, entry.generations[-1].id), {})
    litestream = found.litestream()
    for file in await litestream.files():
        state = await state_at(litestream, tmp_path, file.max_txid)
        assert state is not None
        found.states[file.max_txid] = state
    return found


async def is_lost(backup: Backup, folder: Path) -> bool:
    """Whether some state that could be restored before cannot be any more, or is another."""
    litestream = backup.litestream()
    for txid, state in backup.states.items():
        if await state_at(litestream, folder, txid) != state:
            return True
    return False


def says_the_same(damaged: Path, whole: Path) -> bool:
    """It unpacks to the same pages: nothing has changed that anybody could ever see."""
    try:
        return pages_of(damaged.read_bytes()) == pages_of(whole.read_bytes())
    except Exception:  # noqa: BLE001 - whatever it is that it cannot be read for
        return False


def is_due(path: Path, backup: Backup) -> bool:
    """Litestream deletes it itself when it likes: a level between, of which the oldest snapshot has everything."""
    snapshots = [end_of(found) for found in backup.objects() if level_of(found) == SNAPSHOTS]
    return 0 < level_of(path) < SNAPSHOTS and end_of(path) < min(snapshots, default=0)


def level_of(path: Path) -> int:
    return int(path.parent.name)


def end_of(path: Path) -> int:
    """The last transaction in it."""
    return int(path.stem.split("-")[1], 16)


async def verify(backup: Backup) -> list[str]:
    """What `yral-chat backup verify` looks at on the machine that has sent it."""
    sent = max(int(txid, 16) for txid in backup.states)
    settings = settings_for(backup.machine.data, backup_url=f"file://{backup.target.path}")
    verifier = Verifier(BackupStore(backup.target), backup.litestream(), backup.place, settings)
    return [finding.text for finding in await verifier.look(sent)]


async def drill(backup: Backup) -> list[str]:
    settings = settings_for(backup.machine.data, backup_url=f"file://{backup.target.path}")
    return [finding.text for finding in (await Drill(settings, lambda _: None).run()).findings]


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
async def test_whatever_is_done_to_an_object_is_named(
    backup: Backup, tmp_path: Path, kind: Callable[[Path, random.Random], None]
) -> None:
    chance = random.Random(int(os.environ.get("DAMAGE_SEED", "6")))
    seen: Counter[str] = Counter()
    unnamed: list[str] = []
    assert await verify(backup) == []
    for _ in range(TRIALS):
        path = chance.choice(backup.objects())
        kind(path, chance)
        named, drilled = await verify(backup), await drill(backup)
        lost = await is_lost(backup, tmp_path)
        original = backup.whole / path.relative_to(backup.target.path)
        harmless = not lost and (is_due(path, backup) if kind is delete else says_the_same(path, original))
        seen[f"verify {'names' if named else 'is silent'}, {'lost' if lost else 'nothing lost'}"] += 1
        seen[f"drill {'names' if drilled else 'is silent'}"] += 1
        if not harmless and not (named and drilled):
            unnamed.append(f"{path.relative_to(backup.target.path)}: verify {named[:1]}, drill {drilled[:1]}, {lost=}")
        await asyncio.to_thread(backup.put_back)
    assert not unnamed, f"{dict(seen)}\n" + "\n".join(unnamed[:SHOWN])
    print(kind.__name__, dict(seen))  # noqa: T201 - for the documents
