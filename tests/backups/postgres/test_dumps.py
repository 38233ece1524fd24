"""`backup dump` and `restore` with PostgreSQL: pg_dump and pg_restore themselves, to real targets."""

import asyncio
import os
import re
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from shutil import which

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from tests.backups.media.deployment import Deployment
from tests.backups.postgres.conftest import MakeSettings
from tests.cli.commands import Cli
from tests.object_stores import ACCESS_KEY, BUCKET, SECRET_KEY, Moto, Rclone
from tests.programs import PrivatePostgres
from yral_chat.core import clock
from yral_chat.core.clock import DAY
from yral_chat.core.config import Settings
from yral_chat.db.scratch import is_empty
from yral_chat.db.verification import examine
from yral_chat.dump_commands import list_dumps, show_status
from yral_chat.services.accounts.erasure_log import ErasureLog
from yral_chat.services.backups import erasures
from yral_chat.services.backups.dump_records import Dump
from yral_chat.services.backups.dumps import DumpFailed, Dumps
from yral_chat.services.backups.erasures import ErasuresNotKnown
from yral_chat.services.backups.examining import examine_backup

pytestmark = pytest.mark.postgres


def nothing(_: int) -> None:
    pass


async def dump(settings: Settings) -> Dump:
    return await Dumps(settings).make(nothing)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


async def test_a_dump_comes_back_as_it_was(
    deployment: Deployment, postgres: PrivatePostgres, settings_of: MakeSettings, tmp_path: Path
) -> None:
    made = await dump(deployment.settings)
    assert made.rows == 152
    assert made.size == (tmp_path / "dumps" / f"{made.name}.dump").stat().st_size
    await deployment.add_many(["later"] * 10)
    empty = settings_of(postgres.create_database(), "other")
    dumps = Dumps(empty)
    await dumps.restore(await dumps.find(), nothing)
    found = examine(empty.resolved_database_url)
    assert found.tables == made.tables
    assert found.faults == []
    assert examine(deployment.settings.resolved_database_url).tables != made.tables


async def test_pg_restore_alone_can_do_it(
    deployment: Deployment, postgres: PrivatePostgres, settings_of: MakeSettings, tmp_path: Path
) -> None:
    """Without this program: the file is pg_dump's own."""
    made = await dump(deployment.settings)
    url = postgres.create_database()
    file = tmp_path / "some.dump"
    await Dumps(deployment.settings).save(made, file, nothing)
    command: list[str] = ["pg_restore", "--no-owner", "--exit-on-error", f"--dbname={url}", str(file)]
    await asyncio.to_thread(partial(subprocess.run, command, check=True, timeout=60))
    assert examine(url).tables == made.tables
    assert [name for name in files(tmp_path) if name.startswith("some.dump")] == ["some.dump"]


async def test_the_dump_is_of_one_moment_while_others_write(
    deployment: Deployment, postgres: PrivatePostgres, settings_of: MakeSettings
) -> None:
    """What comes while it runs is neither in it nor in its record: the restore compares the two."""
    await deployment.add_many(["ada"] * 3000, 1)
    making = asyncio.create_task(dump(deployment.settings))
    while not making.done():
        await deployment.add_many(["bob"] * 20, 1)
    made = await making
    stored = await deployment.database.read(lambda uow: uow.media.count_stored())
    assert 3150 <= made.tables["media_objects"].rows < stored
    empty = settings_of(postgres.create_database(), "other")
    await Dumps(empty).restore(made, nothing)


async def test_dumps_in_a_bucket(deployment: Deployment, postgres: PrivatePostgres, tmp_path: Path) -> None:
    with Rclone(tmp_path / "server") as server:
        change = {
            "backup_url": f"s3://{BUCKET}/chat", "backup_endpoint_url": server.url,
            "backup_access_key_id": SecretStr(ACCESS_KEY), "backup_secret_access_key": SecretStr(SECRET_KEY),
        }  # fmt: skip
        settings = deployment.settings.model_copy(update=change)
        made = await dump(settings)
        name = made.name.rpartition("/")[2]
        assert files(server.bucket / "chat") == [f"{name}.dump", f"{name}.json", "dumps.json"]
        dumps = Dumps(settings.model_copy(update={"database_url": SecretStr(postgres.create_database())}))
        await dumps.restore(await dumps.find(), nothing)
        for wrong, words in (
            ({"backup_secret_access_key": SecretStr("guessed")}, "the keys are refused"),
            ({"backup_url": "s3://nowhere/chat"}, "there is no such bucket"),
        ):
            with pytest.raises(DumpFailed, match=words):
                await dump(settings.model_copy(update=wrong))


