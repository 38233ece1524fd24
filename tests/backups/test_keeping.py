"""The two files that lead to a backup, as who serves looks at them: what is mended, and what is left alone."""

import shutil
from pathlib import Path

import pytest

from tests.backups.test_seen import at
from yral_chat.clients.backup_store import BackupStore, Stored, Target
from yral_chat.clients.litestream import LtxFile, txid_text
from yral_chat.core.clock import DAY, now
from yral_chat.core.ids import new_id
from yral_chat.services.backups.catalogue import (
    CURRENT,
    Catalogue,
    CatalogueDamaged,
    Entry,
    Generation,
    entry_key,
    place,
)
from yral_chat.services.backups.histories import SNAPSHOTS, is_followed_by_gap


def first_object(database_id: str, generation: Generation) -> str:
    return f"{place(database_id, generation.id)}/ltx/0/{txid_text(1)}-{txid_text(1)}.ltx"


class Backed:
    """A database with two generations, of which the second is being written."""

    def __init__(self, store: BackupStore, catalogue: Catalogue, generation: Generation, database_id: str) -> None:
        self.store = store
        self.catalogue = catalogue
        self.generation = generation
        self.database_id = database_id

    async def keep(self) -> bool:
        return await self.catalogue.keep(self.database_id, self.generation)

    async def ids(self, database_id: str) -> list[str]:
        entry = await self.catalogue.entry(database_id)
        return [] if entry is None else [one.id for one in entry.generations]


@pytest.fixture
async def backed(folder_target: Target) -> Backed:
    store, database_id = BackupStore(folder_target), new_id()
    catalogue = Catalogue(store)
    generations = [await catalogue.begin(database_id, reason) for reason in ("first", "restored")]
    for generation in generations:
        await store.put(first_object(database_id, generation), b"")
    return Backed(store, catalogue, generations[-1], database_id)


@pytest.mark.parametrize("data", [b"{", None])
async def test_the_one_that_is_gone_or_damaged_is_mended(backed: Backed, data: bytes | None) -> None:
    before = await backed.ids(backed.database_id)
    assert await backed.keep()
    for key in (CURRENT, entry_key(backed.database_id)):
        await (backed.store.delete(key) if data is None else backed.store.put(key, data))
        assert await backed.keep()
        entry = await backed.catalogue.read()
        assert entry is not None
        assert [one.id for one in entry.generations] == before


async def test_what_arrived_since_the_last_look_is_not_forgotten(backed: Backed) -> None:
    assert await backed.keep()
    assert await backed.catalogue.note_arrived(backed.database_id, backed.generation.id)
    await backed.store.put(entry_key(backed.database_id), b"{")
    assert await backed.keep()
    entry = await backed.catalogue.entry(backed.database_id)
    assert entry is not None
    assert entry.generations[-1].has_arrived


async def test_the_number_of_erasures_grows_and_shrinks_only_by_a_restore(backed: Backed) -> None:
    async def noted() -> int:
        entry = await Catalogue(backed.store).entry(backed.database_id)
        assert entry is not None
        assert len(entry.generations) == 2
        return entry.erasures

    note = backed.catalogue.note_erasures
    counts = [await noted()]
    for count in (3, 2):
        await note(backed.database_id, count)
        counts.append(await noted())
    await note(backed.database_id, 2, is_restored=True)
    assert [*counts, await noted()] == [0, 3, 3, 2]


async def test_an_entry_of_an_earlier_version_says_nothing_of_erasures(backed: Backed) -> None:
    line = f'{{"database_id":"{backed.database_id}","generations":[]}}'.encode()
    await backed.store.put(entry_key(backed.database_id), line)
    assert await backed.catalogue.entry(backed.database_id) == Entry(backed.database_id, ())


async def test_where_neither_is_it_is_another_place(backed: Backed) -> None:
    for key in (CURRENT, entry_key(backed.database_id)):
        await backed.store.delete(key)
    assert not await backed.keep()
    assert await backed.store.get(CURRENT) is None
    assert not await backed.catalogue.note_arrived(backed.database_id, backed.generation.id)


@pytest.mark.parametrize("looks", [1, 2])
async def test_a_place_that_goes_away_between_the_two_is_not_mended(
    backed: Backed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, looks: int
) -> None:
    """As a disk that is unmounted just then."""
    folder, get, keys = backed.store.target.path, backed.store.get, list[str]()

    async def get_and_go(key: str) -> Stored | None:
        found = await get(key)
        keys.append(key)
        if len(keys) == looks:
            shutil.move(folder, tmp_path / "away")
        return found

    monkeypatch.setattr(backed.store, "get", get_and_go)
    if looks == 2:
        await backed.store.delete(CURRENT)
        keys.clear()
    assert not await backed.keep()
    assert await get(entry_key(backed.database_id)) is None


@pytest.mark.parametrize("gone", [CURRENT, "database.json"])
async def test_where_the_beginning_is_gone_too_nothing_is_mended(backed: Backed, gone: str) -> None:
    """As somewhere to which only Litestream has written, since the disk is unmounted; or while all is being deleted."""
    assert await backed.catalogue.note_arrived(backed.database_id, backed.generation.id)
    assert await backed.keep()
    beginning = first_object(backed.database_id, backed.generation)
    await backed.store.delete(beginning)
    await backed.store.put(beginning.replace(txid_text(1), txid_text(7)), b"")
    key = CURRENT if gone == CURRENT else entry_key(backed.database_id)
    await backed.store.delete(key)
    assert not await backed.keep()
    assert await backed.store.get(key) is None


