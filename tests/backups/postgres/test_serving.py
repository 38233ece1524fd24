"""What `serve` does for the backup of a PostgreSQL database by itself: dumps, the log of erasures, `/health`."""

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from shutil import which

import httpx2
import pytest

from tests.backups.media.deployment import Deployment
from tests.backups.postgres.conftest import MakeSettings
from tests.backups.postgres.test_dumps import dump, nothing
from tests.programs import PrivatePostgres
from tests.service import Service
from tests.waiting import there, until
from yral_chat.core.clock import SECOND, from_text, now, to_text
from yral_chat.core.metrics import Metrics
from yral_chat.services.accounts.erasure_log import parse
from yral_chat.services.backups import erasures, proving
from yral_chat.services.backups.dump_records import Dump
from yral_chat.services.backups.dumps import Dumps
from yral_chat.services.backups.postgres import PostgresBackup
from yral_chat.services.backups.proof import Finding, Proof, save_proof
from yral_chat.services.backups.proving import pause_after

pytestmark = pytest.mark.postgres


def shown(metrics: Metrics) -> str:
    return metrics.render().decode()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def backup(
    deployment: Deployment, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PostgresBackup]:
    """Beside a server with this database; the commands that it starts have the same settings."""
    settings = deployment.settings
    monkeypatch.setenv("DATABASE_URL", settings.resolved_database_url)
    monkeypatch.setenv("DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("BACKUP_URL", settings.backup_url or "")
    made = PostgresBackup(settings, deployment.database, metrics, pause_seconds=0.1)
    yield made
    await made.stop()


async def test_a_dump_is_made_when_it_is_due_and_no_other_while_it_is_new(
    backup: PostgresBackup, deployment: Deployment
) -> None:
    """`backup` brings the environment for the commands; this one makes a dump every four seconds."""
    settings = deployment.settings.model_copy(update={"backup_dump_hours": 4 / 3600})
    often = PostgresBackup(settings, deployment.database, Metrics(), pause_seconds=0.1)
    often.start()

    async def two() -> list[Dump]:
        return (await Dumps(settings).list_all())[1:]

    try:
        await until(two, what="another dump", seconds=60)
    finally:
        await often.stop()
    assert often.condition() == ("up", None)
    first, second = [from_text(made.at) for made in await Dumps(settings).list_all()][:2]
    assert second - first >= 4 * SECOND


async def test_nothing_is_drilled_before_there_is_a_dump(
    backup: PostgresBackup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A new deployment whose first dump takes longer than the first drill would: nobody is paged for it."""
    monkeypatch.setattr(proving, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(proving, "AGAIN_SECONDS", 0.1)
    (tmp_path / "programs").mkdir()
    (slow := tmp_path / "programs" / "pg_dump").write_text(f'#!/bin/sh\nsleep 3\nexec {which("pg_dump")} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(slow.parent), prepend=os.pathsep)
    backup.start()
    await until(there(lambda: backup.proving.proof is not None), what="a drill with a result", seconds=60)
    assert backup.proving.proof is not None
    assert backup.proving.proof.findings == ()


async def test_a_dump_that_cannot_be_made_is_told_until_somebody_has_made_one(
    backup: PostgresBackup, deployment: Deployment, metrics: Metrics, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(tmp_path))
        backup.start()
        expected = ("degraded", "the last dump failed")
        await until(there(lambda: backup.condition() == expected), what="the failure is told", seconds=30)
        assert "\nbackup_up 0.0\n" in shown(metrics)
        await backup.stop()
    await dump(deployment.settings)
    await backup.look()
    assert backup.condition() == ("up", None)
    assert "\nbackup_up 1.0\n" in shown(metrics)


async def test_a_dump_that_counts_is_no_failed_one(backup: PostgresBackup, deployment: Deployment) -> None:
    """What its command ends with is that who was erased cannot be noted here."""
    await deployment.erase("ada")
    await dump(deployment.settings)
    (log := deployment.settings.data_dir / "erasures.jsonl").unlink()
    log.symlink_to("nowhere/erasures.jsonl")
    await backup._dump()
    assert backup._failed_at is not None
    assert backup.condition() == ("up", None)
    assert len(await Dumps(deployment.settings).list_all()) == 2


async def test_what_nobody_thought_of_is_told_and_the_next_dump_is_made(
    backup: PostgresBackup, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that can start no process for a while."""
    with monkeypatch.context() as patched:
        patched.setattr("sys.executable", "/nowhere/python")
        backup.start()
        expected = ("degraded", "the last dump failed")
        await until(there(lambda: backup.condition() == expected), what="the failure is told", seconds=30)
    await until(there(lambda: backup.condition() == ("up", None)), what="a dump", seconds=30)
    assert len(await Dumps(deployment.settings).list_all()) == 1


async def test_a_record_that_somebody_has_copied_by_hand_stops_nothing(deployment: Deployment, tmp_path: Path) -> None:
    made = await dump(deployment.settings)
    record = tmp_path / "dumps" / f"{made.name}.json"
    for name in ("20261127T100000Z.json", "20269999T100000.000000Z.json", f"{record.stem}.old.json"):
        record.with_name(name).write_bytes(record.read_bytes())
    dumps, other = Dumps(deployment.settings), record.with_name("20261127T100000.000000Z.json")
    assert await dumps.list_all() == [made]
    assert [said async for said in dumps.verify(nothing)] == []
    other.write_bytes(record.read_bytes())
    (said,) = [said async for said in dumps.verify(nothing)]
    assert said.endswith(f"/{other.name}: the record cannot be read")
    again = await dump(deployment.settings)
    assert await dumps.newest_at(again.database_id) == from_text(again.at)


async def test_metrics_tell_when_the_newest_dump_was_made_whoever_has_made_it(
    backup: PostgresBackup, deployment: Deployment, metrics: Metrics
) -> None:
    assert "\nbackup_dump_timestamp_seconds NaN\n" in shown(metrics), "nobody has looked yet"
    await backup.look()
    assert "\nbackup_dump_timestamp_seconds 0.0\n" in shown(metrics), "there is none"
    made = await dump(deployment.settings)
    await backup.look()
    expected = from_text(made.at) / SECOND
    (found,) = re.findall(r"^backup_dump_timestamp_seconds (.*)$", shown(metrics), re.M)
    assert float(found) == pytest.approx(expected, abs=1e-3)


async def test_a_drill_that_found_something_is_no_backup_that_is_down(
    backup: PostgresBackup, deployment: Deployment, metrics: Metrics
) -> None:
    """Each has an alert of its own, with what to do."""
    settings, finding = deployment.settings, Finding("drill", "It is damaged.")
    found = Proof(to_text(now()), is_proven=False, proven_at=None, target=settings.backup_url, findings=(finding,))
    save_proof(settings.data_dir, found)
    assert backup.condition() == ("degraded", "the last drill has found something wrong")
    assert "\nbackup_up 1.0\n" in shown(metrics)
    assert "\nbackup_findings 1.0\n" in shown(metrics)
    assert "\nbackup_proof_stale 0.0\n" in shown(metrics)


async def test_another_databases_dump_at_the_target_is_none_of_ours(
    backup: PostgresBackup,
    deployment: Deployment,
    metrics: Metrics,
    postgres: PrivatePostgres,
    settings_of: MakeSettings,
) -> None:
    async with Deployment.open(settings_of(postgres.create_database(), "second")) as second:
        await dump(second.settings)
    await backup.look()
    assert "\nbackup_dump_timestamp_seconds 0.0\n" in shown(metrics)
    assert await backup.seconds_left() < 0


async def test_who_was_erased_is_known_at_the_target_before_the_next_dump(
    backup: PostgresBackup, deployment: Deployment, tmp_path: Path
) -> None:
    await backup.send_erasures()
    assert not list((tmp_path / "dumps").rglob("erasures.jsonl"))
    await deployment.erase("ada")
    await backup.send_erasures()
    (log,) = (tmp_path / "dumps").rglob("erasures.jsonl")
    assert [erasure.user_id for erasure in parse(log.read_bytes())] == ["ada"]
    await deployment.erase("bob")
    (tmp_path / "dumps").chmod(0o500)
    await backup.send_erasures()
    (tmp_path / "dumps").chmod(0o700)
    await backup.send_erasures()
    assert [erasure.user_id for erasure in parse(log.read_bytes())] == ["ada", "bob"]


@pytest.mark.parametrize("data", [b'{"id":', None])
async def test_the_log_of_erasures_at_the_target_is_looked_at_again(
    backup: PostgresBackup,
    deployment: Deployment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    data: bytes | None,
) -> None:
    monkeypatch.setattr(erasures, "LOOK_SECONDS", 0.0)
    await deployment.erase("ada")
    await backup.send_erasures()
    (log,) = (tmp_path / "dumps").rglob("erasures.jsonl")
    whole = log.read_bytes()
    log.unlink()
    if data is not None:
        log.write_bytes(data)
    await backup.send_erasures()
    assert log.read_bytes() == whole


async def test_a_folder_in_use_is_not_looked_for_on_the_event_loop(
    backup: PostgresBackup, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network disk that is away would let everybody wait."""

    def wait(path: Path) -> bool:
        assert path.name != "dumps", "it would wait for the disk"
        return os.path.exists(path)  # noqa: PTH110 - the other one is what stands here

    await dump(deployment.settings)
    await deployment.erase("ada")
    for _ in range(2):
        await backup.send_erasures()
        await backup.look()
    await deployment.erase("bob")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "exists", wait)
        await backup.send_erasures()
        await backup.look()


def test_a_drill_that_came_to_nothing_takes_a_tenth_of_the_time_at_most() -> None:
    """One for which the server has no room, or that takes more than the hour it may."""
    assert pause_after(1, 6 * 3600) == 600
    assert pause_after(600, 6 * 3600) == 5400
    assert pause_after(3600, 6 * 3600) == 6 * 3600


def test_health_and_metrics_have_it(postgres: PrivatePostgres, settings_of: MakeSettings, tmp_path: Path) -> None:
    url = postgres.create_database()
    for name in ("home", "other"):
        (tmp_path / name).mkdir()
    with Service(tmp_path / "home", DATABASE_URL=url, BACKUP_URL=(tmp_path / "dumps").as_uri()) as service:
        found = httpx2.get(f"{service.url}/health").json()
        assert found["services"]["backup"]["status"] == "up"
        assert "\nbackup_up 1.0\n" in httpx2.get(f"{service.url}/metrics").text
    with Service(tmp_path / "other", DATABASE_URL=url) as service:
        found = httpx2.get(f"{service.url}/health").json()
        assert found["services"]["backup"]["status"] == "disabled"
