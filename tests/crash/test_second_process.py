"""One process serves a database. A second one is told so, and changes nothing; other programs may look at it."""

import asyncio
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import psycopg
import pytest

from tests.cli.commands import Cli
from tests.crash.conftest import MakeUser
from tests.crash.test_bad_database import fingerprints, refused
from tests.programs import PrivatePostgres
from tests.service import START_SECONDS, FakeModel, Service
from tests.waiting import until
from yral_chat.db.serve_lock import SERVE_LOCK


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


@pytest.mark.long
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


@pytest.mark.long
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


LOCKS = (
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
WAITING = LOCKS.replace("AND granted", "AND NOT granted")


@pytest.fixture
def postgres_service(tmp_path: Path, postgres: PrivatePostgres, model: FakeModel) -> Iterator[Service]:
    service = Service(tmp_path, DATABASE_URL=postgres.create_database(), **model.settings)
    with service:
        yield service


@pytest.mark.postgres
@pytest.mark.long
async def test_the_lock_outlives_the_connection_that_held_it(postgres_service: Service, new_user: MakeUser) -> None:
    """A restart of PostgreSQL ends the connection, and with it the lock."""
    api = new_user(postgres_service)
    conversation = await api.open()
    with psycopg.connect(postgres_service.database_url, autocommit=True) as other:
        (first,) = other.execute(LOCKS).fetchall()
        other.execute("SELECT pg_terminate_backend(%s)", first)

        async def is_locked_again() -> bool:
            found = other.execute(LOCKS).fetchall()
            return bool(found) and found != [first]

        await until(is_locked_again, what="the lock in other hands")
    refused(beside(postgres_service).run("serve"), "is served by another process")
    _, reply = await api.said(conversation["id"], "Hello")
    assert reply["content"] == "You said: Hello"


@pytest.mark.postgres
@pytest.mark.long
async def test_who_has_lost_the_lock_to_somebody_else_writes_nothing_more(
    postgres_service: Service, new_user: MakeUser
) -> None:
    api = new_user(postgres_service)
    conversation = await api.open()
    url = postgres_service.database_url
    with psycopg.connect(url, autocommit=True) as other, psycopg.connect(url, autocommit=True) as killer:
        (owner,) = killer.execute(LOCKS).fetchone() or (0,)
        waiting = asyncio.create_task(asyncio.to_thread(other.execute, f"SELECT pg_advisory_lock({SERVE_LOCK})"))

        async def is_next() -> bool:
            return bool(killer.execute(WAITING).fetchall())

        await until(is_next, what="somebody else to wait for the lock")
        killer.execute("SELECT pg_terminate_backend(%s)", [owner])
        await waiting

        async def is_not_ready() -> bool:
            return (await api.http.get("/health/ready")).status_code == 503

        await until(is_not_ready, what="the end of its work")
        response = await api.send(conversation["id"], "Hello")
        assert (response.status_code, response.json()["error"]) == (503, "service_unavailable")
        assert killer.execute("SELECT count(*) FROM messages WHERE role = 'user'").fetchone() == (0,)
    assert await asyncio.to_thread(postgres_service.stop) == 0
