"""The log of erasures goes to the backup and comes back, however many there were, and is missed where it is damaged."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from yral_chat.clients.backup_store import BackupStore, Target
from yral_chat.core.clock import now, to_text
from yral_chat.core.ids import new_id
from yral_chat.services.accounts.erasure_log import Erasure, ErasureLog, write_lines
from yral_chat.services.backups import erasures
from yral_chat.services.backups.catalogue import erasures_key
from yral_chat.services.backups.erasures import ErasuresNotKnown

AT = "2026-11-28T10:00:00.000000Z"
KEY = erasures_key("database")
MANY = 40_000


async def test_a_long_log_is_sent_again_and_comes_back_whole(tmp_path: Path, folder_target: Target) -> None:
    store = BackupStore(folder_target)
    here, empty = tmp_path / "here", tmp_path / "empty"
    here.mkdir()
    empty.mkdir()
    known = [Erasure(new_id(), f"somebody-{number}", to_text(now())) for number in range(MANY)]
    lines = b"".join(msgspec.json.encode(erasure) + b"\n" for erasure in known)
    (here / erasures.NAME).write_bytes(lines)
    sent = await erasures.send(store, "database", here, 0)
    assert sent == len(lines) > 4 * 1024 * 1024
    ErasureLog(here / erasures.NAME).append(one_more := Erasure(new_id(), "one-more", to_text(now())))
    assert await erasures.send(store, "database", here, sent) > sent
    assert (await erasures.read(store, "database")).whole == [*known, one_more]
    await erasures.fetch_first(store, "database", empty)
    assert (empty / erasures.NAME).read_bytes() == (here / erasures.NAME).read_bytes()


def erased(*names: str) -> list[Erasure]:
    return [Erasure(f"id-{name}", name, AT) for name in names]


def cut(lines: bytes) -> bytes:
    return lines[:-9]


def flipped(lines: bytes) -> bytes:
    """The quotation mark behind the first name."""
    place = lines.index(b'ada"') + 3
    return lines[:place] + bytes([lines[place] ^ 0x80]) + lines[place + 1 :]


@pytest.fixture
async def store(folder_target: Target) -> BackupStore:
    """Has the erasures of ada and bob."""
    store = BackupStore(folder_target)
    await store.put(KEY, write_lines(erased("ada", "bob")))
    return store


def folder(path: Path, *names: str) -> Path:
    path.mkdir()
    if names:
        ErasureLog(path / erasures.NAME).append(*erased(*names))
    return path


async def damage(store: BackupStore, how: Callable[[bytes], bytes]) -> None:
    await store.put(KEY, how(await store.read(KEY) or b""))


@pytest.mark.parametrize("how", [cut, flipped])
async def test_a_damaged_line_at_the_target_is_found(
    store: BackupStore, tmp_path: Path, how: Callable[[bytes], bytes]
) -> None:
    empty = folder(tmp_path / "empty")
    assert await erasures.find_missing(store, "database", empty) == []
    await damage(store, how)
    (finding,) = await erasures.find_missing(store, "database", empty)
    assert finding.subject == "erasures"
    assert finding.text.startswith("1 line of erasures.jsonl is damaged: ")


@pytest.mark.parametrize("how", [cut, flipped])
async def test_nothing_is_restored_where_a_damaged_line_may_name_somebody(
    store: BackupStore, tmp_path: Path, how: Callable[[bytes], bytes]
) -> None:
    await damage(store, how)
    for name, known in (("new", ()), ("some", ("ada",)), ("others", ("eve", "mia"))):
        with pytest.raises(ErasuresNotKnown, match=r"1 line of .* is damaged .*Nothing was changed\..* --force"):
            await erasures.fetch_first(store, "database", folder(tmp_path / name, *known))
        assert [one.user_id for one in ErasureLog(tmp_path / name / erasures.NAME).read()] == list(known)
    await erasures.fetch_first(store, "database", folder(tmp_path / "all", "ada", "bob"))


async def test_what_is_forced_brings_what_is_whole_and_says_what_is_not(store: BackupStore, tmp_path: Path) -> None:
    await damage(store, cut)
    told: list[str] = []
    await erasures.fetch_first(store, "database", folder(tmp_path / "new"), told=told.append)
    assert told == ["1 line of erasures.jsonl is damaged at the backup: erased people may come back."]
    assert ErasureLog(tmp_path / "new" / erasures.NAME).read() == erased("ada")


@pytest.mark.parametrize("how", [cut, flipped])
async def test_who_knows_them_writes_a_damaged_log_anew(
    store: BackupStore, tmp_path: Path, how: Callable[[bytes], bytes]
) -> None:
    await damage(store, how)
    await erasures.send(store, "database", folder(tmp_path / "here", "ada", "bob"), -1)
    there = await erasures.read(store, "database")
    assert (set(there.whole), there.damaged) == (set(erased("ada", "bob")), 0)


async def test_a_line_that_a_crash_has_cut_off_here_is_no_damage_there(store: BackupStore, tmp_path: Path) -> None:
    path = folder(tmp_path / "here", "ada", "bob", "eve") / erasures.NAME
    path.write_bytes(cut(path.read_bytes()))
    await erasures.send(store, "database", path.parent, -1)
    assert await erasures.read(store, "database") == (erased("ada", "bob"), 0)


async def test_a_log_that_is_gone_is_missed_by_the_number_of_those_it_had(store: BackupStore, tmp_path: Path) -> None:
    empty = folder(tmp_path / "empty")
    assert await erasures.find_missing(store, "database", empty, 2) == []
    await store.delete(KEY)
    (finding,) = await erasures.find_missing(store, "database", empty, 2)
    assert finding.text.startswith("2 erasures are missing in erasures.jsonl at the backup")
    with pytest.raises(ErasuresNotKnown, match="2 erasures are missing"):
        await erasures.fetch_first(store, "database", empty, noted=2)
    await erasures.fetch_first(store, "database", folder(tmp_path / "all", "ada", "bob"), noted=2)