@pytest.fixture
def yesterdays() -> Iterator[None]:
    """Afterwards it is today again."""
    yield
    clock.use(time.time_ns)


def let_it_be(days: float) -> None:
    clock.use(lambda: time.time_ns() + round(days * DAY) * 1000)


async def test_old_dumps_go_and_the_newest_stays(deployment: Deployment, yesterdays: None) -> None:
    dumps = Dumps(deployment.settings)
    let_it_be(-70)
    for days in (-70, -69, -40, -29):
        let_it_be(days)
        await dump(deployment.settings)
    assert len(await dumps.list_all()) == 2
    let_it_be(0)
    newest = await dump(deployment.settings)
    assert [made.at for made in await dumps.list_all()][-1] == newest.at
    assert len(await dumps.list_all()) == 2
    let_it_be(300)
    assert (await dumps.find()).at == newest.at


async def test_a_dump_of_a_clock_that_was_ahead_does_not_count_yet(deployment: Deployment, yesterdays: None) -> None:
    dumps = Dumps(deployment.settings)
    let_it_be(365)
    ahead = await dump(deployment.settings)
    let_it_be(0)
    with pytest.raises(DumpFailed, match="holds no dump"):
        await dumps.find()
    assert any(
        f"{ahead.name}.json: of a time to come" in wrong for wrong in [said async for said in dumps.verify(nothing)]
    )
    newest = await dump(deployment.settings)
    assert (await dumps.find()).at == newest.at


async def test_a_dump_whose_record_cannot_be_read_goes_at_its_time(deployment: Deployment, yesterdays: None) -> None:
    dumps = Dumps(deployment.settings)
    let_it_be(-40)
    old = await dump(deployment.settings)
    await dumps.store.put(f"{old.name}.json", b"{")
    let_it_be(0)
    newest = await dump(deployment.settings)
    left = [key async for key, _, _ in dumps.store.list() if "/dumps/" in key]
    assert sorted(left) == [f"{newest.name}.dump", f"{newest.name}.json"]


async def test_a_dump_whose_record_is_lost_is_named_and_goes_at_its_time(
    deployment: Deployment, yesterdays: None
) -> None:
    dumps = Dumps(deployment.settings)

    async def lose_record() -> str:
        made = await dump(deployment.settings)
        await dumps.store.delete(f"{made.name}.json")
        return f"{made.name}.dump"

    let_it_be(-20)
    lost = await lose_record()
    let_it_be(0)
    await lose_record()  # as one is seen that is being made
    newest = await dump(deployment.settings)
    assert [wrong async for wrong in dumps.verify(nothing)] == [f"{lost}: its record is missing; it does not count"]
    assert await dumps.store.size_of(lost), "pg_restore can still read it"
    let_it_be(15)
    await dump(deployment.settings)
    assert await dumps.store.size_of(lost) is None
    assert await dumps.store.size_of(f"{newest.name}.dump")


async def test_the_newest_before_a_time_is_found(deployment: Deployment, yesterdays: None) -> None:
    made = []
    for days in (-3, -2, -1):
        let_it_be(days)
        made.append(await dump(deployment.settings))
    dumps = Dumps(deployment.settings)
    assert (await dumps.find(made[1].at)).at == made[1].at
    assert (await dumps.find(made[2].at[:11] + "00:00:00Z")).at == made[1].at
    with pytest.raises(DumpFailed, match="holds no dump of that time or before"):
        await dumps.find("2020-01-01T00:00:00Z")


async def test_erased_people_are_known_after_a_restore_on_another_machine(
    deployment: Deployment, postgres: PrivatePostgres, settings_of: MakeSettings
) -> None:
    await deployment.erase("ada")
    await dump(deployment.settings)
    empty = settings_of(postgres.create_database(), "other")
    assert not empty.data_dir.exists()
    await Dumps(empty).restore(await Dumps(empty).find(), nothing)
    assert [erasure.user_id for erasure in ErasureLog(empty.data_dir / "erasures.jsonl").read()] == ["ada"]
    assert empty.data_dir.stat().st_mode & 0o777 == 0o700


