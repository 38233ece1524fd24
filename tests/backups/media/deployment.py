"""A database with media, as the service leaves them, and the copies of them."""

import hashlib
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import msgspec
from pydantic import SecretStr

from tests.object_stores import ACCESS_KEY, BUCKET, SECRET_KEY, s3_settings, settings_for
from yral_chat.clients.storage import PUBLIC, StorageService, owner_prefix
from yral_chat.core.clock import now, to_text
from yral_chat.core.config import Settings
from yral_chat.core.ids import new_id
from yral_chat.db.backends import create_database
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.migrations import migrate
from yral_chat.db.repositories.media import MediaKind, MediaObject
from yral_chat.services.accounts.erasure_log import Erasure, ErasureLog
from yral_chat.services.backups.media import Finding, MediaBackup, Summary
from yral_chat.services.backups.media.manifest import Entry, Index
from yral_chat.services.media.service import copy_key

MIME = {"audio": ("audio/ogg", ".ogg"), "image": ("image/png", ".png")}


def copy_in(folder: Path) -> dict[str, str]:
    return {"media_backup_url": folder.as_uri()}


def copy_at(url: str, prefix: str = "copy") -> dict[str, str | SecretStr]:
    """A copy in the bucket of the server at `url`."""
    return {
        "media_backup_url": f"s3://{BUCKET}/{prefix}",
        "backup_endpoint_url": url,
        "backup_access_key_id": SecretStr(ACCESS_KEY),
        "backup_secret_access_key": SecretStr(SECRET_KEY),
    }


class Deployment:
    """What the service has stored; `objects` is what there has to be a copy of, by storage key."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.storage = StorageService(settings, b"of the tests")
        self.objects: dict[str, bytes] = {}
        self._random = random.Random(7)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        migrate(settings.resolved_database_url)
        database = create_database(settings.resolved_database_url)
        await database.open()
        deployment = cls(settings, database)
        try:
            yield deployment
        finally:
            await deployment.storage.close()
            await database.close()

    async def add(self, owner: str, size: int = 100, kind: MediaKind = "audio", *, is_public: bool = False) -> str:
        """A file of random bytes, with the small copy that images have; returns its key."""
        (key,) = await self.add_many([owner], size, kind, is_public=is_public)
        return key

    async def add_many(
        self, owners: Sequence[str], size: int = 100, kind: MediaKind = "audio", *, is_public: bool = False
    ) -> list[str]:
        mime_type, extension = MIME[kind]
        rows = [
            MediaObject(
                f"{PUBLIC if is_public else owner_prefix(owner)}/{new_id()}{extension}",
                owner, kind, mime_type, size, None, now(),
            )
            for owner in owners
        ]  # fmt: skip
        for row in rows:
            await self._put(row.key, size)
            if kind == "image":
                await self._put(copy_key(row.key), size // 10)
        await self.database.write(store, *rows)
        return [row.key for row in rows]

    async def _put(self, key: str, size: int) -> None:
        self.objects[key] = self._random.randbytes(size)
        if self.storage.is_local:  # as it would lie there, but without waiting for the disk
            path = self.settings.data_dir / "media" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.objects[key])
        else:
            await self.storage.put(key, self.objects[key], "application/octet-stream")

    async def delete(self, *keys: str) -> None:
        """As when the conversation goes in which they were."""
        await self.database.write(lambda uow: uow.media.delete_unused(list(keys)))
        gone = [name for key in keys for name in (key, copy_key(key)) if name in self.objects]
        await self.storage.delete(gone)
        for key in gone:
            del self.objects[key]

    async def erase(self, owner: str) -> None:
        """The account, in the order in which the service does it."""
        log = ErasureLog(self.settings.data_dir / "erasures.jsonl")
        log.append(Erasure(new_id(), owner, to_text(now())))
        keys = await self.database.write(lambda uow: uow.accounts.delete_files(owner, 10_000))
        names = [name for key in keys for name in (key, copy_key(key))]
        await self.storage.delete(names)
        for name in names:
            self.objects.pop(name, None)

    async def copy(self, *, is_verified: bool = False, is_new: bool = False) -> tuple[Summary, list[Finding]]:
        findings: list[Finding] = []
        backup = MediaBackup(self.settings, findings.append, lambda *_: None)
        summary = await backup.copy(is_verified=is_verified, is_new=is_new)
        assert summary.findings == len(findings)
        return summary, sorted(findings, key=lambda finding: finding.name)

    async def restore(self) -> tuple[int, list[Finding]]:
        """How many objects are back."""
        findings: list[Finding] = []
        returned, count = await MediaBackup(self.settings, findings.append, lambda *_: None).restore()
        assert count == len(findings)
        return returned.restored, sorted(findings, key=lambda finding: finding.name)


def store(uow: UnitOfWork, *rows: MediaObject) -> None:
    for row in rows:
        uow.media.add(row)
        uow.media.set_stored(row.key)


class CopyFolder:
    """A copy as somebody sees it who looks into its folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        return self.root / "objects" / key

    def objects(self) -> dict[str, bytes]:
        """Without what the server of the bucket is about to put there."""
        top = self.root / "objects"
        files = (path for path in top.rglob("[!.]*") if path.is_file())
        return {str(path.relative_to(top)): path.read_bytes() for path in files}

    def index(self) -> Index:
        return msgspec.json.decode((self.root / "manifest.json").read_bytes(), type=Index)

    def segments(self) -> list[Path]:
        return sorted((self.root / "manifest").iterdir())

    def entries(self) -> list[Entry]:
        """All that the manifest names, in its order."""
        lines = [line for one in self.index().segments for line in (self.root / one.key).read_bytes().splitlines()]
        return [msgspec.json.decode(line, type=Entry) for line in lines]

    def hashes(self) -> dict[str, str]:
        """The SHA-256 of each object as the manifest has it."""
        return {key: copy.sha256 for entry in self.entries() for key, copy in entry.objects}


def hashes_of(objects: dict[str, bytes]) -> dict[str, str]:
    return {key: hashlib.sha256(data).hexdigest() for key, data in objects.items()}


__all__ = ["CopyFolder", "Deployment", "copy_at", "copy_in", "hashes_of", "s3_settings", "settings_for"]
