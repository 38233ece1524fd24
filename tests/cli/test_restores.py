"""yral-chat restore: one conversation or one person, beside a running server and without one."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from tests import files
from tests.cli.commands import Cli
from tests.client import Api, Document
from tests.rows import At, execute
from tests.service import FakeModel, Service
from tests.services.restores.world import copy_rows
from yral_chat.core.clock import SECOND, now, to_text
from yral_chat.core.config import Settings
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.migrations import migrate
from yral_chat.db.tables import installation
from yral_chat.restore_part_commands import Copy, RestoreCommandFailed, Wanted, restore_part

KEY = "the-key-of-the-operator"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, model_process: FakeModel) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("running"), ADMIN_API_KEY=KEY, **model_process.settings) as service:
        yield service


def settings_of(service: Service, admin_api_key: str | None = KEY) -> Settings:
    """Those of a command beside this server."""
    key = {} if admin_api_key is None else {"admin_api_key": admin_api_key}
    return Settings(_env_file=None, environment="test", data_dir=service.folder / "data", **key)  # type: ignore[arg-type]


async def restore(
    settings: Settings, copy: Copy, conversation: str | None = None, user: str | None = None
) -> list[str]:
    """What the command prints."""
    said: list[str] = []
    await restore_part(settings, copy, None, Wanted(conversation, user), said.append)
    return said


async def lose(service: Service, document: Document, name: str) -> tuple[str, str, Path]:
    """(conversation, user, copy): the user has deleted what the copy has."""
    ann = Api(service.url, document)
    conversation = (await ann.open())["id"]
    await ann.said(conversation, "remember this")
    path = copy_to(service, name)
    await ann.delete(f"/api/v1/chat/conversations/{conversation}")
    await ann.close()
    return conversation, ann.user_id, path


def copy_to(service: Service, name: str) -> Path:
    path = service.folder / "data" / name
    migrate(f"sqlite:///{path}")
    copy_rows(service.database_url, f"sqlite:///{path}")
    return path


async def count(service: Service, document: Document, user: str, conversation: str) -> int:
    ann = Api(service.url, document, user)
    found = await ann.history(conversation)
    await ann.close()
    return len(found)


@pytest.mark.long
async def test_with_a_server_and_without_one_it_comes_back(
    own_service: Service, dialect: str, document: Document, tmp_path: Path
) -> None:
    if dialect == "postgresql":
        return  # the copy is a file below DATA_DIR, and the rest is in tests/api/test_restores.py
    own_service.settings["ADMIN_API_KEY"] = KEY
    own_service.start()
    conversation, user, copy = await lose(own_service, document, "copy.db")
    operator = Cli(
        tmp_path / "operator", ENVIRONMENT="test", ADMIN_API_KEY=KEY, DATA_DIR=str(own_service.folder / "data")
    )
    with operator.in_terminal("restore", "--file", str(copy), "--conversation", conversation) as terminal:
        terminal.expect("of 3 messages")
        terminal.expect("Put back: 3 messages, 1 deleted conversation")
        assert terminal.wait() == 0
    assert await count(own_service, document, user, conversation) == 3

    conversation, user, copy = await lose(own_service, document, "another.db")
    own_service.kill()
    said = await restore(settings_of(own_service, None), Copy(copy), user=user)
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
    assert re.fullmatch(rf"messages  3 in 1 conversation, from {time} to {time}", said[0])
    assert said[1:] == [
        "memories  0",
        "files     0",
        "Put back: 3 messages, 1 deleted conversation, 0 memories, 0 personas. What was there stayed as it is.",
    ]
    own_service.start()
    assert await count(own_service, document, user, conversation) == 3
    assert "Put back: 0 messages" in (await restore(settings_of(own_service), Copy(copy), user=user))[-1]


async def test_files_that_are_gone_are_named(running: Service, document: Document) -> None:
    ann = Api(running.url, document)
    kept, lost = [(await files.uploaded(ann, "image"))["storage_key"] for _ in range(2)]
    conversation = (await ann.open())["id"]
    body = {"message_type": "image", "media_urls": [kept, lost]}
    assert (await ann.post(f"/api/v1/chat/conversations/{conversation}/messages", body)).status_code == 200
    copy = copy_to(running, "with-files.db")
    (running.folder / "data" / "media" / lost).unlink()
    said = await restore(settings_of(running), Copy(copy), user=ann.user_id)
    assert said[2:4] == ["files     2, 1 of them not there any more", f"          {lost}"]
    await ann.close()


async def test_an_erased_account_does_not_come_back(running: Service, document: Document) -> None:
    conversation, user, copy = await lose(running, document, "with-erased.db")
    ann = Api(running.url, document, user)
    assert (await ann.delete("/api/v1/users/me")).status_code == 200
    await ann.close()
    for what in ((None, user), (conversation, None)):
        with pytest.raises(RestoreCommandFailed, match="account was erased after the copy was made: nothing of it"):
            await restore(settings_of(running), Copy(copy), *what)


async def test_what_cannot_be_is_said_in_a_sentence(running: Service, document: Document, tmp_path: Path) -> None:
    conversation, _, copy = await lose(running, document, "bad.db")
    data = copy.read_bytes()
    damaged, text, older = (copy.with_name(f"{name}.db") for name in ("damaged", "text", "older"))
    damaged.write_bytes(data[:4096] + b"\xff" * (len(data) - 8192) + data[-4096:])
    text.write_text("no database at all")
    older.write_bytes(b"")
    elsewhere = Path(shutil.copy(copy, tmp_path / "elsewhere.db"))
    settings = settings_of(running)
    for file, says in (
        (copy.with_name("nowhere.db"), "There is no file"),
        (damaged, "The copy is damaged"),
        (text, "is not a SQLite database"),
        (older, "tables of another version"),
        (elsewhere, "has to lie below DATA_DIR"),
    ):
        with pytest.raises((RestoreCommandFailed, DatabaseUnusable), match=says):
            await restore(settings, Copy(file), conversation)
    for given, what, says in (
        (settings, (None, "nobody"), "nothing of this person"),
        (settings, ("none", None), "no such conversation"),
        (settings, (conversation, "nobody"), "is not that person's"),
        (settings_of(running, None), (conversation, None), "ADMIN_API_KEY"),
        (settings_of(running, "another"), (conversation, None), "Invalid admin key"),
    ):
        with pytest.raises(RestoreCommandFailed, match=says):
            await restore(given, Copy(copy), *what)
    with pytest.raises(DatabaseUnusable, match="PostgreSQL only"):
        await restore(settings, Copy(database="copy"), conversation)


async def test_a_copy_of_another_database_is_refused_unless_it_is_forced(running: Service, document: Document) -> None:
    conversation, user, copy = await lose(running, document, "foreign.db")
    execute(At(f"sqlite:///{copy}"), update(installation).values(id="another"))
    for what in ((conversation, None), (None, user)):
        with pytest.raises(RestoreCommandFailed, match="The copy is one of another database"):
            await restore(settings_of(running), Copy(copy), *what)
    said: list[str] = []
    wanted = Wanted(conversation, is_forced=True)
    await restore_part(settings_of(running), Copy(copy), None, wanted, said.append)
    assert "Put back: 3 messages, 1 deleted conversation" in said[-1]
    assert await count(running, document, user, conversation) == 3


def test_without_a_database_nothing_is_made(running: Service, tmp_path: Path) -> None:
    copy = copy_to(running, "for-nobody.db")
    nowhere = Cli(tmp_path / "new", ENVIRONMENT="test")
    for given in (("--file", str(copy)), ("--latest",)):
        before = sorted(nowhere.folder.rglob("*"))
        refused = nowhere.run("restore", *given, "--user", "ann")
        assert (refused.status, refused.out) == (1, "")
        assert "There is no database at" in refused.err
        assert sorted(nowhere.folder.rglob("*")) == before
        nowhere.data.mkdir(exist_ok=True)


@pytest.mark.long
def test_what_is_not_said_is_not_done(cli: Cli) -> None:
    for given, says in (
        (("--user", "ann"), "Say which state"),
        (("--user", "ann", "--latest", "--database", "copy"), "Say which state"),
        (("--latest", "--user", "ann", "--to", "copy.db"), "--to takes a whole database"),
        (("--file", "old.db", "--conversation", "c", "--to", "copy.db"), "--to takes a whole database"),
        (("--before-upgrade", "--user", "ann"), "--conversation and --user go with"),
    ):
        nothing = cli.run("restore", *given)
        assert (nothing.status, nothing.out, says in nothing.err) == (1, "", True), nothing


@pytest.mark.long
def test_a_time_that_is_still_to_come_is_refused(cli: Cli) -> None:
    assert cli.run("migrate").status == 0
    backup = (cli.folder / "backup").as_uri()
    before = {path for path in cli.folder.rglob("*") if path.suffix != ".lock"}
    for what in ((), ("--to", "then.db"), ("--conversation", "c")):
        refused = cli.run("restore", "--at", "2130-01-01T00:00:00Z", *what, BACKUP_URL=backup)
        assert (refused.status, refused.out) == (1, "")
        assert refused.err == "That time is still to come. For the newest state say --latest.\n"
    assert {path for path in cli.folder.rglob("*") if path.suffix != ".lock"} == before
    soon = to_text(now() + 30 * SECOND)
    assert "holds no backup" in cli.run("restore", "--at", soon, BACKUP_URL=backup).err, "clocks may differ"