async def test_erasures_that_cannot_be_noted_here_count_and_cost_no_dump(
    deployment: Deployment, tmp_path: Path
) -> None:
    """As on a full disk: the target alone knows them; then even it does not."""
    await deployment.erase("ada")
    first, log = await dump(deployment.settings), deployment.settings.data_dir / "erasures.jsonl"
    await deployment.erase("bob")
    await erasures.send(Dumps(deployment.settings).store, first.database_id, deployment.settings.data_dir)
    log.unlink()
    log.mkdir()
    with pytest.raises(DumpFailed, match=r"^The dump is made and counts; but .* could not be noted \(.*Is a directory"):
        await dump(deployment.settings)
    second = await Dumps(deployment.settings).find()
    log.rmdir()
    log.symlink_to("nowhere/erasures.jsonl")
    with pytest.raises(DumpFailed, match=r"could not be noted \(.*No such file"):
        await dump(deployment.settings)
    log.unlink()
    log.mkdir()
    (there,) = (tmp_path / "dumps").rglob("erasures.jsonl")
    there.unlink()
    with pytest.raises(DumpFailed, match=r"could not be noted \(.*Is a directory"):
        await dump(deployment.settings)
    third = await Dumps(deployment.settings).find()
    assert first.at < second.at < third.at
    assert [made.erasures for made in (first, second, third)] == [1, 2, 2]


async def test_nothing_is_restored_where_the_erased_cannot_be_noted(
    deployment: Deployment, postgres: PrivatePostgres, settings_of: MakeSettings
) -> None:
    await deployment.erase("ada")
    await dump(deployment.settings)
    empty = settings_of(postgres.create_database(), "other")
    empty.data_dir.mkdir()
    (empty.data_dir / "erasures.jsonl").symlink_to("nowhere/erasures.jsonl")
    with pytest.raises(ErasuresNotKnown, match=r"cannot be noted in .*Nothing was changed\."):
        await Dumps(empty).restore(await Dumps(empty).find(), nothing)
    assert is_empty(empty.resolved_database_url)


async def test_nothing_is_restored_without_force_where_the_log_of_erasures_is_damaged(
    deployment: Deployment, postgres: PrivatePostgres, settings_of: MakeSettings, tmp_path: Path
) -> None:
    await deployment.erase("ada")
    await deployment.erase("bob")
    await dump(deployment.settings)
    (log,) = (tmp_path / "dumps").rglob("erasures.jsonl")
    log.write_bytes(log.read_bytes()[:-9])
    empty = settings_of(postgres.create_database(), "other")
    dumps = Dumps(empty)
    with pytest.raises(ErasuresNotKnown, match=r"1 line of erasures.jsonl is damaged .*Nothing was changed\."):
        await dumps.restore(await dumps.find(), nothing)
    assert is_empty(empty.resolved_database_url)
    told: list[str] = []
    await dumps.restore(await dumps.find(), nothing, told=told.append)
    assert told == ["1 line of erasures.jsonl is damaged at the backup: erased people may come back."]
    assert [erasure.user_id for erasure in ErasureLog(empty.data_dir / "erasures.jsonl").read()] == ["ada"]
    log.unlink()
    (finding,) = await Dumps(settings_of(empty.resolved_database_url, "third")).find_missing_erasures(
        await dumps.find()
    )
    assert finding.text.startswith("2 erasures are missing in erasures.jsonl at the backup")


async def test_an_older_dump_is_not_restored_either_where_the_log_of_erasures_is_gone(
    deployment: Deployment, postgres: PrivatePostgres, settings_of: MakeSettings, tmp_path: Path
) -> None:
    """It does not know who was erased since."""
    older = await dump(deployment.settings)
    await deployment.erase("ada")
    await dump(deployment.settings)
    (log,) = (tmp_path / "dumps").rglob("erasures.jsonl")
    log.unlink()
    empty = settings_of(postgres.create_database(), "other")
    with pytest.raises(ErasuresNotKnown, match=r"1 erasure is missing in erasures.jsonl"):
        await Dumps(empty).restore(older, nothing)
    assert is_empty(empty.resolved_database_url)


# --- what is wrong


