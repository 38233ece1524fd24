"""yral-chat jobs: list, retry, purge."""

import asyncio
from typing import Annotated, Literal

import typer

from yral_chat.cli.running import operating, stop

app = typer.Typer(help="Background jobs: what waits, and what was tried too often.", no_args_is_help=True)


@app.command("list")
def list_jobs(
    dead: Annotated[bool, typer.Option("--dead", help="Only those that were tried too often.")] = False,
) -> None:
    """Show the oldest jobs. Changes nothing, and may run beside a server."""
    from yral_chat.job_commands import list_jobs as lines

    with operating() as settings:
        for line in lines(settings, is_dead=dead):
            typer.echo(line)


@app.command("retry")
def retry_jobs(
    job_id: Annotated[str | None, typer.Argument(metavar="ID", help="One dead job.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
) -> None:
    """Let dead jobs begin anew: through the running server, or without one at its next start."""
    if (job_id is None) != all_:
        stop("Say which: yral-chat jobs retry ID, or --all.")
    count = _change_jobs("retry", job_id)
    if job_id is not None and not count:
        stop(f"There is no dead job {job_id}.")
    typer.echo(f"{count} to be done again.")


@app.command("purge")
def purge_jobs(
    dead: Annotated[bool, typer.Option("--dead", help="Required: only dead ones can be purged.")] = False,
) -> None:
    """Forget dead jobs."""
    if not dead:
        stop("Say --dead: what waits is never thrown away.")
    typer.echo(f"{_change_jobs('purge', None)} forgotten.")


def _change_jobs(change: Literal["retry", "purge"], job_id: str | None) -> int:
    from yral_chat.job_commands import change_jobs

    with operating() as settings:
        return asyncio.run(change_jobs(settings, change, job_id))
