"""Whether the objects of a generation make a whole history: pure rules about their names and times.

Level 9 has snapshots of the whole database, level 0 each second's changes, and those between have the same changes
compacted. A restore begins with an object that begins at the first transaction, and goes on with objects of which each
follows the one before.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from operator import attrgetter
from typing import Final

from yral_chat.clients.litestream import LtxFile
from yral_chat.core.clock import SECOND, now, to_text
from yral_chat.services.backups.proof import Finding

SNAPSHOTS: Final = 9
# Litestream keeps level 0 for an hour (clients/litestream.py), also while nothing is written, but for the last object,
# and tidies up every few minutes.
FINE_MICROS: Final = 50 * 60 * SECOND


def find_gaps(files: Sequence[LtxFile], expected: int = 0) -> list[Finding]:
    """What is missing, as far as one can tell from what is there; empty when every point of it can be restored.

    `expected` is the last transaction that was sent or, after a kill, is to be; 0: nobody here knows.
    """
    ordered = sorted(files, key=lambda file: (file.level, first(file), last(file)))
    by_level = {level: list(found) for level, found in groupby(ordered, key=attrgetter("level"))}
    beginnings = [file for file in ordered if first(file) == 1]
    if not beginnings:
        return [Finding("snapshots", "Nothing is there that a restore could begin with.")]
    return [
        *_missing_end(files, expected),
        *_gaps_in_levels(by_level),
        *_late_beginnings(by_level, min(map(last, beginnings))),
        *_early_ends(by_level),
        *_fine_end_and_beginning(by_level),
        *_unreachable(ordered),
    ]


def is_followed_by_gap(files: Sequence[LtxFile], txid: int, at: int) -> bool:
    """Whether something later is there, and what would lead to it from this transaction is not: in one of the levels,
    or in all; where `at` (microseconds since the epoch) is of the last hour, in level 0. A snapshot leads to its own
    state only.
    """
    is_fine = at > now() - FINE_MICROS
    changes = sorted((file for file in files if file.level < SNAPSHOTS), key=lambda file: (file.level, first(file)))
    is_led_on = any(first(file) <= txid + 1 <= last(file) for file in changes if file.level == 0 or not is_fine)
    is_cut = any(
        one.level == other.level and last(one) <= txid and txid + 1 < first(other) for one, other in pairwise(changes)
    )
    return is_cut or (not is_led_on and any(last(file) > txid for file in files))


def first(file: LtxFile) -> int:
    return int(file.min_txid, 16)


def last(file: LtxFile) -> int:
    return int(file.max_txid, 16)


def name(file: LtxFile) -> str:
    """For people: its level, and which transactions it has."""
    return f"{file.level}/{file.min_txid}-{file.max_txid}.ltx"


def _missing_end(files: Sequence[LtxFile], expected: int) -> Iterator[Finding]:
    newest = max(files, key=last)
    if last(newest) < expected:
        text = f"What follows it, up to transaction {expected}, this machine had, and it is not there."
        yield Finding(name(newest), f"{text} After a kill the next start sends it.")


def _gaps_in_levels(by_level: dict[int, list[LtxFile]]) -> Iterator[Finding]:
    """Within a level each object begins where the one before has ended. A snapshot has everything in it."""
    for level, files in by_level.items():
        if level == SNAPSHOTS:
            continue
        for one, other in pairwise(files):
            if first(other) > last(one) + 1:
                yield Finding(
                    name(other), f"What lies before it is missing: transactions {last(one) + 1} to {first(other) - 1}."
                )


def _late_beginnings(by_level: dict[int, list[LtxFile]], oldest: int) -> Iterator[Finding]:
    """Compacted levels go back to the oldest state that a restore can begin with."""
    for level, files in by_level.items():
        if 0 < level < SNAPSHOTS and first(files[0]) > oldest + 1:
            yield Finding(name(files[0]), f"The objects before it, back to transaction {oldest + 1}, are missing.")


def _early_ends(by_level: dict[int, list[LtxFile]]) -> Iterator[Finding]:
    """A level is compacted out of the one below it, which so goes at least as far, and keeps its last object."""
    for level, files in by_level.items():
        below = by_level.get(level - 1, [])
        if 1 < level < SNAPSHOTS and max(map(last, below), default=0) < last(files[-1]):
            text = f"What it was made of, in level {level - 1}, is missing: up to transaction {last(files[-1])}."
            yield Finding(name(files[-1]), text)


def _fine_end_and_beginning(by_level: dict[int, list[LtxFile]]) -> Iterator[Finding]:
    """Level 0 has the newest change, and those of the last hour one by one."""
    fine = by_level.get(0)
    others = [file for level, files in by_level.items() if level > 0 for file in files]
    if not fine:
        yield Finding(
            "0/*.ltx", f"All of level 0 is missing, which had transaction {max(map(last, others))} by itself."
        )
        return
    newest = max(map(last, others), default=0)
    if newest > last(fine[-1]):
        text = f"What follows it is missing: transactions up to {newest}, one by one."
        compacted = (last(file) for file in others if file.level < SNAPSHOTS)
        if max(compacted, default=0) <= last(fine[-1]):  # a snapshot alone does not wait for level 0 to be sent
            text += " The snapshot has them, and so it is after a machine was lost just when one was made."
        yield Finding(name(fine[-1]), text)
    before = first(fine[0]) - 1
    # When that was, or shortly after; nobody reaches that far where states are lost.
    at = min((file.at for file in others if last(file) >= before), default=0)
    if before and at > now() - FINE_MICROS:
        yield Finding(name(fine[0]), f"Changes of the last hour before it, up to transaction {before}, are missing.")


def _unreachable(files: Sequence[LtxFile]) -> Iterator[Finding]:
    """Every object's end can be restored: something leads there from a beginning."""
    reached = 0
    lost: list[LtxFile] = []
    for file in sorted(files, key=lambda file: (last(file), first(file))):
        if first(file) == 1 or (reached and first(file) <= reached + 1):
            reached = max(reached, last(file))
        elif last(file) > reached:
            lost.append(file)
    for file in lost[:1]:
        yield Finding(
            name(file), f"Nothing leads to it, nor to {len(lost) - 1} more: states from {to_text(file.at)} on are lost."
        )
