"""Objects of the backup that are deleted, cut or changed: verify and the drill name them.

DAMAGE_TRIALS says how many of each kind (`DAMAGE_TRIALS=200 make test-long ARGS="-k test_damage"` takes some minutes).
What is named is compared with what really happens: for every transaction that was ever sent, Litestream is asked to
restore it, and the bytes are compared with those of before.
"""

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.backups.commands import drilled, verified
from tests.backups.conftest import MakeMachine
from tests.backups.ltx_objects import pages_of
from tests.backups.targets import Machine, Person, bucket, keys, replicated, settings_of
from tests.object_stores import Rclone, settings_for
from tests.waiting import until
from yral_chat.clients.backup_store import BackupStore, Target
from yral_chat.clients.litestream import Litestream, LitestreamError, find_litestream
from yral_chat.core.config import Settings
from yral_chat.services.backups.catalogue import Catalogue, place
from yral_chat.services.backups.drill import Drill
from yral_chat.services.backups.histories import SNAPSHOTS
from yral_chat.services.backups.verifying import Verifier

TRIALS = int(os.environ.get("DAMAGE_TRIALS", "8"))
SHOWN = 5


def deleted(data: bytes, chance: random.Random) -> bytes | None:
    return None


def cut(data: bytes, chance: random.Random) -> bytes | None:
    return data[: chance.randrange(len(data))]


def flipped(data: bytes, chance: random.Random) -> bytes | None:
    changed = bytearray(data)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


Damage = Callable[[bytes, random.Random], bytes | None]
by_every_kind = pytest.mark.parametrize("damage", [deleted, cut, flipped])


class Backup(msgspec.Struct):
    """A backup, and what it was."""

    machine: Machine
    target: Target
    place: str
    objects: dict[str, bytes]  # of this generation, by key
    states: dict[str, str]  # the whole database after each transaction that was sent, as a checksum

    @property
    def store(self) -> BackupStore:
        return BackupStore(self.target)

    def litestream(self) -> Litestream:
        path = self.machine.data / "yral_chat.db"
        return Litestream(find_litestream(None), path, self.target, self.place, self.machine.data)

    async def put(self, key: str, data: bytes | None) -> None:
        await (self.store.delete(key) if data is None else self.store.put(key, data))


async def look_at(machine: Machine, target: Target) -> Backup:
    entry = await Catalogue(BackupStore(target)).current()
    assert entry is not None
    found = Backup(machine, target, place(entry.database_id, entry.generations[-1].id), {}, {})
    for key in [key async for key, _, _ in found.store.list(found.place) if key.endswith(".ltx")]:
        data = await found.store.read(key)
        assert data is not None
        found.objects[key] = data
    return found


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


async def is_lost(backup: Backup, folder: Path) -> bool:
    """Whether some state that could be restored before cannot be any more, or is another."""
    litestream = backup.litestream()
    for txid, state in backup.states.items():
        if await state_at(litestream, folder, txid) != state:
            return True
    return False


def says_the_same(damaged: bytes, whole: bytes) -> bool:
    """It unpacks to the same pages: nothing has changed that anybody could ever see."""
    try:
        return pages_of(damaged) == pages_of(whole)
    except Exception:  # noqa: BLE001 - whatever it is that it cannot be read for
        return False


def is_due(key: str, backup: Backup) -> bool:
    """Litestream deletes it itself when it likes: of a level between, not its last, and all in the oldest snapshot."""
    snapshots = [end_of(found) for found in backup.objects if level_of(found) == SNAPSHOTS]
    last_of_level = max(end_of(found) for found in backup.objects if level_of(found) == level_of(key))
    return 0 < level_of(key) < SNAPSHOTS and end_of(key) < min(snapshots, default=0) and end_of(key) < last_of_level


def level_of(key: str) -> int:
    return int(Path(key).parent.name)


def end_of(key: str) -> int:
    """The last transaction in it."""
    return int(Path(key).stem.split("-")[1], 16)


