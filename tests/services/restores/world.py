"""People, personas and a database in which they have talked; and copies of it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Concatenate

from sqlalchemy import select

from tests.rows import fetch
from tests.upgrades.dumps import faults_of
from yral_chat.clients.language_model import ModelCall
from yral_chat.core.clock import now
from yral_chat.core.config import Settings
from yral_chat.db.database import Database, P, T, UnitOfWork
from yral_chat.db.migrations import open_engine
from yral_chat.db.repositories.media import MediaObject
from yral_chat.db.tables import metadata
from yral_chat.realtime.hub import Hub
from yral_chat.services import chat, people
from yral_chat.services.restores import PutBack, RestoreService, Wanted
from yral_chat.services.restores.records import Step
from yral_chat.services.turns import accepting, ending
from yral_chat.services.turns.records import Ending, Limits, NewMessage
from yral_chat.services.usage import RECORD_JOB, Prices

LIMITS = Limits(per_conversation=99, per_user=99, duplicate_window=0, duplicate_grace=0, lease=60_000_000)
Rows = dict[str, set[tuple[Any, ...]]]


class World:
    """A database in use; `folder` is its DATA_DIR. After every commit of a restore nothing is wrong in it."""

    def __init__(self, database: Database, url: str, folder: Path) -> None:
        self.database = database
        self.database_url = url
        self.folder = folder
        self.hub = Hub(max_sockets_per_user=10)
        self.woken = 0
        self.watched = Watched(database, url)
        settings = Settings(_env_file=None, environment="test", data_dir=folder)
        self.restores = RestoreService(
            settings, self.watched, self.hub, forget_influencers=lambda ids: None, wake_jobs=self._wake
        )

    def _wake(self) -> None:
        self.woken += 1

    # what people do

    async def open(self, user: str, bot: str = "bot") -> str:
        opened = await self.database.write(chat._open, user, bot)
        return opened["id"]

    async def say(self, user: str, *texts: str, bot: str = "bot", reply: str | None = "Yes: {}") -> str:
        """The conversation, after these messages were answered. `reply` None: they are still being answered."""
        conversation = await self.open(user, bot)
        for text in texts:
            await self.send(user, conversation, NewMessage(text), None if reply is None else reply.format(text))
        return conversation

    async def send(self, user: str, conversation: str, message: NewMessage, reply: str | None = "Yes") -> str:
        """The id of the message."""

        def unit(uow: UnitOfWork) -> str:
            accepted = accepting.accept(uow, user, conversation, message, LIMITS, "process", frozenset())
            if reply is not None and accepted.turn is not None:
                ending.end(uow, accepted.turn, Ending(reply, provider="p", model="m", tokens=1), [call()], str)
            return accepted.user_message["id"]

        return await self.database.write(unit)

    async def write(self, user: str, other: str, *texts: str) -> str:
        """The conversation of these two, after `user` has written that."""

        def unit(uow: UnitOfWork) -> str:
            pair = people.open_pair(uow, user, other)
            for text in texts:
                conversation, sides = people._open(uow, pair, user)
                stored = people._store(uow, conversation, user, NewMessage(text))
                if conversation.pair is not None and sides[conversation.other_of(user)].is_hidden:
                    people.show(uow, pair, conversation.other_of(user))
                uow.events.add(conversation.other_of(user), pair, "new_message", {"message": stored})
            return pair

        return await self.database.write(unit)

    async def read(self, user: str, conversation: str) -> None:
        await self.database.write(chat._mark_read, user, conversation)

    async def delete(self, user: str, conversation: str) -> None:
        await self.database.write(chat._delete, user, conversation)

    async def upload(self, owner: str, key: str) -> str:
        def unit(uow: UnitOfWork) -> None:
            uow.media.add(MediaObject(key, owner, "image", "image/png", 3, None, now()))
            uow.media.set_stored(key)

        await self.database.write(unit)
        path = self.folder / "media" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"png")
        return key

    async def see(self, user: str, conversation: str) -> list[str]:
        """What a person sees there, oldest first."""
        page = await self.database.read(chat._list_messages, user, conversation, 200, 0, True, False)
        assert page["total"] == len(page["messages"])
        return [message["content"] for message in page["messages"]]

    async def inbox(self, user: str) -> dict[str, int]:
        """Unread messages by conversation."""
        page = await self.database.read(chat._list_inbox, user, user, "all", None, 100, 0)
        assert page["total"] == len(page["conversations"])
        return {row["id"]: row["unread_count"] for row in page["conversations"]}

    # what is there

    async def settle(self) -> None:
        """Until everything is counted."""

        def unit(uow: UnitOfWork) -> None:
            jobs = uow.jobs.lease_due(now(), {RECORD_JOB: 1000})
            ending.record(uow, Prices({}), [job.id for job in jobs], [job.payload for job in jobs])
            while uow.counters.fold():
                pass

        await self.database.write(unit)

    async def check(self) -> None:
        """Raises AssertionError when something is wrong in the database."""
        await self.settle()
        assert faults_of(self.database_url) == []

    def rows(self, *but: str) -> Rows:
        """Every row of every table, but of these."""
        return {
            table.name: {tuple(row) for row in fetch(self, select(table))}
            for table in metadata.sorted_tables
            if table.name not in but
        }

    async def go_back(self, copy_url: str) -> None:
        """The whole database is what it was then."""
        await self.database.close()
        copy_rows(copy_url, self.database_url)
        await self.database.open()

    # restoring

    async def restore(self, copy_url: str, *, conversation: str | None = None, user: str | None = None) -> PutBack:
        return (await self.steps(copy_url, conversation=conversation, user=user))[-1]["result"]

    async def steps(self, copy_url: str, *, conversation: str | None = None, user: str | None = None) -> list[Step]:
        self.watched.before = {fault.check for fault in faults_of(self.database_url)}
        return [step async for step in self.restores.put_back(copy_url, Wanted(conversation, user))]


class Watched:
    """See `Database`: after every commit everything holds but what did not hold before."""

    def __init__(self, database: Database, url: str) -> None:
        self._database = database
        self._url = url
        self.before: set[str] = set()

    async def write(self, fn: Callable[Concatenate[UnitOfWork, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        result = await self._database.write(fn, *args, **kwargs)
        faults = [fault for fault in faults_of(self._url) if fault.check not in self.before]
        assert faults == [], (fn, faults)
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


def call() -> ModelCall:
    return ModelCall("p", "m", outcome="completed", started_at=now())


def copy_rows(source_url: str, target_url: str) -> None:
    """All rows of one database into another one with empty tables, of whatever kind they are."""
    source, target = open_engine(source_url), open_engine(target_url)
    with source.connect() as reading, target.connect() as writing:
        begin(writing)
        for table in reversed(metadata.sorted_tables):
            writing.execute(table.delete())
        for table in metadata.sorted_tables:
            rows = [row._asdict() for row in reading.execute(select(table))]
            if rows:
                writing.execute(table.insert(), rows)
        writing.exec_driver_sql("COMMIT")
    source.dispose()
    target.dispose()


def begin(connection: Any) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN")


def seqs(world: World, conversation: str) -> Iterator[tuple[int, str]]:
    """(number, text) of all rows of a conversation."""
    table = metadata.tables["messages"]
    query = select(table.c.seq, table.c.content).where(table.c.conversation_id == conversation).order_by(table.c.seq)
    yield from (tuple(row) for row in fetch(world, query))
