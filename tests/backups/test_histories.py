"""What the names of the objects that are left tell of those that are not."""

import pytest

from yral_chat.clients.litestream import LtxFile, txid_text
from yral_chat.core.clock import SECOND, now
from yral_chat.services.backups.histories import SNAPSHOTS, find_gaps

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE


def at(level: int, first: int, last: int) -> LtxFile:
    return LtxFile(level, txid_text(first), txid_text(last), 100, last * HOUR)


# As Litestream leaves them after some hours: of level 0 there is the last hour.
WHOLE = [
    *(at(0, txid, txid) for txid in range(9, 14)),
    *(at(1, txid, txid + 1) for txid in range(2, 12, 2)),
    at(2, 2, 5),
    at(2, 6, 9),
    at(3, 2, 9),
    at(SNAPSHOTS, 1, 1),
]


def test_a_whole_history_has_no_gaps() -> None:
    assert find_gaps(WHOLE, 13) == []


@pytest.mark.parametrize(
    "gone",
    [
        pytest.param(lambda file: file.level == SNAPSHOTS, id="what a restore begins with"),
        pytest.param(lambda file: file == at(0, 11, 11), id="in the middle of the last hour"),
        pytest.param(lambda file: file == at(0, 13, 13), id="the newest"),
        pytest.param(lambda file: file == at(1, 4, 5), id="in the middle of a level"),
        pytest.param(lambda file: file == at(1, 2, 3), id="at the beginning of a level"),
        pytest.param(lambda file: file.level == 1 and file.min_txid > txid_text(7), id="at the end of level 1"),
        pytest.param(lambda file: file == at(2, 6, 9), id="at the end of level 2"),
        pytest.param(lambda file: file.level == 0, id="all of level 0"),
        pytest.param(lambda file: file.level == 1, id="all of level 1"),
        pytest.param(lambda file: file.level == 2, id="all of level 2"),
    ],
)
def test_what_is_gone_is_named(gone) -> None:  # type: ignore[no-untyped-def]
    assert find_gaps([file for file in WHOLE if not gone(file)], 13)


def _at(level: int, first: int, last: int, minutes_ago: float) -> LtxFile:
    return LtxFile(level, txid_text(first), txid_text(last), 100, now() - round(minutes_ago * MINUTE))


def test_without_level_0_the_newest_is_missed_also_by_who_does_not_know_it() -> None:
    (found,) = find_gaps([file for file in WHOLE if file.level])
    assert found.text == "All of level 0 is missing, which had transaction 11 by itself."


def test_a_snapshot_that_alone_has_the_newest_may_have_been_the_last_that_a_lost_machine_did() -> None:
    """Litestream makes it of what is here, which it sends change by change afterwards."""
    (found,) = find_gaps([_at(0, 1, 1, 2), _at(1, 1, 1, 2), _at(SNAPSHOTS, 1, 4, 1)])
    assert found.text.startswith("What follows it is missing: transactions up to 4, one by one. The snapshot has them,")
    (found,) = find_gaps([_at(SNAPSHOTS, 1, 1, 2), _at(0, 1, 1, 2), _at(1, 1, 4, 1)])
    assert found.text == "What follows it is missing: transactions up to 4, one by one."


def test_who_has_written_nothing_for_an_hour_misses_nothing() -> None:
    """Litestream then leaves the last change of level 0 alone: its own, a minute after somebody's."""
    idle = [_at(SNAPSHOTS, 1, 1, 90), _at(1, 1, 2, 80), _at(1, 3, 15, 76), _at(1, 16, 16, 75), _at(0, 16, 16, 75)]
    assert find_gaps(idle, 16) == []
    assert find_gaps([*idle[:3], idle[-1]], 16) == []  # level 1 is yet to be made of it


def test_the_beginning_of_the_last_hour_is_missed() -> None:
    busy = [_at(SNAPSHOTS, 1, 1, 30), _at(1, 1, 5, 20), _at(1, 6, 7, 15), _at(0, 8, 8, 11), _at(0, 9, 9, 10)]
    (found,) = find_gaps(busy, 9)
    assert found.text.startswith("Changes of the last hour before it, up to transaction 7")