async def test_both_are_mended_also_by_one_who_has_never_seen_them_whole(backed: Backed) -> None:
    """After a start, which has read off the folders what there is."""
    before = await backed.ids(backed.database_id)
    for key in (CURRENT, entry_key(backed.database_id)):
        await backed.store.put(key, b"{")
    assert await Catalogue(backed.store).keep(backed.database_id, backed.generation)
    assert await backed.ids(backed.database_id) == before
    assert await backed.catalogue.read() is not None


async def test_one_without_a_file_is_not_forgotten_whole(backed: Backed) -> None:
    await backed.store.delete(entry_key(backed.database_id))
    await backed.catalogue._forget(backed.database_id, (await backed.store.folders(backed.database_id))[0])
    assert not await backed.store.is_empty(place(backed.database_id, backed.generation.id))


async def test_a_damaged_one_of_another_database_keeps_nobody_from_tidying(backed: Backed) -> None:
    await backed.store.put(entry_key(new_id()), b"{")
    await backed.store.put(f"{backed.database_id}/copy/database.json", b"{}")
    assert [entry.database_id for entry in await backed.catalogue.list_databases()] == [backed.database_id]


async def test_a_marker_of_a_database_that_is_gone_leads_to_no_older_one(backed: Backed) -> None:
    gone = new_id()
    await Catalogue(backed.store).begin(gone, "first")
    await backed.store.delete_all(gone)
    with pytest.raises(CatalogueDamaged, match=gone):
        await backed.catalogue.current()


async def test_where_neither_says_it_nothing_is_written(backed: Backed) -> None:
    await backed.store.put(CURRENT, b"{")
    await backed.store.delete(entry_key(backed.database_id))
    with pytest.raises(CatalogueDamaged):
        await backed.keep()
    stored = await backed.store.get(CURRENT)
    assert stored is not None
    assert stored.data == b"{"


async def test_what_is_whole_and_of_something_else_is_left_alone(folder_target: Target, backed: Backed) -> None:
    """Another database; and an older copy of this one, without what is being written."""
    other, known = new_id(), await backed.ids(backed.database_id)
    await Catalogue(backed.store).begin(other, "first")
    assert not await backed.keep()
    entry = await backed.catalogue.read()
    assert entry is not None
    assert entry.database_id == other
    backed.generation = Generation(new_id(), backed.generation.begun_at, "restored")
    await Catalogue(backed.store).begin(backed.database_id, "restored")
    assert not await backed.keep()
    assert (await backed.ids(backed.database_id))[:2] == known


async def test_another_backup_below_this_one_is_nobodys_to_read_or_to_forget(backed: Backed) -> None:
    below = f"staging/{first_object(backed.database_id, backed.generation)}"
    await backed.store.put(below, b"")
    assert [entry.database_id for entry in await backed.catalogue.list_recovered()] == [backed.database_id]
    later = Generation(new_id(), backed.generation.begun_at, "first")
    assert await backed.catalogue.forget_before(now() + DAY, later.id) != []
    assert await backed.store.get(below) is not None


SNAPSHOT, HALF_MINUTE, SECOND_ONE, LATER = (
    at(SNAPSHOTS, 1, 3, days=1), at(1, 4, 6, days=0.5), at(0, 7, 7, days=0), at(0, 9, 9, days=0),
)  # fmt: skip


@pytest.mark.parametrize(
    ("files", "txid", "is_gap"),
    [
        ((SNAPSHOT, HALF_MINUTE, SECOND_ONE), 6, False),
        ((SNAPSHOT, HALF_MINUTE, SECOND_ONE), 7, False),
        ((SNAPSHOT, HALF_MINUTE, SECOND_ONE, LATER), 7, True),
        ((SNAPSHOT, SECOND_ONE), 3, True),
        ((SNAPSHOT, HALF_MINUTE, at(SNAPSHOTS, 1, 9, days=0), LATER), 6, True),
        ((SNAPSHOT, at(1, 3, 9, days=0)), 5, False),
        ((SNAPSHOT, HALF_MINUTE, at(0, 4, 4, days=0), at(0, 6, 6, days=0)), 4, True),
        ((SNAPSHOT, at(SNAPSHOTS, 1, 9, days=0)), 3, True),
        ((SNAPSHOT, HALF_MINUTE, at(SNAPSHOTS, 1, 6, days=0)), 6, False),
        ((), 5, False),
    ],
)
def test_a_gap_shows_by_what_comes_behind_it(files: tuple[LtxFile, ...], txid: int, is_gap: bool) -> None:
    assert is_followed_by_gap(files, txid, now() - DAY) is is_gap


@pytest.mark.parametrize(
    ("files", "is_gap"), [((SNAPSHOT, HALF_MINUTE), True), ((SNAPSHOT, HALF_MINUTE, at(0, 4, 4, days=0)), False)]
)
def test_in_the_last_hour_each_change_leads_on_by_itself(files: tuple[LtxFile, ...], is_gap: bool) -> None:
    assert is_followed_by_gap(files, 3, now()) is is_gap
