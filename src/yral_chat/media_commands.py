"""`yral-chat backup media`: a second place for what people have uploaded."""

from collections.abc import Iterator

import typer

from yral_chat.core.config import Settings
from yral_chat.core.sizes import MEBIBYTE
from yral_chat.progress import Bar
from yral_chat.services.backups.media import MediaBackup, Summary


async def copy_media(settings: Settings, *, is_verified: bool, is_new: bool) -> bool:
    """Whether there was nothing to find fault with. Raises MediaBackupFailed, DatabaseUnusable, OSError."""
    with Bar() as bar:
        backup = MediaBackup(settings, bar.say, bar.count)
        summary = await backup.copy(is_verified=is_verified, is_new=is_new)
    for line in _lines(summary, is_verified=is_verified):
        typer.echo(line)
    return not summary.findings


async def restore_media(settings: Settings) -> bool:
    """Whether everything is there now. Raises as `copy_media`."""
    with Bar() as bar:
        returned, findings = await MediaBackup(settings, bar.say, bar.count).restore()
    typer.echo(
        f"Of {returned.objects} objects {returned.restored} were missing and are back "
        f"({returned.bytes / MEBIBYTE:.1f} MiB); {findings} are not as they should be."
    )
    return not findings


def _lines(summary: Summary, *, is_verified: bool) -> Iterator[str]:
    counts = summary.counts
    yield f"The copy at {summary.target} is complete." if not summary.findings else f"The copy at {summary.target}:"
    yield f"  files     {counts.files} ({counts.bytes / MEBIBYTE:.1f} MiB){', all read again' if is_verified else ''}"
    yield f"  new       {counts.copied} ({counts.copied_bytes / MEBIBYTE:.1f} MiB)"
    yield f"  deleted   {counts.deleted}"
    yield f"  leaving   {counts.leaving} that people have deleted"
    yield f"  findings  {summary.findings}"
