"""Which generations are forgotten, and when: those that were over before the time that backups are kept for."""

import msgspec
import pytest

from tests.backups.targets import keys
from tests.waiting import until
from yral_chat.clients.backup_store import BackupStore, Target
from yral_chat.core.clock import DAY, from_text, now, to_text
from yral_chat.db.database import Database
from yral_chat.services.backups import service
from yral_chat.services.backups.catalogue import Catalogue, Entry, Generation, entry_key, place
from yral_chat.services.backups.service import BackupService


@pytest.fixture
def store(folder_target: Target) -> BackupStore:
    return BackupStore(folder_target)


async def begun(store: BackupStore, database_id: str, *, is_empty: bool = False) -> Generation:
    """A generation, with an object in it."""
    generation = await Catalogue(store).begin(database_id, "asked")
    if not is_empty:
        await store.put(f"{place(database_id, generation.id)}/ltx/0/an-object.ltx", b"changes")
    return generation


async def left(store: BackupStore) -> set[str]:
    """The generations that have something in them, and those that are listed."""
    listed = {one.id for entry in await Catalogue(store).list_databases() for one in entry.generations}
    filled = {key.split("/")[1] for key in await keys(store) if key.endswith(".ltx")}
    assert filled <= listed
    return listed


async def test_what_was_over_before_is_forgotten(store: BackupStore) -> None:
    first, second, third = [await begun(store, "ours") for _ in range(3)]
    catalogue = Catalogue(store)
    assert await catalogue.forget_before(from_text(second.begun_at), third.id) == []
    assert await catalogue.forget_before(from_text(third.begun_at), third.id) == [first.id]
    assert await left(store) == {second.id, third.id}
    assert await catalogue.forget_before(from_text(third.begun_at) + 1, third.id) == [second.id]
    assert await left(store) == {third.id}


async def test_what_is_written_now_stays_whatever_comes_after_it(store: BackupStore) -> None:
    present = await begun(store, "ours")
    later = [await begun(store, "ours"), await begun(store, "ours", is_empty=True)]
    assert await Catalogue(store).forget_before(from_text(later[-1].begun_at) + 1, present.id) == []
    assert await left(store) == {present.id, *(one.id for one in later)}


async def test_a_start_that_was_cut_ends_nothing(store: BackupStore) -> None:
    before = await begun(store, "ours")
    cut = await begun(store, "ours", is_empty=True)
    present = await begun(store, "ours")
    catalogue = Catalogue(store)
    assert await catalogue.forget_before(from_text(cut.begun_at) + 1, present.id) == []
    assert await catalogue.forget_before(from_text(present.begun_at) + 1, present.id) == [before.id]


async def test_what_had_arrived_is_followed_and_forgotten_also_when_it_is_missing(store: BackupStore) -> None:
    catalogue = Catalogue(store)
    before, missing = await begun(store, "ours"), await begun(store, "ours", is_empty=True)
    await store.put(f"{place('ours', missing.id)}/ltx/0/one-that-is-being-written.ltx.tmp", b"chan")
    assert not await catalogue.note_arrived("ours", missing.id)
    await store.put(f"{place('ours', missing.id)}/ltx/0/an-object.ltx", b"changes")
    assert await catalogue.note_arrived("ours", missing.id)
    await store.delete_all(place("ours", missing.id))
    present = await begun(store, "ours")
    assert await catalogue.forget_before(from_text(present.begun_at), present.id) == [before.id]
    assert await catalogue.forget_before(from_text(present.begun_at) + 1, present.id) == [missing.id]
    assert await left(store) == {present.id}


async def test_another_database_is_forgotten_with_its_last_generation(store: BackupStore) -> None:
    theirs = await begun(store, "theirs")
    await store.put("theirs/erasures.jsonl", b"{}")
    ours = await begun(store, "ours")
    catalogue = Catalogue(store)
    assert await catalogue.forget_before(from_text(ours.begun_at), ours.id) == []
    assert await catalogue.forget_before(from_text(ours.begun_at) + 1, ours.id) == [theirs.id]
    assert await keys(store, "theirs") == []
    present = await catalogue.current()
    assert present is not None
    assert (present.database_id, present.generations) == ("ours", (ours,))


@pytest.mark.long
async def test_a_service_tidies_up_by_itself(
    prepared: tuple[Database, BackupService], store: BackupStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After thirty days, as BACKUP_RETENTION_DAYS is when nobody sets it."""
    monkeypatch.setattr(service, "TIDY_SECONDS", 0.05)
    _, backup = prepared
    await backup.begin()
    present = await Catalogue(store).current()
    assert present is not None
    days = {"gone": 40, "over": 31, "kept": 29, "newest": 5}
    theirs = tuple(Generation(name, to_text(now() - ago * DAY), "asked") for name, ago in days.items())
    for generation in theirs:
        await store.put(f"{place('theirs', generation.id)}/ltx/0/an-object.ltx", b"changes")
    await store.put(entry_key("theirs"), msgspec.json.encode(Entry("theirs", theirs)))
    expected = {"over", "kept", "newest", *(one.id for one in present.generations)}

    async def is_tidy() -> bool:
        return {one.id for entry in await Catalogue(store).list_databases() for one in entry.generations} == expected

    await until(is_tidy, what="what is too old to go")
    assert await store.is_empty(place("theirs", "gone"))
