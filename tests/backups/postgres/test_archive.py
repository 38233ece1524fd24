"""docs/operations/postgres.md, executed: with the real pgBackRest, a real S3 by HTTPS, and the files of deploy/."""

import asyncio
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psycopg
import pytest

from tests.backups.media.deployment import Deployment
from tests.backups.postgres.archived import ArchivedPostgres, SecureRclone
from tests.backups.postgres.conftest import MakeSettings
from tests.cli.commands import Cli
from tests.client import Api, Document
from tests.programs import postgres_binaries, require
from tests.service import Service
from tests.test_documents import ROOT
from tests.waiting import there, until
from yral_chat.clients.postgres_tools import restored_aside
from yral_chat.db.verification import TableSum, examine
from yral_chat.services.backups.dumps import Dumps
from yral_chat.services.backups.postgres_drill import PostgresDrill

pytestmark = pytest.mark.postgres


def steps() -> dict[str, list[str]]:
    """The shell blocks of the document, by heading."""
    found: dict[str, list[str]] = {}
    for section in re.split(r"^## ", (ROOT / "docs/operations/postgres.md").read_text(), flags=re.M)[1:]:
        heading, _, text = section.partition("\n")
        found[heading] = re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)
    return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ArchivedPostgres]:
    require("pgbackrest", shutil.which("pgbackrest"))
    (tmp_path / "s3").mkdir()
    with (
        SecureRclone(tmp_path / "s3") as bucket,
        ArchivedPostgres(require("PostgreSQL server", postgres_binaries()), bucket) as server,
    ):
        yield server


def follow(server: ArchivedPostgres, block: str, **more: str) -> str:
    """Does what a block says, on the machine of the server."""
    return server.run(block.replace("/var/lib/postgresql/15/main", str(server.data)), **more)


def silent(_: str) -> None:
    pass


async def talk(folder: Path, url: str, text: str) -> None:
    """Somebody says something to the service, which then ends, and with it all of its sessions."""
    with Service(folder, DATABASE_URL=url) as service:
        document = await asyncio.to_thread(httpx2.get, f"{service.url}/openapi.json")
        api = Api(service.url, Document(document.json()))
        await api.said((await api.open())["id"], text)
        await api.close()
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with psycopg.connect(url, autocommit=True) as connection:
        await until(there(lambda: connection.execute(others).fetchone() == (0,)), what="nobody is connected")


def sums(url: str) -> dict[str, TableSum]:
    found = examine(url)
    assert found.faults == []
    return found.tables


async def archived(url: str) -> None:
    """Waits until everything until now is in the archive."""
    with psycopg.connect(url, autocommit=True) as connection:
        (segment,) = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone() or ("",)
        is_there = "SELECT last_archived_wal >= %s FROM pg_stat_archiver"

        def look() -> bool:
            return connection.execute(is_there, [segment]).fetchone() == (True,)

        await until(there(look), what=f"{segment} is archived", seconds=30)


@pytest.mark.timeout(900)
async def test_the_archive(server: ArchivedPostgres, settings_of: MakeSettings, tmp_path: Path) -> None:
    """Set up, looked at, proved, gone back to a time, and brought back from nothing, step by step."""
    runbook = steps()
    assert [len(blocks) for blocks in runbook.values()] == [1, 2, 1, 1, 1, 1, 1, 0]
    await asyncio.to_thread(follow, server, runbook["The archive"][0])
    url = server.create_database()
    await talk(tmp_path, url, "the first words")
    early = sums(url)
    with psycopg.connect(url) as connection:
        (time,) = connection.execute("SELECT now()::text").fetchone() or ("",)
    await talk(tmp_path, url, "said later")
    late = sums(url)
    assert late["messages"].rows > early["messages"].rows > 0
    await archived(url)

    operator = Cli(tmp_path / "operator", DATABASE_URL=url)
    look, info = runbook["Look at the archive"][0].splitlines()
    shown = operator.run(*look.split()[1:])
    assert re.search(r"^archive     on, last segment \d+ s ago\ndumps       none: BACKUP_URL is not", shown.out, re.M)
    assert "status: ok" in await asyncio.to_thread(follow, server, info)

    # Dumps lie in the same bucket, with a path of their own.
    with_dumps = settings_of(url, backup_url=(server.bucket.bucket / "yral-chat").as_uri())
    dump = await Dumps(with_dumps).make(lambda _: None)
    shown = operator.run(*look.split()[1:], BACKUP_URL=with_dumps.backup_url)
    assert re.search(r"^archive     on, ", shown.out, re.M)
    assert dump.at in shown.out
    assert (await PostgresDrill(with_dumps, silent).run()).is_proven

    command = server.as_its_user("restore-aside.sh")
    proof = await PostgresDrill(settings_of(url, backup_url=None, backup_drill_command=command), silent).run()
    assert (proof.is_proven, proof.findings, proof.recovery_point_seconds) == (True, (), 0)
    assert proof.rows == sum(table.rows for table in late.values())
    async with restored_aside(command, url) as aside:
        with psycopg.connect(aside) as connection:
            jit = connection.execute("SHOW jit").fetchone()
    assert jit == ("off",), "a unit with MemoryDenyWriteExecute refuses what compiled queries need"
    assert not list(server.folder.glob("yral-drill-*"))

    back = re.sub(r"(?m)^TIME=.*", f'TIME="{time}"', runbook["Go back to a time"][0])
    await asyncio.to_thread(follow, server, back)
    assert sums(url) == early
    await talk(tmp_path, url, "what was said instead")
    instead = sums(url)
    await archived(url)

    server.stop()
    shutil.rmtree(server.data)
    server.data.mkdir()  # what the package of a new machine has made
    lost = (
        runbook["The server is lost"][0].replace("main.before", "main.empty").replace("systemctl stop postgresql\n", "")
    )
    await asyncio.to_thread(follow, server, lost.replace(f"{server.data}.before", f"{server.data}.empty"))
    assert sums(url) == instead


async def test_a_drill_of_a_damaged_archive_says_what_it_is(
    server: ArchivedPostgres, settings_of: MakeSettings, tmp_path: Path
) -> None:
    await asyncio.to_thread(follow, server, steps()["The archive"][0])
    url = server.create_database()
    async with Deployment.open(settings_of(url, backup_url=None)) as deployment:
        await deployment.add("ada")
    files = sorted(server.bucket.bucket.rglob("backup/chat/*F/**/*.zst"), key=lambda path: path.stat().st_size)
    assert files
    data = bytearray(files[-1].read_bytes())
    data[len(data) // 2] ^= 1
    files[-1].write_bytes(data)
    command = server.as_its_user("restore-aside.sh")
    settings = settings_of(url, backup_url=None, backup_drill_command=command)
    proof = await PostgresDrill(settings, silent).run()
    assert not proof.is_proven
    assert proof.findings[0].text.startswith("BACKUP_DRILL_COMMAND: ERROR: ")
    assert not list(server.folder.glob("yral-drill-*"))
