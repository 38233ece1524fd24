"""What a look at a restored database has found, as findings; and such looks at many moments of a backup."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from yral_chat.clients.litestream import Litestream, LitestreamError, LtxFile
from yral_chat.core.clock import to_text
from yral_chat.db.checksums import Difference
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.urls import file_url
from yral_chat.db.verification import UNASKED, Fault, examine
from yral_chat.services.backups import restoring
from yral_chat.services.backups.proof import Finding
from yral_chat.services.backups.restoring import Progress, Say


def as_finding(fault: Fault) -> Finding:
    return Finding(fault.check, f"Not so in {fault.count} places: {fault.sentence} ({fault.example})")


def as_difference(difference: Difference) -> Finding:
    here, there = difference.expected, difference.found
    if here is None or there is None:
        where = "the backup alone has" if here is None else "the backup does not have"
        return Finding("comparison", f"{difference.table} is a table that {where}.")
    return Finding(
        "comparison",
        f"{difference.table} came back as something else: {there.rows} rows instead of {here.rows}."
        if here.rows != there.rows
        else f"{difference.table} came back with {here.rows} rows as it must, but not with the same in them.",
    )


async def restore_points(
    litestream: Litestream, points: Sequence[LtxFile], folder: Path, size: int, progress: Progress, say: Say
) -> AsyncIterator[Finding]:
    """Each of them, one after the other. `say` is told what could not be asked. Raises ScratchUnusable."""
    for point in points:
        to, at = folder / "point.db", to_text(point.at)
        try:
            await restoring.restore_aside(litestream, to, txid=point.max_txid, size=size, progress=progress)
            found = await asyncio.to_thread(examine, file_url(to), is_summed=False)
        except (LitestreamError, DatabaseUnusable) as error:
            yield Finding(f"restore at {at}", f"It cannot be restored: {error}.")
        else:
            if found.is_partial:
                say(f"The tables at {at} are of another version ({found.revision}): {UNASKED}.")
            for finding in map(as_finding, found.faults):
                yield Finding(f"{finding.subject} at {at}", finding.text)
        await asyncio.to_thread(restoring.remove_database, to)