async def verify(backup: Backup) -> list[str]:
    """What `yral-chat backup verify` looks at on the machine that has sent it."""
    sent = max(int(txid, 16) for txid in backup.states)
    verifier = Verifier(backup.store, backup.litestream(), backup.place, settings(backup))
    return [finding.text for finding in await verifier.look(sent)]


async def drill(backup: Backup) -> list[str]:
    return [finding.text for finding in (await Drill(settings(backup), lambda _: None).run()).findings]


def settings(backup: Backup) -> Settings:
    given = {name.lower(): value for name, value in settings_of(backup.target).items()}
    return settings_for(backup.machine.data, **given)


@pytest.mark.long
@pytest.mark.timeout(3600)
@by_every_kind
@pytest.mark.parametrize("kept_in", ["folder", "bucket"])
async def test_whatever_is_done_to_an_object_is_named(
    new_machine: MakeMachine, folder_target: Target, rclone: Rclone, tmp_path: Path, damage: Damage, kept_in: str
) -> None:
    """Of a service that ran long enough for levels 0 and 1 and a snapshot, and was stopped."""
    machine = new_machine(target := folder_target if kept_in == "folder" else bucket(rclone))
    machine.start()
    person = Person(machine)
    for number in range(6):
        person.say(machine, f"Number {number}")
        await replicated(machine)

    async def is_long_enough() -> bool:
        return {0, 1, SNAPSHOTS} == {level_of(key) for key in await keys(BackupStore(target)) if key.endswith(".ltx")}

    await until(is_long_enough, what="every kind of object", seconds=90)
    machine.service.stop()
    backup = await look_at(machine, target)
    for file in await backup.litestream().files():
        state = await state_at(backup.litestream(), tmp_path, file.max_txid)
        assert state is not None
        backup.states[file.max_txid] = state
    chance = random.Random(int(os.environ.get("DAMAGE_SEED", "6")))
    seen: Counter[str] = Counter()
    unnamed: list[str] = []
    assert await verify(backup) == []
    for _ in range(TRIALS if kept_in == "folder" else -(-TRIALS // 4)):
        key = chance.choice(sorted(backup.objects))
        whole = backup.objects[key]
        damaged = damage(whole, chance)
        await backup.put(key, damaged)
        by_verify, by_drill = await verify(backup), await drill(backup)
        lost = await is_lost(backup, tmp_path)
        harmless = not lost and (is_due(key, backup) if damaged is None else says_the_same(damaged, whole))
        seen[f"verify {'names' if by_verify else 'is silent'}, {'lost' if lost else 'nothing lost'}"] += 1
        seen[f"drill {'names' if by_drill else 'is silent'}"] += 1
        if not harmless and not (by_verify and by_drill):
            unnamed.append(f"{key}: verify {by_verify[:1]}, drill {by_drill[:1]}, {lost=}")
        await backup.put(key, whole)
    assert not unnamed, f"{dict(seen)}\n" + "\n".join(unnamed[:SHOWN])
    print(damage.__name__, kept_in, dict(seen))  # noqa: T201 - for the documents


@pytest.mark.long
@by_every_kind
async def test_beside_a_server_it_is_named_and_nobody_is_disturbed(
    new_machine: MakeMachine, rclone: Rclone, damage: Damage
) -> None:
    machine = new_machine(bucket(rclone))
    machine.start()
    person = Person(machine)
    for number in range(3):
        person.say(machine, f"Number {number}")
        await replicated(machine)
    backup = await look_at(machine, bucket(rclone))
    changes = sorted((key for key in backup.objects if level_of(key) == 0), key=end_of)
    key = changes[-2]  # what follows it is there: it is missed also without what this machine knows
    whole, chance = backup.objects[key], random.Random(6)
    while (damaged := damage(whole, chance)) is not None and says_the_same(damaged, whole):
        pass  # some bits are of no account
    await backup.put(key, damaged)
    assert drilled(machine).findings
    assert verified(machine)
    person.say(machine, "and nobody was disturbed")