@pytest.mark.parametrize("fate", ["flip", "truncate", "empty", "delete"])
async def test_a_damaged_dump_is_found_and_not_restored(
    deployment: Deployment, postgres: PrivatePostgres, settings_of: MakeSettings, tmp_path: Path, fate: str
) -> None:
    made = await dump(deployment.settings)
    file = tmp_path / "dumps" / f"{made.name}.dump"
    data = bytearray(file.read_bytes())
    match fate:
        case "flip":
            data[len(data) // 2] ^= 1
        case "truncate":
            del data[-1]
        case "empty":
            data.clear()
    file.unlink() if fate == "delete" else file.write_bytes(data)
    word = "missing" if fate == "delete" else "damaged"
    assert [wrong async for wrong in Dumps(deployment.settings).verify(nothing)] == [f"{made.name}.dump: {word}"]
    empty = settings_of(postgres.create_database(), "other")
    with pytest.raises(DumpFailed, match=rf"{word}\. Nothing was changed"):
        await Dumps(empty).restore(made, nothing)
    with pytest.raises(DumpFailed, match=word):
        await Dumps(empty).save(made, tmp_path / "some.dump", nothing)
    assert not (tmp_path / "some.dump").exists()


@pytest.mark.parametrize("record", [b"{", b'{"database_id":"\xb2"}'])
async def test_a_record_that_cannot_be_read_is_found_and_the_others_can_be_used(
    deployment: Deployment, tmp_path: Path, record: bytes
) -> None:
    first, second = await dump(deployment.settings), await dump(deployment.settings)
    (tmp_path / "dumps" / f"{second.name}.json").write_bytes(record)
    dumps = Dumps(deployment.settings)
    assert (await dumps.find()).at == first.at
    assert [wrong async for wrong in dumps.verify(nothing)] == [f"{second.name}.json: the record cannot be read"]


async def test_a_restore_that_fails_in_the_middle_leaves_nothing(
    deployment: Deployment, postgres: PrivatePostgres, tmp_path: Path
) -> None:
    made = await dump(deployment.settings)
    file = tmp_path / "dumps" / f"{made.name}.dump"
    file.write_bytes(file.read_bytes()[:-200])
    url = postgres.create_database()
    with pytest.raises(DumpFailed, match="could not read from input file"):
        await Dumps(deployment.settings).bring(made, url, nothing)
    assert is_empty(url)


async def test_nothing_is_restored_over_tables(deployment: Deployment) -> None:
    made = await dump(deployment.settings)
    before = examine(deployment.settings.resolved_database_url).tables
    with pytest.raises(DumpFailed, match="The database has tables: nothing was changed"):
        await Dumps(deployment.settings).restore(made, nothing)
    assert examine(deployment.settings.resolved_database_url).tables == before


async def test_dumps_of_two_databases_are_not_mixed(
    deployment: Deployment, postgres: PrivatePostgres, settings_of: MakeSettings
) -> None:
    await dump(deployment.settings)
    async with Deployment.open(settings_of(postgres.create_database(), "second")) as second:
        with pytest.raises(DumpFailed, match="is for the dumps of another database"):
            await dump(second.settings)
    assert len(await Dumps(deployment.settings).list_all()) == 1


@pytest.fixture(params=["folder", "moto", "rclone"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, object]]:
    """Settings of a place for dumps. rclone ignores conditions."""
    if request.param == "folder":
        yield {}
        return
    with Moto() if request.param == "moto" else Rclone(tmp_path / "server") as server:
        yield {
            "backup_url": f"s3://{BUCKET}/chat", "backup_endpoint_url": server.url,
            "backup_access_key_id": SecretStr(ACCESS_KEY), "backup_secret_access_key": SecretStr(SECRET_KEY),
        }  # fmt: skip


async def test_of_two_first_dumps_at_the_same_moment_one_is_refused(
    postgres: PrivatePostgres, settings_of: MakeSettings, target: dict[str, object]
) -> None:
    """Two machines with databases of their own, and one BACKUP_URL."""
    machines = [settings_of(postgres.create_database(), name, **target) for name in ("one", "two")]
    async with Deployment.open(machines[0]), Deployment.open(machines[1]):
        outcomes = await asyncio.gather(*map(dump, machines), return_exceptions=True)
        (made,) = [outcome for outcome in outcomes if isinstance(outcome, Dump)]
        (refused,) = [outcome for outcome in outcomes if isinstance(outcome, DumpFailed)]
        assert f"is for the dumps of another database ({made.database_id};" in str(refused)
        assert await Dumps(machines[0]).list_all() == [made]


async def test_a_marker_that_cannot_be_read_stops_a_dump_and_one_that_is_gone_does_not(
    deployment: Deployment, postgres: PrivatePostgres, settings_of: MakeSettings, tmp_path: Path
) -> None:
    await dump(deployment.settings)
    marker = tmp_path / "dumps" / "dumps.json"
    for damaged in (b"{", b'{"database_id":"\xb2","at":"2026-11-28T10:00:00.000000Z"}'):
        marker.write_bytes(damaged)
        with pytest.raises(DumpFailed, match="cannot be read"):
            await dump(deployment.settings)
    marker.unlink()
    async with Deployment.open(settings_of(postgres.create_database(), "second")) as second:
        with pytest.raises(DumpFailed, match="is for the dumps of another database"):
            await dump(second.settings)
    await dump(deployment.settings)


async def test_a_wrong_counter_is_told_and_the_dump_can_be_restored(
    deployment: Deployment, postgres: PrivatePostgres, settings_of: MakeSettings, tmp_path: Path
) -> None:
    """As it was when it was dumped: what is wrong with it then, no other dump has better."""
    with psycopg.connect(deployment.settings.resolved_database_url) as connection:
        connection.execute("INSERT INTO counters (name, value) VALUES ('messages', 7)")
    await dump(deployment.settings)
    empty = settings_of(postgres.create_database(), "other")
    (fault,) = await Dumps(empty).restore(await Dumps(empty).find(), nothing)
    assert fault.subject == "counters.messages"
    again = Cli(
        tmp_path / "home", DATABASE_URL=postgres.create_database(), BACKUP_URL=(tmp_path / "dumps").as_uri()
    ).run("restore", "--latest")
    assert again.status == 0
    assert f"✗ {fault.text} So it was when it was dumped." in again.out


async def test_dumps_of_another_database_are_named_as_such(
    deployment: Deployment, postgres: PrivatePostgres, settings_of: MakeSettings, tmp_path: Path
) -> None:
    """A BACKUP_URL that is another's: nobody takes its dumps for ours."""
    async with Deployment.open(settings_of(postgres.create_database(), "second")) as second:
        other = await dump(second.settings)
    (line,) = await list_dumps(deployment.settings)
    assert line.endswith(f" of another database ({other.database_id})")
    assert (await show_status(deployment.settings))[-2:] == [
        f"others      1 dumps of another database ({other.database_id}): see BACKUP_URL",
        "dumps       none yet",
    ]
    place, _ = await examine_backup(deployment.settings)
    assert (place.is_bad, place.to_do) == (True, "give this one a BACKUP_URL of its own")
    assert place.text.endswith(f"no dump yet, and dumps of another database ({other.database_id})")
    with pytest.raises(DumpFailed, match=rf"no dump of the database in use, but of another \({other.database_id}\)"):
        await Dumps(deployment.settings).find(of=await Dumps(deployment.settings).own_id())


async def test_dumps_are_shown_while_the_database_is_away(deployment: Deployment, settings_of: MakeSettings) -> None:
    """That is when somebody looks for them."""
    made = await dump(deployment.settings)
    lost = settings_of(f"{deployment.settings.resolved_database_url}_lost")
    shown = "\n".join(await show_status(lost))
    assert re.search(rf"^archive     not known\. .*^newest      {made.at}, ", shown, re.M | re.S), shown
    assert (await list_dumps(lost))[0].startswith(made.at)


async def test_a_dump_that_fails_leaves_nothing(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pg_dump has sent a part of it when it fails."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "pg_dump").write_text(
        "#!/bin/sh\nhead -c 9000000 /dev/zero\necho 'pg_dump: error: connection to server was lost' >&2\nexit 1\n"
    )
    (programs / "pg_dump").chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(programs), prepend=":")
        with pytest.raises(DumpFailed, match=r"^connection to server was lost$"):
            await dump(deployment.settings)
    assert files(tmp_path / "dumps") == ["dumps.json"]
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(tmp_path))
        with pytest.raises(DumpFailed, match="pg_dump is not on PATH"):
            await dump(deployment.settings)


async def test_a_dump_outlasts_what_the_server_lets_sessions_idle(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = deployment.settings.resolved_database_url
    with psycopg.connect(url, autocommit=True) as connection:
        name = sql.Identifier(url.rpartition("/")[2])
        timeout = sql.SQL("ALTER DATABASE {} SET idle_in_transaction_session_timeout = '500ms'")
        connection.execute(timeout.format(name))
    (tmp_path / "programs").mkdir()
    (slow := tmp_path / "programs" / "pg_dump").write_text(f'#!/bin/sh\nsleep 1\nexec {which("pg_dump")} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(slow.parent), prepend=os.pathsep)
    assert (await dump(deployment.settings)).rows == 152


async def test_without_a_place_nothing_is_begun(deployment: Deployment) -> None:
    with pytest.raises(DumpFailed, match="BACKUP_URL is not set"):
        Dumps(deployment.settings.model_copy(update={"backup_url": None}))
