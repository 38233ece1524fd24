"""`DATA_DIR/backup-proof.json`: whether the backup restores, as of the last drill."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from yral_chat.core.clock import now, to_text
from yral_chat.core.config import Settings
from yral_chat.core.decoding import decode
from yral_chat.core.files import write_whole
from yral_chat.core.objects import Time

NAME: Final = "backup-proof.json"


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong: `subject` names a check or an object, `text` is one sentence for people."""

    subject: str
    text: str


class Proof(msgspec.Struct, frozen=True):
    """`at` is when the drill ended. `proven_at` is the moment whose state was last restored without a finding, by this
    drill or an earlier one. `is_compared`: with what the server had at that moment, not only looked at by itself.
    `target` is what BACKUP_URL was.

    `recovery_point_seconds`: what would have been lost with the machine at that moment; `recovery_seconds`: how long
    the restore took.
    """

    at: Time
    is_proven: bool
    proven_at: Time | None
    is_compared: bool = False
    target: str | None = None
    database_id: str | None = None
    generation: str | None = None
    txid: str | None = None
    bytes: int = 0
    rows: int = 0
    recovery_point_seconds: float | None = None
    recovery_seconds: float | None = None
    duration_seconds: float = 0
    findings: tuple[Finding, ...] = ()

    def is_of(self, target: str | None, database_id: str | None) -> bool:
        """Whether it is about this backup. A drill that came to nothing may not know the database: None."""
        return self.target == target and (None in (self.database_id, database_id) or self.database_id == database_id)


def load_proof(data_dir: Path) -> Proof | None:
    """None where there was no drill, or what it wrote cannot be read."""
    try:
        return decode((data_dir / NAME).read_bytes(), Proof)
    except (OSError, msgspec.DecodeError):
        return None


def conclude(
    settings: Settings, started: float, moment: int, findings: Sequence[Finding], facts: Mapping[str, object]
) -> Proof:
    """What a drill has come to that began at `started` of time.monotonic and restored the state of `moment`. What an
    earlier one of the same backup has proven counts on where this one has found something. `facts`: the other fields.
    """
    proof = Proof(
        at=to_text(now()),
        is_proven=not findings,
        proven_at=None if findings else to_text(moment),
        target=settings.backup_url,
        duration_seconds=round(time.monotonic() - started, 3),
        findings=tuple(findings),
        **facts,  # type: ignore[arg-type]
    )
    before = load_proof(settings.data_dir)
    if proof.is_proven or before is None or not before.is_of(proof.target, proof.database_id):
        return proof
    return msgspec.structs.replace(proof, proven_at=before.proven_at)


def save_proof(data_dir: Path, proof: Proof) -> None:
    write_whole(data_dir / NAME, msgspec.json.encode(proof))
