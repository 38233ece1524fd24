"""Originals that were copied: are they still there?"""

from yral_chat.services.backups.media.failures import Finding, Report, in_parallel
from yral_chat.services.backups.media.names import Names
from yral_chat.services.backups.media.originals import Originals, described
from yral_chat.services.backups.media.walking import Page


class Losses:
    """Names those that the database knows and that are gone, or not as long as their copy. Nothing is read for it."""

    def __init__(self, originals: Originals, report: Report) -> None:
        self._originals = originals
        self._report = report
        self._listed: Names | None = None  # before the first page that was copied before

    async def look(self, page: Page) -> None:
        """Raises MediaBackupFailed, DatabaseUnusable."""
        rows = {row.key for row in page.rows}
        copied = [
            (entry.key, key, copy.size) for entry in page.entries if entry.key in rows for key, copy in entry.objects
        ]
        if copied and self._listed is None:
            self._listed = await self._originals.listed()
        unseen = [one for one in copied if described(*one[1:]) not in (self._listed or ())]
        sizes = await in_parallel(lambda one: self._originals.size_of(one[1]), unseen)
        lost = [(*one, found) for one, found in zip(unseen, sizes, strict=True) if found != one[2]]
        # People may have deleted them a moment ago.
        known = await self._originals.known({file for file, *_ in lost})
        for file, key, size, found in lost:
            if file in known:
                what = "is not there" if found is None else f"has {found} bytes instead of {size}"
                self._report(Finding("lost", key, f"its original {what}; --restore brings it back"))
