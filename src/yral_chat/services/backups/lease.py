"""Who backs up to a target: one at a time. An object that its holder writes again and again says so.

Whoever finds one that is not theirs watches it: while it changes its holder lives, and the newcomer is refused; when
it stands still for all of `ttl_seconds`, its holder's or their own, whichever is longer, it is taken over. No clock of
one machine is compared with another's. Writes are conditional, so that of two newcomers one wins; where a bucket
ignores conditions they look again after `SETTLE_SECONDS`, which leaves a gap that is as narrow as the network is fast.
One that cannot be read is damaged, or being written (some servers show what is half written): a holder who was not
silent for longer than others wait writes it anew, and whoever else finds it watches it, for their own `ttl_seconds`.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from yral_chat.clients.backup_store import BackupStore, BackupStoreError, Conflict, Stored
from yral_chat.core.clock import SECOND, now, to_text
from yral_chat.core.decoding import decode
from yral_chat.core.logging import log
from yral_chat.core.objects import Time
from yral_chat.services.backups.catalogue import LEASE

SETTLE_SECONDS: Final = 2.0


class Holder(msgspec.Struct, frozen=True):
    """`lease.json`. `owner` is the data folder's, so that a service that was killed has it again at once.

    `ttl_seconds`: for how long it may be silent. Where an earlier version wrote it, that is what it is unless somebody
    sets it.
    """

    owner: str
    host: str
    renewed_at: Time
    is_released: bool = False
    ttl_seconds: float = 15


class LeaseTaken(Exception):
    """Another service backs up to this target; the text says which."""


class Lease:
    """Held from `acquire` until `release`. `on_lost` is called once when somebody else has it."""

    def __init__(
        self,
        store: BackupStore,
        owner: str,
        *,
        ttl_seconds: float,
        settle_seconds: float = SETTLE_SECONDS,
        on_lost: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._owner = owner
        self._ttl = ttl_seconds
        self._settle = settle_seconds
        self._on_lost = on_lost
        self._version: str | None = None
        self._is_conditional = True
        self._renewing: asyncio.Task[None] | None = None
        self._other: Holder | None = None  # who was seen to have it
        self._written_at = 0  # microseconds since the epoch, on this machine's clock
        self.error: str | None = None  # why it could not be renewed, the last time

    async def acquire(self) -> None:
        """Waits for up to `ttl_seconds`, or those of another holder, when that one seems dead.

        Raises LeaseTaken, BackupStoreError.
        """
        self._is_conditional = await self._store.honours_conditions()
        if not self._is_conditional:
            log.warning("backup.conditions_ignored", target=self._store.target.name)
        found = await self._store.get(LEASE)
        try:
            if found is not None and not self._is_free(found):
                found = await self._watch(found)
            await self._take(found)
        except Conflict as error:
            raise LeaseTaken(await self._words()) from error
        self._renewing = asyncio.create_task(self._renew_forever())

    async def is_ours(self) -> bool:
        """Looks, after the target was another one; who has lost it is told so soon. Raises BackupStoreError."""
        self._written_at = 0  # what was written last may lie elsewhere
        try:
            await self._look()
        except Conflict:
            return False
        return True

    async def release(self) -> None:
        if self._renewing is None:
            return
        self._renewing.cancel()
        with suppress(asyncio.CancelledError):
            await self._renewing
        self._renewing = None
        with suppress(BackupStoreError, Conflict):
            if self._is_conditional or self._is_own(await self._store.get(LEASE)):
                await self._write(is_released=True)

    def _is_free(self, found: Stored) -> bool:
        holder = _holder(found)
        return holder is not None and (holder.is_released or holder.owner == self._owner)

    def _is_own(self, found: Stored | None) -> bool:
        holder = None if found is None else _holder(found)
        return holder is not None and holder.owner == self._owner

    async def _watch(self, found: Stored) -> Stored | None:
        """The same object, when it has not changed for as long as a live holder never leaves it alone.

        Raises Conflict, BackupStoreError.
        """
        holder = _holder(found)
        self._other = holder or self._other
        seconds = max(self._ttl, holder.ttl_seconds if holder is not None else 0)
        log.warning("backup.lease_watched", host=getattr(holder, "host", None), seconds=seconds)
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            await asyncio.sleep(self._ttl / 15)
            seen = await self._store.get(LEASE)
            if seen is None or self._is_free(seen):
                return seen
            if seen.data != found.data:
                raise Conflict
        return found

    async def _take(self, found: Stored | None) -> None:
        if not self._is_conditional:
            await self._write()
            await asyncio.sleep(self._settle)
            # Also where it cannot be read: whoever writes it now is later, and finds its own.
            if not self._is_own(await self._store.get(LEASE)):
                raise Conflict
            return
        began = now()
        if found is None:
            self._version = await self._store.create(LEASE, self._record())
        else:
            self._version = await self._store.replace(LEASE, self._record(), found.version)
        self._written_at = began

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(self._ttl / 3)
            try:
                if not self._is_conditional:
                    await self._look()
                await self._write_or_regain()
                self.error = None
            except Conflict:
                self._on_lost(await self._words())
                return
            except BackupStoreError as error:
                # Nobody else can reach it either, or will find it changed: it stays ours until somebody has taken it.
                self.error = error.reason
                log.warning("backup.lease_not_renewed", error=error.reason)

    async def _write_or_regain(self) -> None:
        """Raises Conflict only when another has it: an answer of ours may have been lost, or somebody deleted it."""
        try:
            await self._write()
        except Conflict:
            await self._take(await self._look())

    async def _look(self) -> Stored | None:
        """What is there. Raises Conflict when the lease is another's."""
        found = await self._store.get(LEASE)
        if found is None:
            return None
        # Who was silent for so long, frozen or cut off, may find what another is just writing.
        if _holder(found) is None and now() - self._written_at > self._ttl * SECOND:
            found = await self._watch(found)
        holder = None if found is None else _holder(found)
        if holder is not None and holder.owner != self._owner:
            self._other = holder
            raise Conflict
        return found

    async def _write(self, *, is_released: bool = False) -> None:
        began, record = now(), self._record(is_released=is_released)
        if self._is_conditional:
            self._version = await self._store.replace(LEASE, record, self._version)
        else:
            await self._store.put(LEASE, record)
        self._written_at = began

    def _record(self, *, is_released: bool = False) -> bytes:
        holder = Holder(self._owner, socket.gethostname(), to_text(now()), is_released, self._ttl)
        return msgspec.json.encode(holder)

    async def _words(self) -> str:
        holder = self._other
        with suppress(BackupStoreError):
            found = await self._store.get(LEASE)
            holder = (_holder(found) if found is not None else None) or holder
        who = f"a service on {holder.host}, last heard of at {holder.renewed_at}" if holder else "another service"
        return f"{self._store.target.name} is the backup of {who}. Stop that one, or set BACKUP_URL to another place."


def _holder(found: Stored) -> Holder | None:
    try:
        return decode(found.data, Holder)
    except msgspec.DecodeError:
        return None
