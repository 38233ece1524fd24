"""Small files of which one bit has turned, the highest of a byte inside a string: what they are then is no UTF-8."""

from pathlib import Path

import pytest

from yral_chat.clients.backup_store import BackupStore, BackupStoreError, Target
from yral_chat.services.accounts.erasure_log import Erasure, ErasureLog
from yral_chat.services.backups import local, proof, seen
from yral_chat.services.backups.catalogue import CURRENT, LEASE, Catalogue, entry_key
from yral_chat.services.backups.lease import Lease
from yral_chat.services.backups.media import MediaBackupFailed
from yral_chat.services.backups.media.manifest import DOING, INDEX, Index, Manifest
from yral_chat.services.backups.proof import Proof, load_proof, save_proof
from yral_chat.services.backups.seen import load_seen, save_seen
from yral_chat.services.backups.starting import LocalState

AT = "2026-11-28T10:00:00.000000Z"


def flip(data: bytes, after: bytes) -> bytes:
    """With another byte behind `after`."""
    place = data.index(after) + len(after)
    return data[:place] + bytes([data[place] ^ 0x80]) + data[place + 1 :]


def test_of_a_damaged_file_here_nothing_is_taken(tmp_path: Path) -> None:
    save_proof(tmp_path, Proof(AT, is_proven=True, proven_at=AT, target="file:///here"))
    local.save_state(tmp_path, LocalState("file:///here", "id-of-the-database", None))
    save_seen(tmp_path, "file:///here", "some/place", [])
    for name, after in ((proof.NAME, b"file:/"), (local.NAME, b"id-of"), (seen.NAME, b"file:/")):
        file = tmp_path / name
        file.write_bytes(flip(file.read_bytes(), after))
    assert load_proof(tmp_path) is None
    assert local.load_state(tmp_path) is None
    assert load_seen(tmp_path, "file:///here", "some/place") == ()


async def test_of_a_damaged_object_its_name_is_told(folder_target: Target) -> None:
    store = BackupStore(folder_target)
    catalogue, manifest = Catalogue(store), Manifest(store)
    await catalogue.begin("id-of-the-database", "first")
    await manifest.save_index(Index("id-of-the-database"))
    await manifest.save_doing(frozenset({"some/key.png"}))

    async def damage(key: str, after: bytes) -> None:
        stored = await store.get(key)
        assert stored is not None
        await store.put(key, flip(stored.data, after))

    await damage(entry_key("id-of-the-database"), b"id-of")
    with pytest.raises(BackupStoreError, match=r"database\.json is damaged"):
        await catalogue.current()
    await damage(CURRENT, b"id-of")
    with pytest.raises(BackupStoreError, match=r"current\.json is damaged"):
        await catalogue.current()
    await damage(INDEX, b"id-of")
    with pytest.raises(MediaBackupFailed, match=r"manifest\.json in .* is damaged"):
        await manifest.find_index()
    await damage(DOING, b"some")
    with pytest.raises(MediaBackupFailed, match=r"doing\.json in .* is damaged"):
        await manifest.load_doing()


async def test_a_damaged_lease_is_nobodys_for_ever(folder_target: Target) -> None:
    store = BackupStore(folder_target)

    def lease(owner: str) -> Lease:
        return Lease(store, owner, ttl_seconds=0.3, settle_seconds=0.1, on_lost=lambda _: None)

    dead = lease("dead")
    await dead.acquire()
    assert dead._renewing is not None
    dead._renewing.cancel()
    stored = await store.get(LEASE)
    assert stored is not None
    await store.put(LEASE, flip(stored.data, b"dea"))
    newcomer = lease("newcomer")
    await newcomer.acquire()
    await newcomer.release()


def test_an_erasure_whose_line_is_damaged_comes_from_the_other_copy_of_the_log(tmp_path: Path) -> None:
    log = ErasureLog(tmp_path / "erasures.jsonl")
    ada, bob, eve = (Erasure(f"id-{name}", name, AT) for name in ("ada", "bob", "eve"))
    for erasure in (ada, bob, eve):
        log.append(erasure)
    whole = (tmp_path / "erasures.jsonl").read_bytes()
    damaged = flip(whole, b"id-b")
    (tmp_path / "erasures.jsonl").write_bytes(damaged)
    assert log.read() == [ada, eve]
    assert log.merge(damaged) == 0
    assert log.merge(whole + whole) == 1
    assert log.read() == [ada, eve, bob]
