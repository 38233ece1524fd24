"""Who backs up to a place: one at a time, with a bucket that honours conditions and with one that does not."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from tests.backups.hanging import hanging
from tests.backups.targets import bucket
from tests.object_stores import Moto, Rclone
from tests.waiting import there, until
from yral_chat.clients.backup_store import BackupStore, Stored, Target
from yral_chat.services.backups.catalogue import LEASE
from yral_chat.services.backups.lease import Lease, LeaseTaken

# Long beside what a busy machine needs for one request, short beside what a test may take.
TTL = 3.0
# Of those who have to see that a holder lives: long enough for that also where all of them have one busy machine.
PATIENT = 4 * TTL
RELEASED = b'{"owner":"another","host":"there","renewed_at":"2026-11-28T10:00:00.000000Z","is_released":true}'


def lease(target: Target, owner: str, lost: list[str] | None = None, *, ttl: float = TTL) -> Lease:
    on_lost = (lambda _: None) if lost is None else lost.append
    return Lease(BackupStore(target), owner, ttl_seconds=ttl, settle_seconds=0.3, on_lost=on_lost)


async def test_conditions_are_found_out(moto: Moto, rclone: Rclone, folder_target: Target) -> None:
    assert await BackupStore(bucket(moto)).honours_conditions()
    assert not await BackupStore(bucket(rclone)).honours_conditions()
    assert not await BackupStore(folder_target).honours_conditions()
    for target in (bucket(moto), bucket(rclone), folder_target):
        assert await BackupStore(target).is_empty(), "the trial has left something"


async def test_the_second_is_refused_as_long_as_the_first_lives(target: Target) -> None:
    first, second = lease(target, "first"), lease(target, "second", ttl=PATIENT)
    await first.acquire()
    for _ in range(2):
        with pytest.raises(LeaseTaken, match=r"is the backup of a service on .+, last heard of at 2"):
            await second.acquire()
    await first.release()
    await second.acquire()
    await second.release()


async def test_whose_it_is_can_be_asked(target: Target) -> None:
    ours = lease(target, "ours", ttl=100 * TTL)  # nobody renews it meanwhile
    await ours.acquire()
    assert await ours.is_ours()
    store = BackupStore(target)
    held = await store.get(LEASE)
    assert held is not None
    await store.put(LEASE, held.data.replace(b'"ours"', b'"theirs"'))
    assert not await ours.is_ours()
    await ours.release()


async def test_one_that_is_half_written_is_its_holders(target: Target) -> None:
    """Some servers show it while it is being written, and keep it where that is cut off."""
    lost: list[str] = []
    ours = lease(target, "ours", lost)
    await ours.acquire()
    await BackupStore(target).put(LEASE, b'{"owner":')
    with pytest.raises(LeaseTaken, match="a service on "):
        await lease(target, "theirs", ttl=PATIENT).acquire()
    assert not lost
    await ours.release()


async def test_a_newcomer_that_finds_it_half_written_waits(
    folder_target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows whose it becomes."""
    ours, newcomer = lease(folder_target, "ours"), lease(folder_target, "newcomer", ttl=PATIENT)
    halves = [b'{"owner":'] * 5
    get = newcomer._store.get

    async def get_half(key: str) -> Stored | None:
        found = await get(key)
        return Stored(halves.pop(), None) if key == LEASE and halves else found

    monkeypatch.setattr(newcomer._store, "get", get_half)
    await ours.acquire()
    with pytest.raises(LeaseTaken, match="a service on "):
        await newcomer.acquire()
    assert not halves
    await ours.release()


@pytest.mark.parametrize("seen", [b'{"owner":', RELEASED, None])
async def test_a_newcomer_goes_on_with_nothing_but_its_own(
    folder_target: Target, monkeypatch: pytest.MonkeyPatch, seen: bytes | None
) -> None:
    """While it settles another one writes, or lets go and may have begun something; or somebody empties the place."""
    newcomer = lease(folder_target, "newcomer")
    get = newcomer._store.get

    async def get_anothers(key: str) -> Stored | None:
        found = await get(key)
        return None if found is None or seen is None else Stored(seen, None)

    monkeypatch.setattr(newcomer._store, "get", get_anothers)
    with pytest.raises(LeaseTaken):
        await newcomer.acquire()


