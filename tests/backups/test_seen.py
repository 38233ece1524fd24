"""What a look at the backup knows of the look before it."""

from pathlib import Path

import pytest

from yral_chat.clients.litestream import LtxFile, txid_text
from yral_chat.core.clock import DAY, now
from yral_chat.services.backups.histories import SNAPSHOTS, name
from yral_chat.services.backups.seen import find_vanished, load_seen, save_seen

RETENTION = 30 * DAY


def at(level: int, first: int, last: int, *, days: float) -> LtxFile:
    return LtxFile(level, txid_text(first), txid_text(last), 100, now() - round(days * DAY))


OLD, SECOND, NEWEST = (at(SNAPSHOTS, 1, last, days=days) for last, days in ((1, 31), (5, 29), (9, 0.5)))
EARLY, LATE, FINE = at(1, 2, 3, days=30), at(1, 6, 10, days=0.1), at(0, 10, 10, days=0.1)
EQUAL = at(2, 4, 5, days=29)  # ends with the oldest snapshot that is kept
SEEN = (OLD, SECOND, NEWEST, EARLY, EQUAL, LATE)


@pytest.mark.parametrize("gone", [SECOND, NEWEST, EQUAL, LATE])
def test_what_nobody_had_a_reason_to_delete_is_missed(gone: LtxFile) -> None:
    left = [file for file in SEEN if file != gone]
    assert [finding.subject[0] for finding in find_vanished(SEEN, left, RETENTION)] == [str(gone.level)]


@pytest.mark.parametrize("last_of_level", [OLD, EARLY])
def test_the_last_of_a_level_stays_however_old_it_is(last_of_level: LtxFile) -> None:
    left = [EQUAL, FINE] if last_of_level is OLD else [EQUAL, FINE, SECOND]
    assert [finding.subject for finding in find_vanished([*left, last_of_level], left, RETENTION)] == [
        name(last_of_level)
    ]


def test_of_what_was_at_the_end_of_a_level_only_the_last_is_missed() -> None:
    """Those before it Litestream may have deleted, while it was not looked at."""
    old = [at(1, first, first + 1, days=30) for first in (1, 3, 5)]
    (found,) = find_vanished(old, [SECOND, NEWEST, FINE], RETENTION)
    assert found.subject == name(old[-1])


def test_what_is_too_old_may_go() -> None:
    assert not list(find_vanished(SEEN, (SECOND, NEWEST, EQUAL, LATE), RETENTION))
    later = (at(SNAPSHOTS, 1, 11, days=0), at(1, 11, 12, days=0))
    assert not list(find_vanished((OLD, EARLY), later, RETENTION))


def test_a_note_is_of_one_generation_at_one_target(tmp_path: Path) -> None:
    save_seen(tmp_path, "s3://here", "database/generation", [*SEEN, FINE])
    assert load_seen(tmp_path, "s3://here", "database/generation") == SEEN
    assert load_seen(tmp_path, "s3://there", "database/generation") == ()
    assert load_seen(tmp_path, "s3://here", "database/another") == ()


def test_a_note_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "backup-seen.json").write_text("{")
    assert load_seen(tmp_path, "s3://here", "database/generation") == ()
