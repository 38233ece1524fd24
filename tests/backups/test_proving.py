"""Drills that the service makes by itself, and what they say of the backup."""

from pathlib import Path

import pytest
from loguru import logger

from tests.waiting import there, until
from yral_chat.core.clock import DAY, SECOND, now, to_text
from yral_chat.services.backups import proving
from yral_chat.services.backups.proof import Proof, save_proof
from yral_chat.services.backups.proving import Proving
from yral_chat.services.backups.scratch import scratch_folder

AT = "2026-11-28T10:00:00.000000Z"


def test_a_proof_of_another_backup_proves_nothing(tmp_path: Path) -> None:
    ours = Proof(AT, is_proven=False, proven_at=AT, target="file:///here", database_id="ours")
    save_proof(tmp_path, ours)

    def seen(target: str, database_id: str | None) -> Proving:
        return Proving(tmp_path, 6, lambda: True, lambda proof: proof.is_of(target, database_id))

    for database_id in ("ours", None):
        assert seen("file:///here", database_id).proof == ours
    for other in (seen("file:///there", "ours"), seen("file:///here", "theirs")):
        assert (other.proven_seconds, other.findings, other.has_failed) == (None, None, False)
        assert not other.is_stale, "there is a day to prove it"


def test_the_day_to_prove_it_counts_from_when_the_backup_began(tmp_path: Path) -> None:
    """And not from a start, of which there may be one each day."""

    def is_stale(begun_at: str | None) -> bool:
        return Proving(tmp_path, 6, lambda: True, lambda proof: True, begun_at=lambda: begun_at).is_stale

    assert not is_stale(None), "it is yet to begin"
    assert is_stale(to_text(now() - DAY - SECOND))
    assert not is_stale(to_text(now()))


@pytest.mark.long
async def test_a_drill_that_came_to_nothing_is_repeated_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(proving, "pause_after", lambda *_: 0.0)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("BACKUP_URL", f"file://{tmp_path}/backups")
    told: list[str] = []
    listening = logger.add(lambda message: told.append(str(message.record["extra"])), level="ERROR")
    drills = Proving(tmp_path, 1.0, lambda: True, lambda proof: True)
    try:
        with scratch_folder(tmp_path):  # as somebody's own drill has it
            drills.start()
            await until(there(lambda: sum("Another" in line for line in told) == 2), what="another try", seconds=60)
        await until(there(lambda: drills.has_failed), what="one with a result", seconds=60)
    finally:
        await drills.stop()
        logger.remove(listening)
    assert drills.findings == 1


async def test_a_machine_without_room_for_a_process_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proving, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(proving, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr("sys.executable", str(tmp_path / "not-there"))
    told: list[str] = []
    listening = logger.add(lambda message: told.append(message.record["message"]), level="ERROR")
    drills = Proving(tmp_path, 1.0, lambda: True, lambda proof: True)
    try:
        drills.start()
        await until(there(lambda: told.count("backup.command_not_started") >= 2), what="another try")
    finally:
        await drills.stop()
        logger.remove(listening)
    assert drills.proof is None