@pytest.mark.long
async def test_who_was_silent_for_long_does_not_write_over_what_is_half_written(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is that of another, who has thought it dead."""
    lost: list[str] = []
    ours, theirs, halves = lease(target, "ours", lost), lease(target, "theirs", lost), [b'{"owner":']
    await ours.acquire()
    assert not _kill(ours).done()
    await theirs.acquire()
    get = ours._store.get

    async def get_half(key: str) -> Stored | None:
        found = await get(key)
        return Stored(halves.pop(), found.version) if found is not None and halves else found

    monkeypatch.setattr(ours._store, "get", get_half)
    ours._renewing = asyncio.create_task(ours._renew_forever())  # it was only asleep
    await until(there(lambda: bool(lost)), what="it to notice")
    assert not halves
    assert await theirs.is_ours()
    await ours.release()
    assert await theirs.is_ours()
    await theirs.release()
    assert len(lost) == 1


async def test_who_asks_waits_for_what_is_half_written(folder_target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """However lately it wrote: that may have been elsewhere."""
    ours, store, halves = lease(folder_target, "ours"), BackupStore(folder_target), [b'{"owner":']
    await ours.acquire()
    assert not _kill(ours).done()
    held = await store.get(LEASE)
    assert held is not None
    await store.put(LEASE, held.data.replace(b'"ours"', b'"theirs"'))
    get = ours._store.get

    async def get_half(key: str) -> Stored | None:
        found = await get(key)
        return Stored(halves.pop(), None) if halves else found

    monkeypatch.setattr(ours._store, "get", get_half)
    assert not await ours.is_ours()
    assert not halves
    await store.put(LEASE, b'{"owner":')
    assert await ours.is_ours(), "it stands still"
    await ours.release()


async def test_who_lets_go_leaves_what_is_half_written(folder_target: Target) -> None:
    ours, store = lease(folder_target, "ours"), BackupStore(folder_target)
    await ours.acquire()
    assert not _kill(ours).done()
    await store.put(LEASE, b'{"owner":')
    await ours.release()
    assert await store.read(LEASE) == b'{"owner":'


async def test_one_that_may_be_silent_for_longer_is_given_that_long(folder_target: Target) -> None:
    first, second = lease(folder_target, "first", ttl=2 * TTL), lease(folder_target, "second", ttl=TTL / 3)
    await first.acquire()
    with pytest.raises(LeaseTaken):
        await second.acquire()
    await first.release()


async def test_one_that_was_killed_comes_back_at_once(target: Target) -> None:
    killed = lease(target, "same folder")
    await killed.acquire()
    assert not _kill(killed).done()
    again = lease(target, "same folder")
    async with asyncio.timeout(30):
        await again.acquire()
    await again.release()


@pytest.mark.long
async def test_a_dead_one_is_taken_over_and_notices_when_it_was_not_dead(target: Target) -> None:
    lost: list[str] = []
    first, second = lease(target, "first", lost), lease(target, "second")
    await first.acquire()
    renewing = _kill(first)
    await second.acquire()
    assert renewing.cancelled()
    first._renewing = asyncio.create_task(first._renew_forever())  # it was only asleep
    await until(there(lambda: bool(lost)), what="the first to notice")
    assert "is the backup of a service on" in lost[0]
    await second.release()


async def test_what_becomes_of_the_object_is_mended_by_its_holder(target: Target) -> None:
    """An answer that was lost on its way, a hand that has deleted it: neither is somebody else."""
    lost: list[str] = []
    store = BackupStore(target)
    held = lease(target, "holder", lost)
    await held.acquire()
    await store.delete(LEASE)
    await _renewed(store)
    ours = await store.get(LEASE)
    assert ours is not None
    await store.put(LEASE, ours.data)  # another version of what we have written
    await _renewed(store)
    assert not lost
    with pytest.raises(LeaseTaken):
        await lease(target, "newcomer", ttl=PATIENT).acquire()
    await held.release()


async def _renewed(store: BackupStore) -> None:
    before = await store.get(LEASE)

    async def is_another() -> bool:
        found = await store.get(LEASE)
        return found is not None and (before is None or found.data != before.data)

    await until(is_another, what="the lease to be written again")


@pytest.mark.long
async def test_of_many_newcomers_one_wins(moto: Moto) -> None:
    target = bucket(moto)
    for _ in range(5):
        leases = [lease(target, f"newcomer-{number}", ttl=PATIENT) for number in range(6)]
        outcomes = await asyncio.gather(*(one.acquire() for one in leases), return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["LeaseTaken"] * 5 + ["NoneType"]
        for one in leases:
            await one.release()


@pytest.mark.long
async def test_a_bucket_that_is_away_takes_no_lease(moto: Moto) -> None:
    lost: list[str] = []
    held = lease(bucket(moto), "holder", lost)
    await held.acquire()
    before = await BackupStore(bucket(moto)).get(LEASE)
    moto.stop()
    await asyncio.sleep(TTL)
    assert not lost
    assert before is not None
    with contextlib.suppress(Exception):
        await held.release()


async def test_a_folder_that_hangs_is_told_of_and_does_not_keep_the_end(folder_target: Target) -> None:
    held = Lease(BackupStore(folder_target, request_seconds=0.5), "holder", ttl_seconds=TTL, settle_seconds=0.3)
    await held.acquire()
    with hanging(Path(folder_target.path) / LEASE):
        await until(there(lambda: held.error == "it does not answer"), what="it to be told", seconds=20)
        await asyncio.wait_for(held.release(), 20)


def _kill(one: Lease) -> "asyncio.Task[None]":
    """It writes no more, and says nothing."""
    renewing = one._renewing
    assert renewing is not None
    renewing.cancel()
    return renewing
