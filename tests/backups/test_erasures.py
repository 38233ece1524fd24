"""The log of erasures goes to the backup and comes back, however many there were."""

from pathlib import Path

import msgspec

from yral_chat.clients.backup_store import BackupStore, Target
from yral_chat.core.clock import now, to_text
from yral_chat.core.ids import new_id
from yral_chat.services.accounts.erasure_log import Erasure, ErasureLog
from yral_chat.services.backups import erasures

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
    assert await erasures.read(store, "database") == [*known, one_more]
    assert await erasures.fetch(store, "database", empty) == MANY + 1
    assert (empty / erasures.NAME).read_bytes() == (here / erasures.NAME).read_bytes()
