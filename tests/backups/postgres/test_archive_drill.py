"""Drills of an archive: how much of it is missing, measured against what the server has. Needs no pgBackRest."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.backups.postgres.conftest import MakeSettings
from tests.backups.postgres.test_drill import drill
from tests.backups.postgres.test_dumps import dump, nothing
from tests.backups.postgres.test_runbook import talk
from tests.programs import PrivatePostgres, postgres_binaries, require
from tests.service import Service
from yral_chat.core.clock import SECOND, from_text, now
from yral_chat.core.config import Settings
from yral_chat.services.accounts.erasure_log import Erasure, ErasureLog
from yral_chat.services.backups.dumps import Dumps

pytestmark = pytest.mark.postgres
HOUR = 3600


class Aside(PrivatePostgres):
    """What a command has restored, as it finds it: a server behind a socket."""

    def _command(self) -> list[str | Path]:
        return [*super()._command(), "-c", f"unix_socket_directories={self._folder}"]

    def of(self, url: str) -> str:
        """The URL of an empty database that is called as that of `url`."""
        name = url.rpartition("/")[2]
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        return self._url(name)

    @property
    def command(self) -> str:
        (self._folder / ".s.PGSQL.5432").symlink_to(f".s.PGSQL.{self._port.number}")
        return f"sh -c 'echo {self._folder}; exec cat'"


@pytest.fixture
async def aside(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Aside]:
    with Aside(require("PostgreSQL server", postgres_binaries())) as server:
        monkeypatch.setenv("PGPASSWORD", server._password)
        yield server


TIMES = {
    "messages": ("created_at",),
    "conversations": ("updated_at", "last_message_time", "last_created_at"),
    "participants": ("updated_at",),
}


def let_pass(url: str, hours: int, since: int) -> None:
    """What was said after `since` was said so many hours earlier."""
    with psycopg.connect(url) as connection:
        for table, column in ((table, column) for table, columns in TIMES.items() for column in columns):
            change = sql.SQL("UPDATE {0} SET {1} = {1} - %s WHERE {1} > %s")
            names = sql.Identifier(table), sql.Identifier(column)
            connection.execute(change.format(*names), [hours * HOUR * SECOND, since])


async def lost_by(settings: Settings) -> float:
    """In hours. What is proven is as old."""
    proof = await drill(settings)
    assert (proof.findings, proof.is_proven) == ((), True)
    assert proof.proven_at is not None
    assert proof.recovery_point_seconds is not None
    lost = proof.recovery_point_seconds / HOUR
    assert (now() - from_text(proof.proven_at)) / SECOND / HOUR == pytest.approx(lost, abs=0.1)
    return lost


async def test_what_an_archive_has_lost_counts_from_the_first_change_that_is_missing(
    postgres: PrivatePostgres, settings_of: MakeSettings, aside: Aside, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    url = postgres.create_database()
    with Service(tmp_path / "home", DATABASE_URL=url) as service, ExitStack() as stack:
        client, conversation = talk(service, "the first words")
        stack.enter_context(closing(client))

        def say(text: str) -> None:
            path = f"/api/v1/chat/conversations/{conversation}/messages"
            client.post(path, json={"message_type": "text", "content": text}).raise_for_status()

        let_pass(url, 26, since=0)
        settings = settings_of(url)
        await Dumps(settings).bring(await dump(settings), aside.of(url), nothing)
        settings = settings.model_copy(update={"backup_drill_command": aside.command})
        assert await lost_by(settings) == 0
        since = now()
        say("a day later, and it has not arrived yet")
        assert 0 < await lost_by(settings) < 0.1
        let_pass(url, 2, since)
        say("and the archive stands still")
        assert await lost_by(settings) == pytest.approx(2, abs=0.1)
    ErasureLog(settings.data_dir / "erasures.jsonl").append(Erasure("old", "another", "2026-01-01T00:00:00.000000Z"))
    assert [finding.subject for finding in (await drill(settings)).findings] == ["erasures"]
