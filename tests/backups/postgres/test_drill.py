"""`yral-chat backup drill` with PostgreSQL: the newest dump is restored into a scratch database, and compared."""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from tests.backups.media.deployment import Deployment
from tests.backups.postgres.conftest import MakeSettings
from tests.backups.postgres.test_dumps import dump, nothing
from tests.cli.commands import Cli
from tests.programs import PrivatePostgres, postgres_binaries, require
from tests.waiting import there, until
from yral_chat.core.config import Settings
from yral_chat.db.verification import examine
from yral_chat.dump_commands import show_status
from yral_chat.services.accounts.erasure_log import Erasure, ErasureLog
from yral_chat.services.backups.alone import only_one
from yral_chat.services.backups.dumps import Dumps
from yral_chat.services.backups.postgres_drill import PostgresDrill
from yral_chat.services.backups.proof import Proof, load_proof, save_proof
from yral_chat.services.backups.scratch import ScratchUnusable

pytestmark = pytest.mark.postgres


async def drill(settings: Settings) -> Proof:
    return await PostgresDrill(settings, lambda _: None).run()


def databases(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {str(row[0]) for row in connection.execute("SELECT datname FROM pg_database")}


@pytest.fixture
async def dumped(deployment: Deployment) -> Deployment:
    await dump(deployment.settings)
    return deployment


async def test_what_restores_is_proven_and_leaves_nothing(dumped: Deployment, tmp_path: Path) -> None:
    url = dumped.settings.resolved_database_url
    before, present = databases(url), examine(url).tables
    newest = await Dumps(dumped.settings).find()
    proof = await drill(dumped.settings)
    assert (proof.is_proven, proof.is_compared, proof.findings) == (True, True, ())
    assert (proof.proven_at, proof.database_id, proof.rows) == (newest.at, newest.database_id, 152)
    assert proof.recovery_seconds is not None
    assert databases(url) == before
    assert examine(url).tables == present


async def test_the_command_writes_the_proof_down(dumped: Deployment, tmp_path: Path) -> None:
    settings = dumped.settings
    cli = Cli(
        tmp_path / "home",
        DATABASE_URL=settings.resolved_database_url, BACKUP_URL=settings.backup_url, DATA_DIR=str(settings.data_dir),
    )  # fmt: skip
    done = cli.run("backup", "drill")
    assert (done.status, done.err) == (0, "")
    proof = load_proof(settings.data_dir)
    assert proof is not None
    assert done.out.splitlines()[-1] == f"Proven: the state of {proof.proven_at} restores."
    done = cli.run("backup", "verify")
    assert (done.status, done.out) == (0, "1 dump. Sound.\n")
    log = settings.data_dir / "erasures.jsonl"
    ErasureLog(log).append(Erasure("old", "another", "2026-01-01T00:00:00.000000Z"))
    done = cli.run("backup", "verify")
    assert (done.status, done.out.splitlines()[-1]) == (1, "1 dump. Not sound: 1 finding.")
    assert "erasures: 1 erasure is not noted at the backup" in done.out
    log.unlink()
    next((tmp_path / "dumps").rglob("*.dump")).write_bytes(b"")
    done = cli.run("backup", "drill")
    assert done.status == 1
    assert done.out.splitlines()[-1] == f"Not proven since {proof.proven_at}: 1 finding."
    done = cli.run("backup", "verify")
    assert (done.status, done.out.splitlines()[-1]) == (1, "1 dump. Not sound: 1 finding.")
    done = cli.run("backup", "status")
    assert done.out.splitlines()[:3] == [
        "server      does not run",
        f"proven      the state of {proof.proven_at}",
        "archive     off: nothing but dumps can be gone back to",
    ]


async def test_a_person_who_was_erased_since_the_dump_is_erased_in_what_it_restores(dumped: Deployment) -> None:
    """And nothing of them is left there; one who is only in the log of this machine is missing at the target."""
    await dumped.erase("ada")
    proof = await drill(dumped.settings)
    assert proof.findings == (), "an erasure of this minute is on its way to the target"
    assert proof.is_proven


async def test_a_log_of_erasures_that_is_damaged_at_the_target_is_not_proven(
    dumped: Deployment, tmp_path: Path
) -> None:
    await dumped.erase("ada")
    await dump(dumped.settings)
    (log,) = (tmp_path / "dumps").rglob("erasures.jsonl")
    log.write_bytes(log.read_bytes()[:-9])
    proof = await drill(dumped.settings)
    assert [finding.subject for finding in proof.findings] == ["erasures"]
    assert proof.findings[0].text.startswith("1 line of erasures.jsonl is damaged: ")


async def test_a_dump_with_a_row_of_its_own_is_not_proven(dumped: Deployment, postgres: PrivatePostgres) -> None:
    """The record says what the database had: a dump that restores without complaint may still be another."""
    dumps = Dumps(dumped.settings)
    record = await dumps.find()
    url = postgres.create_database()
    await dumps.bring(record, url, nothing)
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE media_objects SET size = 7 WHERE key = (SELECT min(key) FROM media_objects)")
    changed = await dump(dumped.settings.model_copy(update={"database_url": SecretStr(url)}))
    place = Path(dumps.store.target.path)
    (place / f"{changed.name}.dump").replace(place / f"{record.name}.dump")
    (place / f"{changed.name}.json").unlink()
    proof = await drill(dumped.settings)
    assert not proof.is_proven
    assert {finding.subject for finding in proof.findings} == {"comparison", f"{record.name}.dump"}
    assert any("media_objects came back with" in finding.text for finding in proof.findings)


@pytest.mark.parametrize("fate", ["flip", "truncate", "delete", "none"])
async def test_what_does_not_restore_is_not_proven(dumped: Deployment, fate: str) -> None:
    proven = await drill(dumped.settings)
    dumps = Dumps(dumped.settings)
    file = Path(dumps.store.target.path) / f"{(await dumps.find()).name}.dump"
    data = bytearray(file.read_bytes())
    match fate:
        case "flip":
            data[len(data) // 2] ^= 1
        case "truncate":
            del data[len(data) // 2 :]
    if fate in ("flip", "truncate"):
        file.write_bytes(data)
    else:
        file.unlink()
    if fate == "none":
        file.with_suffix(".json").unlink()
    before = databases(dumped.settings.resolved_database_url)
    proof = await drill(dumped.settings)
    assert not proof.is_proven
    assert proof.findings
    assert proof.proven_at is None, "nobody has written the first proof down"
    assert proven.proven_at is not None
    assert databases(dumped.settings.resolved_database_url) == before


async def test_a_scratch_database_that_a_killed_drill_left_is_dropped(dumped: Deployment) -> None:
    """Its name is that of the database: it is not added to."""
    url = dumped.settings.resolved_database_url
    seen: set[str] = set()
    drilling = PostgresDrill(dumped.settings, lambda _: seen.update(databases(url)))
    await drilling.run()
    (name,) = {name for name in seen if name.startswith("yral_drill_")}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    assert (await drill(dumped.settings)).is_proven
    assert name not in databases(url)


async def test_what_says_nothing_of_the_backup_writes_no_proof_down(
    dumped: Deployment, tmp_path: Path, nowhere: str
) -> None:
    """And pages nobody: what was proven is, until it is too old."""
    settings = dumped.settings
    url = settings.resolved_database_url
    save_proof(settings.data_dir, await drill(settings))
    proven = load_proof(settings.data_dir)
    given = {"DATABASE_URL": url, "BACKUP_URL": settings.backup_url, "DATA_DIR": str(settings.data_dir)}
    cli = Cli(tmp_path / "home", **given)
    away = f"{url.partition('@')[0]}@{nowhere}/chat"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE lowly LOGIN PASSWORD 'lowly'")
    lowly = f"postgresql://lowly:lowly@{url.partition('@')[2]}"
    bucket = {
        "BACKUP_URL": "s3://some/where", "BACKUP_ENDPOINT_URL": f"http://{nowhere}",
        "BACKUP_ACCESS_KEY_ID": "some", "BACKUP_SECRET_ACCESS_KEY": "some",
    }  # fmt: skip
    for words, changes in (
        ("pg_restore is not on PATH.", {"PATH": str(tmp_path)}),
        ("PostgreSQL at 127.0.0.1:", {"DATABASE_URL": away}),
        ("PostgreSQL at 127.0.0.1:", {"BACKUP_DRILL_DATABASE_URL": away}),
        ("lowly may not create databases, which this needs: ALTER ROLE", {"BACKUP_DRILL_DATABASE_URL": lowly}),
        ("The backup at s3://some/where cannot be used: it does not answer.", bucket),
        ("BACKUP_DRILL_COMMAND cannot be run: ", {"BACKUP_DRILL_COMMAND": "/nowhere/restore"}),
        ("PostgreSQL at 127.0.0.1:", {"BACKUP_DRILL_COMMAND": "false", "DATABASE_URL": away}),
    ):
        done = await asyncio.to_thread(partial(cli.run, "backup", "drill", **changes))
        assert (done.status, load_proof(settings.data_dir)) == (1, proven), done
        assert done.err.startswith(words), done
    with only_one(settings.data_dir / "backup-drill.lock", AssertionError()):
        done = await asyncio.to_thread(cli.run, "backup", "drill")
    assert (done.status, done.err) == (1, "Another drill runs; wait for its end.\n")
    assert load_proof(settings.data_dir) == proven


async def test_a_server_that_ends_in_the_middle_says_nothing_of_the_backup(
    dumped: Deployment, settings_of: MakeSettings
) -> None:
    with PrivatePostgres(require("PostgreSQL server", postgres_binaries())) as other:
        server = other.create_database()

        def end(said: str) -> None:
            if said.startswith("Erasing"):
                other.__exit__(None, None, None)

        settings = dumped.settings.model_copy(update={"backup_drill_database_url": SecretStr(server)})
        with pytest.raises(ScratchUnusable, match=r"PostgreSQL at 127\.0\.0\.1:\d+ cannot be reached"):
            await PostgresDrill(settings, end).run()


async def test_another_databases_dump_proves_nothing_and_ours_are_proven_beside_it(
    deployment: Deployment, postgres: PrivatePostgres, settings_of: MakeSettings, tmp_path: Path
) -> None:
    elsewhere = (tmp_path / "elsewhere").as_uri()
    async with Deployment.open(settings_of(postgres.create_database(), "second", backup_url=elsewhere)) as second:
        other = await dump(second.settings)
    proof = await drill(deployment.settings.model_copy(update={"backup_url": elsewhere}))
    assert not proof.is_proven
    assert [finding.text for finding in proof.findings] == [
        f"{tmp_path}/elsewhere holds no dump of the database in use, but of another ({other.database_id}): "
        "look at BACKUP_URL."
    ]
    ours = await dump(deployment.settings)
    await asyncio.to_thread(
        shutil.copytree, tmp_path / "elsewhere" / other.database_id, tmp_path / "dumps" / other.database_id
    )
    proof = await drill(deployment.settings)
    assert (proof.is_proven, proof.database_id) == (True, ours.database_id)


async def test_a_dump_of_a_database_with_a_wrong_counter_is_not_proven(deployment: Deployment) -> None:
    with psycopg.connect(deployment.settings.resolved_database_url) as connection:
        connection.execute("INSERT INTO counters (name, value) VALUES ('messages', 7)")
    await dump(deployment.settings)
    proof = await drill(deployment.settings)
    assert (proof.is_proven, [finding.subject for finding in proof.findings]) == (False, ["counters.messages"])


async def test_a_proof_of_another_place_is_not_shown_as_ours(dumped: Deployment, tmp_path: Path) -> None:
    proof = await drill(dumped.settings)
    save_proof(dumped.settings.data_dir, proof)
    assert (await show_status(dumped.settings))[1] == f"proven      the state of {proof.proven_at}"
    elsewhere = dumped.settings.model_copy(update={"backup_url": (tmp_path / "elsewhere").as_uri()})
    assert (await show_status(elsewhere))[1] == "proven      never"


async def test_an_ordinary_role_is_enough_for_all_of_it(postgres: PrivatePostgres, settings_of: MakeSettings) -> None:
    """One that owns its database and may make others, as the runbook has it: no superuser."""
    server = postgres.create_database()
    urls = []
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE ROLE chat LOGIN PASSWORD 'chat' CREATEDB")
        for name in ("chat", "chat_restored"):
            connection.execute(f"CREATE DATABASE {name} OWNER chat ENCODING 'UTF8' TEMPLATE template0")
            urls.append(f"postgresql://chat:chat@{server.split('@')[1].split('/')[0]}/{name}")
    async with Deployment.open(settings_of(urls[0])) as deployment:
        await deployment.add("ada")
        made = await dump(deployment.settings)
        proof = await drill(deployment.settings)
        assert (proof.is_proven, proof.findings) == (True, ())
    assert await Dumps(settings_of(urls[1], "other")).restore(made, nothing) == []
    assert examine(urls[1]).tables == made.tables


@pytest.fixture
def restores_by(dumped: Deployment, tmp_path: Path) -> Callable[[str], Cli]:
    """`restores_by(script)`: an operator whose pg_restore is that script."""

    def make(script: str) -> Cli:
        (tmp_path / "programs").mkdir()
        program = tmp_path / "programs" / "pg_restore"
        program.write_text(f"#!/bin/sh\ncat >/dev/null\n{script}\n")
        program.chmod(0o755)
        settings = dumped.settings
        return Cli(
            tmp_path / "home",
            DATABASE_URL=settings.resolved_database_url, BACKUP_URL=settings.backup_url,
            DATA_DIR=str(settings.data_dir), PATH=f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        )  # fmt: skip

    return make


@pytest.mark.parametrize("command", ["backup drill", "restore --latest --conversation some"])
async def test_who_is_told_to_end_takes_the_scratch_database_along(
    dumped: Deployment, restores_by: Callable[[str], Cli], command: str
) -> None:
    """By SIGTERM, as systemd and Kubernetes do."""
    url = dumped.settings.resolved_database_url
    before = databases(url)
    with restores_by("exec sleep 600").start(*command.split()) as process:
        try:
            await until(there(lambda: databases(url) != before), what="a scratch database", seconds=30)
            process.terminate()
            _, errors = await asyncio.to_thread(process.communicate, timeout=30)
        finally:
            process.kill()
    assert (process.returncode, errors) == (-signal.SIGTERM, "")
    assert databases(url) == before


async def test_a_server_without_room_for_a_second_database_says_nothing_of_the_backup(
    dumped: Deployment, restores_by: Callable[[str], Cli]
) -> None:
    """What pg_restore says then was taken from a server on a small disk."""
    settings = dumped.settings
    save_proof(settings.data_dir, await drill(settings))
    proven, before = load_proof(settings.data_dir), databases(settings.resolved_database_url)
    text = (
        'pg_restore: error: COPY failed for table \\"media_objects\\": ERROR:  could not extend file \\"base/1/2\\": '
    )
    done = restores_by(f'echo "{text}No space left on device" >&2; exit 1').run("backup", "drill")
    assert done.status == 1
    assert done.err.startswith("There is no room to restore the backup and look at it: the disk is full.")
    assert load_proof(settings.data_dir) == proven
    assert databases(settings.resolved_database_url) == before


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("false", "BACKUP_DRILL_COMMAND: it ended without a word"),
        ("sh -c 'echo starting; echo no archive here >&2; exit 3'", "BACKUP_DRILL_COMMAND: no archive here"),
        ("sh -c 'echo /nowhere; cat'", "PostgreSQL at "),
    ],
)
async def test_a_command_that_restores_nothing_is_told_by_its_last_words(
    deployment: Deployment, command: str, words: str
) -> None:
    settings = deployment.settings.model_copy(update={"backup_drill_command": command})
    proof = await drill(settings)
    assert not proof.is_proven
    assert proof.findings[0].text.startswith(words)
