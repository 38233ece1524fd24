"""One process serves a database. A second one is told so, and changes nothing; other programs may look at it."""

import asyncio
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import httpx2

from tests.cli.commands import Cli
from tests.crash.conftest import MakeUser
from tests.crash.test_bad_database import fingerprints, refused
from tests.service import START_SECONDS, Service
from tests.waiting import until


def beside(service: Service) -> Cli:
    """The command line of somebody with the same settings, on another port."""
    return Cli(service.folder, **{**service.settings, "PORT": "0"})


def test_a_second_process_is_refused(own_service: Service) -> None:
    own_service.start()
    folder = own_service.folder / "data"
    second = beside(own_service)
    before = fingerprints(folder)
    refused(second.run("serve"), "is served by another process", "Stop it first")
    refused(second.run("migrate"), "is served by another process")
    assert fingerprints(folder) == before
    assert httpx2.get(f"{own_service.url}/health/ready").status_code == 200


def test_of_two_that_start_at_once_one_serves(own_service: Service) -> None:
    """The other one is told; neither finds half-made tables."""
    both = [beside(own_service).start("serve") for _ in range(2)]
    try:
        loser = _first_to_end(both)
        winner = next(process for process in both if process is not loser)
        assert loser.returncode == 1
        assert loser.stderr is not None
        assert "is served by another process" in loser.stderr.read()
        assert winner.stdout is not None
        assert any("Yral AI Chat is running" in line for line in winner.stdout)
    finally:
        for process in both:
            process.send_signal(signal.SIGKILL)
            process.communicate()


def _first_to_end(processes: "list[subprocess.Popen[str]]") -> "subprocess.Popen[str]":
    async def look() -> "subprocess.Popen[str] | None":
        return next((process for process in processes if process.poll() is not None), None)

    found = asyncio.run(until(look, what="the end of one of them", seconds=START_SECONDS))
    assert found is not None
    return found


async def test_a_program_that_holds_the_lock_delays_and_refuses_but_loses_nothing(
    sqlite_service: Service, new_user: MakeUser
) -> None:
    sqlite_service.start()
    api = new_user(sqlite_service)
    conversation = await api.open()
    await api.said(conversation["id"], "Before")
    before = await api.history(conversation["id"], include="unfinished")
    with closing(_open(sqlite_service.folder)) as other:
        other.execute("BEGIN IMMEDIATE")
        sending = [api.send(conversation["id"], "Hello", client_message_id=f"key {number}") for number in range(3)]
        refusals = await asyncio.gather(*sending)
        assert await api.history(conversation["id"], include="unfinished") == before
        other.execute("ROLLBACK")
    for refusal in refusals:
        assert (refusal.status_code, refusal.json()["error"]) == (503, "service_unavailable"), refusal.text
        assert int(refusal.headers["retry-after"]) >= 1
    _, reply = await api.said(conversation["id"], "Hello", client_message_id="key 0")
    assert reply["content"] == "You said: Hello"
    assert len(await api.history(conversation["id"], include="unfinished")) == len(before) + 2


def _open(folder: Path) -> sqlite3.Connection:
    """As somebody does who looks into the file with SQLite's own shell."""
    return sqlite3.connect(folder / "data" / "yral_chat.db", isolation_level=None)
