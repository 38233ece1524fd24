"""The database and the manifest side by side, in the order of keys, some hundred files at a time."""

from collections.abc import AsyncIterator
from typing import Final

import msgspec

from yral_chat.db.repositories.media import MediaObject
from yral_chat.services.backups.media.failures import Finding, Report
from yral_chat.services.backups.media.manifest import Entry, Index, Manifest, Segment, SegmentDamaged
from yral_chat.services.backups.media.originals import Originals, Rows

# Files of one page, and so of most segments: what a run that is killed has to look at again.
PAGE: Final = 500


class Page(msgspec.Struct, frozen=True):
    """`rows` and `entries` with keys from `start` on and before `end`.

    `segment` is the one that has exactly these entries, if there is one; `rest` are the segments that come behind, and
    what is left of the present one.
    """

    rows: list[MediaObject]
    entries: list[Entry]
    start: str
    end: str | None  # None: there is none
    segment: Segment | None
    rest: tuple[Segment, ...]


async def walk(originals: Originals, manifest: Manifest, index: Index, report: Report) -> AsyncIterator[Page]:
    """All pages. A damaged segment is reported, and counts as empty."""
    rows = Rows(originals)
    segments, start = index.segments, ""
    for number in range(max(1, len(segments))):
        rest = segments[number + 1 :]
        segment, entries = (await _load(manifest, segments[number], report)) if segments else (None, [])
        is_whole = True
        while True:
            end = rest[0].first if rest else None
            taken = await rows.take(end, PAGE)
            if is_last := len(taken) < PAGE:
                here, entries = entries, []
            else:
                end = taken[-1].key + "\0"
                here = [entry for entry in entries if entry.key < end]
                entries = entries[len(here) :]
            is_whole = is_whole and not entries
            left = (Segment(entries[0].key, segment.name),) if entries and segment is not None else ()
            yield Page(taken, here, start, end, segment if is_whole else None, (*left, *rest))
            start, is_whole = end or "", False
            if is_last:
                break


async def _load(manifest: Manifest, segment: Segment, report: Report) -> tuple[Segment | None, list[Entry]]:
    try:
        return segment, await manifest.load(segment)
    except SegmentDamaged:
        report(Finding("manifest", segment.key, "damaged; what it named is copied again"))
        return None, []
