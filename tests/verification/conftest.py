"""Databases with a life behind them, to be broken one by one."""

import asyncio
import shutil
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection

from tests.service import FakeModel, Service
from tests.verification.life import live
from yral_chat.db.postgres import create_postgres_engine
from yral_chat.db.sqlite import create_sqlite_engine
from yral_chat.db.urls import backend_of, database_path

# Tables without what forbids exactly this: indexes break, too, and then somebody has to notice.
UNGUARDED = {
    "sqlite": ("CREATE TABLE copy AS SELECT * FROM messages", "DROP TABLE messages",
               "ALTER TABLE copy RENAME TO messages",
               "CREATE UNIQUE INDEX by_id ON messages (id)", "DROP INDEX ix_conversations_pair"),
    "postgresql": ("ALTER TABLE messages DROP CONSTRAINT uq_messages_conversation_id_seq",
                   "ALTER TABLE messages DROP CONSTRAINT uq_messages_conversation_id_sender_id_client_message_id",
                   "DROP INDEX ix_conversations_pair"),
}  # fmt: skip


@pytest.fixture(scope="session")
def lived(
    request: pytest.FixtureRequest, dialect: str, tmp_path_factory: pytest.TempPathFactory, model_process: FakeModel
) -> str:
    """The URL of the database, with whatever the end has left beside it. Nobody has it open."""
    model_process.reset()
    url = request.getfixturevalue("postgres").create_database() if dialect == "postgresql" else None
    service = Service(tmp_path_factory.mktemp("lived"), DATABASE_URL=url, **model_process.settings)
    try:
        asyncio.run(live(service, model_process))
    finally:
        service.__exit__(None, None, None)
    return service.database_url


@pytest.fixture(scope="session")
def copied(request: pytest.FixtureRequest, lived: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """`copied()`: the URL of another copy of the lived database."""

    def copy() -> str:
        if backend_of(lived) == "postgresql":
            made: str = request.getfixturevalue("postgres").create_database(template=lived)
            return made
        path = tmp_path_factory.mktemp("copied") / "copy.db"
        for suffix in ("", "-wal"):
            shutil.copy(f"{database_path(lived)}{suffix}", f"{path}{suffix}")
        create_sqlite_engine(path).connect().close()  # as a start would, it takes in what the log has
        return f"sqlite:///{path}"

    return copy


@pytest.fixture(scope="session")
def _defenceless(copied: Callable[[], str]) -> Iterator[Connection]:
    """One copy for all damages; its keys and references forbid nothing."""
    url = copied()
    is_sqlite = backend_of(url) == "sqlite"
    engine = create_sqlite_engine(database_path(url)) if is_sqlite else create_postgres_engine(url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF" if is_sqlite else "SET session_replication_role = replica")
        for statement in UNGUARDED[connection.dialect.name]:
            connection.exec_driver_sql(statement)
        yield connection
    engine.dispose()


@pytest.fixture
def defenceless(_defenceless: Connection) -> Iterator[Connection]:
    """A database that takes everything, and forgets it afterwards."""
    _defenceless.exec_driver_sql("BEGIN")
    yield _defenceless
    _defenceless.exec_driver_sql("ROLLBACK")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        callspec = getattr(item, "callspec", None)
        if item.path.parent.name == "verification" and callspec and callspec.params.get("dialect") == "postgresql":
            item.add_marker(pytest.mark.long)
