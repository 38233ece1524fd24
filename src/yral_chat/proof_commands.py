"""`yral-chat backup drill | verify`: does the backup restore, and are its objects those that were written."""

import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import typer

from yral_chat.clients.backup_store import BackupStoreError
from yral_chat.clients.litestream import LitestreamError, LtxFile, newest
from yral_chat.core.config import Settings
from yral_chat.core.sizes import MEBIBYTE
from yral_chat.core.words import counted
from yral_chat.progress import Bar
from yral_chat.services.backups import erasures
from yral_chat.services.backups.catalogue import Generation, place
from yral_chat.services.backups.drill import Drill
from yral_chat.services.backups.kept import Backups, has_dumps
from yral_chat.services.backups.local import load_state
from yral_chat.services.backups.proof import Finding, Proof, save_proof
from yral_chat.services.backups.restoring import RestoreFailed
from yral_chat.services.backups.scratch import ScratchUnusable, scratch_folder
from yral_chat.services.backups.verifying import Verifier

if TYPE_CHECKING:
    from yral_chat.services.backups.postgres_drill import PostgresDrill


async def run_drill(settings: Settings) -> bool:
    """Says what comes out, writes it down for the service, and returns whether the backup is proven.

    Raises RestoreFailed, DumpFailed when there could be none.
    """
    _stand_back()
    with Bar() as bar:
        drill = _postgres_drill(settings, bar) if has_dumps(settings) else Drill(settings, bar.say, bar.bytes)
        try:
            proof = await drill.run()
        except ScratchUnusable as error:
            raise RestoreFailed(str(error)) from error
    for line in _lines(proof):
        typer.echo(line)
    state = load_state(settings.data_dir)
    if state is None or has_dumps(settings) or state.target == Backups(settings).name:
        save_proof(settings.data_dir, proof)
    else:
        typer.echo(f"Not written down: what is in {settings.data_dir} is backed up to {state.target}.")
    return proof.is_proven


def _postgres_drill(settings: Settings, bar: Bar) -> "PostgresDrill":
    from yral_chat.services.backups.postgres_drill import PostgresDrill  # with all that the other one does without

    return PostgresDrill(settings, bar.say)


async def verify(settings: Settings, *, is_all: bool) -> bool:
    """Says what is wrong with the newest generation, or all of them, or the dumps; returns whether nothing is.

    Raises RestoreFailed, DumpFailed.
    """
    _stand_back()
    with Bar() as bar:
        if has_dumps(settings):
            return await _verify_dumps(settings, bar)
        backups, count = Backups(settings), 0
        try:
            # Said at once: what comes behind may not be possible here.
            async for finding in _verify(backups, settings, bar, is_all=is_all):
                bar.say(_told([finding])[0])
                count += 1
        except ScratchUnusable as error:
            raise RestoreFailed(str(error)) from error
        except LitestreamError as error:
            raise RestoreFailed(f"The backup at {backups.name} cannot be verified: {error}.") from error
        except BackupStoreError as error:
            raise RestoreFailed(f"The backup at {backups.name} cannot be used: {error.reason}.") from error
    typer.echo(_verdict(count))
    return not count


async def _verify(backups: Backups, settings: Settings, bar: Bar, *, is_all: bool) -> AsyncIterator[Finding]:
    for finding in await backups.find_damage():
        yield finding
    entry, newest_one = await backups.find(None)
    for finding in await erasures.find_missing(backups.store, entry.database_id, settings.data_dir, entry.erasures):
        yield finding
    async for finding in _verify_one(backups, settings, bar, entry.database_id, newest_one, is_all=is_all):
        yield finding
    for kept in await backups.list() if is_all else ():
        if (older := kept.generation).id != newest_one.id:
            of_it = _verify_one(backups, settings, bar, kept.database_id, older, is_all=True, is_newest=False)
            async for finding in of_it:
                yield Finding(f"{older.id} {finding.subject}", finding.text)


async def _verify_one(
    backups: Backups,
    settings: Settings,
    bar: Bar,
    database_id: str,
    generation: Generation,
    *,
    is_all: bool,
    is_newest: bool = True,
) -> AsyncIterator[Finding]:
    from yral_chat.services.backups.judging import restore_points  # lazily, as in drill.py

    litestream = backups.litestream(database_id, generation)
    verifier = Verifier(backups.store, litestream, place(database_id, generation.id), settings, is_noting=is_newest)
    if not (count := len(await litestream.files())):
        if generation.has_arrived:
            yield Finding("objects", "They are missing.")
        return
    findings = await verifier.look(
        await backups.last_sent(litestream, generation.id),
        told=lambda done: bar.count("objects read", done, max(done, count)),  # some may come meanwhile
    )
    files = await litestream.files()
    total = sum(file.size for file in files) / MEBIBYTE
    bar.say(f"{len(files)} objects of generation {generation.id}, {total:.1f} MiB.")
    for finding in findings:
        yield finding
    with scratch_folder(settings.data_dir) as folder:
        points = await verifier.points() if is_all else _newest_alone(files)
        size = max([await verifier.bytes_at(point) for point in points], default=0)
        async for finding in restore_points(litestream, points, folder, size, bar.bytes, bar.say):
            yield finding


async def _verify_dumps(settings: Settings, bar: Bar) -> bool:
    from yral_chat.services.backups.dumps import DumpFailed, Dumps  # lazily, as in drill.py

    dumps = Dumps(settings)
    findings = 0
    async for wrong in dumps.verify(bar.bytes):
        findings += 1
        bar.say(wrong)
    own, others = await dumps.sort()
    if not own and not others:
        raise DumpFailed(f"{dumps.place} holds no dump.")
    missing = await dumps.find_missing_erasures(own[-1]) if own else []
    for line in _told(missing):
        bar.say(line)
    findings += len(missing)
    bar.say(f"{counted(len(own) + len(others), 'dump', 'dumps')}. {_verdict(findings)}")
    return not findings


def _stand_back() -> None:
    """Whatever the service does goes first; Litestream's commands inherit it."""
    os.nice(19)


def _newest_alone(files: list[LtxFile]) -> list[LtxFile]:
    found = newest(files)
    return [] if found is None else [found]


def _lines(proof: Proof) -> list[str]:
    lines = list(_told(proof.findings))
    if proof.recovery_seconds is not None:
        compared = "compared with what the server had" if proof.is_compared else "no server to compare with"
        lines += [
            f"{proof.bytes / MEBIBYTE:.1f} MiB, {proof.rows} rows, {compared}.",
            f"recovery point  {proof.recovery_point_seconds:.1f} s",
            f"recovery time   {proof.recovery_seconds:.1f} s",
            f"drill           {proof.duration_seconds:.1f} s",
        ]
    if proof.is_proven:
        return [*lines, f"Proven: the state of {proof.proven_at} restores."]
    since = f"since {proof.proven_at}" if proof.proven_at else "so far"
    return [*lines, f"Not proven {since}: {_findings(len(proof.findings))}."]


def _verdict(findings: int) -> str:
    return f"Not sound: {_findings(findings)}." if findings else "Sound."


def _findings(count: int) -> str:
    return counted(count, "finding", "findings")


def _told(findings: "list[Finding] | tuple[Finding, ...]") -> list[str]:
    return [f"{finding.subject}: {finding.text}" for finding in findings]
