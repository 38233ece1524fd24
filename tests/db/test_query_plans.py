"""Every statement of the hot paths runs on an index: none scans a table, none sorts."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, event

from tests.db.conftest import add_influencer
from yral_chat.core.clock import now
from yral_chat.db.database import UnitOfWork
from yral_chat.db.execution import Executor, Parameters, Statement
from yral_chat.db.migrations import open_engine
from yral_chat.db.repositories.influencer_versions import StoredVersion
from yral_chat.db.repositories.media import MediaObject
from yral_chat.db.repositories.memories import EVERYTHING, Summary
from yral_chat.db.repositories.pictures import PictureRequest
from yral_chat.db.repositories.usage import Counts, OpenUsage, Subject
from yral_chat.services import chat, people
from yral_chat.services.memories.facts import Fact
from yral_chat.services.memories.service import Source, remember
from yral_chat.services.turns import accepting, ending
from yral_chat.services.turns.records import Ending, Limits, NewMessage
from yral_chat.services.usage import RECORD_JOB, Prices

LIMITS = Limits(per_conversation=5, per_user=10, duplicate_window=120_000_000, duplicate_grace=0, lease=60_000_000)


class Recorder(Executor):
    """Notes every statement with the parameters that it was run with."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.statements: dict[str, Any] = {}
        self.is_on = True
        # What goes through SQLAlchemy's own execution, and what through ours.
        event.listen(connection, "before_cursor_execute", self._note)

    def _execute(self, statement: Statement, parameters: Parameters) -> Any:
        text, constants = statement.on(self.dialect)
        self._note(None, None, text, {**constants, **parameters}, None, False)
        return super()._execute(statement, parameters)

    def run_many(self, statement: Statement, rows: Sequence[Parameters]) -> None:
        text, constants = statement.on(self.dialect)
        self._note(None, None, text, {**constants, **rows[0]}, None, False)
        super().run_many(statement, rows)

    def _note(self, _c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if self.is_on and statement.split(" ", 1)[0] in ("SELECT", "UPDATE", "DELETE", "INSERT", "WITH"):
            self.statements.setdefault(statement, parameters[0] if many else parameters)

    def plans(self) -> Iterator[tuple[str, str]]:
        self.is_on = False
        prefix = "EXPLAIN QUERY PLAN " if self.connection.dialect.name == "sqlite" else "EXPLAIN "
        for statement, parameters in self.statements.items():
            cursor = self.connection.connection.cursor()
            cursor.execute(prefix + statement, parameters)
            rows = cursor.fetchall()
            yield statement, "\n".join(str(row[-1]) for row in rows)


@pytest.fixture
def recorded(database_url: str) -> Iterator[tuple[Recorder, UnitOfWork]]:
    engine = open_engine(database_url)
    with engine.connect() as connection:
        recorder = Recorder(connection)
        uow = UnitOfWork(recorder)
        add_influencer(uow, "bot", owner_id="owner")
        yield recorder, uow
    engine.dispose()


def live_through(uow: UnitOfWork) -> None:
    """One conversation with everything that requests do in it."""
    conversation = chat._open(uow, "user", "bot")["id"]
    chat._open(uow, "user", "bot")
    for content, key in (("one", None), ("two", "key"), ("two", "key"), ("three", None)):
        message = NewMessage(content, client_message_id=key)
        accepted = accepting.accept(uow, "user", conversation, message, LIMITS, "process", frozenset())
        if accepted.turn is not None:
            uow.messages.save_partial({accepted.turn.id: "Hal"})
            uow.turns.renew("process", [accepted.turn.id], now())
            ending.end(uow, accepted.turn, Ending("Hallo", provider="p", model="m", tokens=1), [], str)
    newest = uow.messages.find_newest_model_reply(conversation)
    assert newest is not None
    reply_id = newest.message["id"]
    again = accepting.accept_regeneration(uow, "user", conversation, reply_id, LIMITS, "process")
    assert again.turn is not None
    ending.take_over(uow, again.turn, "next", now())
    uow.turns.list_orphans(now())
    uow.messages.mark_handed_over([reply_id])
    chat._mark_read(uow, "user", conversation)
    chat._mark_read(uow, "owner", conversation)
    chat._list_own(uow, "user", None, 20, 0)
    for principal, type_ in ((None, None), ("user", "all"), ("user", "human"), ("bot", "ai")):
        chat._list_inbox(uow, "owner" if principal == "bot" else "user", principal, type_, None, 20, 0)  # type: ignore[arg-type]
    chat._list_inbox(uow, "user", None, None, "bot", 20, 0)
    for is_complete in (False, True):
        for is_ascending in (False, True):
            chat._list_messages(uow, "user", conversation, 50, 0, is_ascending, is_complete)
            chat._list_beside(uow, "user", conversation, 50, reply_id, None, is_ascending, is_complete)
            chat._list_beside(uow, "user", conversation, 50, None, reply_id, is_ascending, is_complete)
    uow.messages.list_for_prompt(conversation, before_seq=100, limit=30)
    uow.messages.find_window_start(conversation, 2)
    uow.messages.list_between(conversation, 0, 100, limit=60)
    source = Source("message", 1, "", "bot", [])
    remember(uow, conversation, source, [Fact("city", "Pune", 90)])
    uow.memories.list_all(conversation)
    uow.memories.save_summary(conversation, Summary("They met.", 1), now())
    uow.memories.find_summary(conversation)
    uow.settings.change("user", now(), locale="hi-IN")
    uow.memories.delete(conversation, "city")
    uow.memories.forget(conversation, EVERYTHING, 1)
    uow.memories.delete_all(conversation)
    uow.events.list_since("user", 0, 0)
    uow.events.last_seq("user")
    jobs = uow.jobs.lease_due(now(), {RECORD_JOB: 10})
    uow.jobs.has_due([RECORD_JOB])
    uow.accounts.list_ai_conversations("user", "", 200)
    uow.accounts.list_human_conversations("user")
    uow.accounts.list_owned("owner", (0, ""), 200)
    uow.accounts.list_files("user", (0, ""), 200)
    uow.accounts.anonymise_usage("somebody", 500)
    uow.accounts.delete_files("somebody", 500)
    uow.accounts.delete_messages_by(conversation, "somebody", 500)
    ending.record(uow, Prices({}), [job.id for job in jobs], [job.payload for job in jobs])
    use(uow)
    uow.influencers.list_listed(50, 0)
    uow.influencers.list_trending(50, 0)
    uow.influencers.list_owned_ids("owner")
    uow.influencers.find("bot")
    uow.influencers.find_locked("bot")
    uow.influencers.find_id_by_name("bot")
    uow.influencers.find_card("bot")
    uow.influencers.is_person("bot")
    uow.influencers.is_owned_by("bot", "owner")
    uow.influencer_versions.keep("bot", StoredVersion(1, "text", now()))
    uow.influencer_versions.list_newest("bot", 100)
    uow.influencer_versions.find("bot", 1)
    uow.influencer_versions.count("bot")
    uow.media.add(MediaObject("user/file.jpg", "user", "image", "image/jpeg", 1, None, now()))
    uow.media.set_stored("user/file.jpg")
    picture = NewMessage("", "image", images=("user/file.jpg",))
    accepted = accepting.accept(uow, "user", conversation, picture, LIMITS, "process", frozenset())
    uow.messages.find_said(accepted.user_message["id"])
    uow.turns.find_next_reply(conversation)
    uow.media.delete_unused(uow.media.list_keys_of_conversation(conversation))
    uow.media.list_old_unused(now(), 100)
    request = PictureRequest("picture", conversation, "user", "key", "", "running", None, 1, now(), None)
    uow.pictures.add(request)
    uow.pictures.find_by_key(conversation, "key")
    uow.pictures.find_newest(conversation)
    uow.pictures.begin("picture", 2)
    uow.pictures.end("picture", "failed", "TRANSIENT", now())
    put_back(uow, conversation)
    chat_with_people(uow)


def put_back(uow: UnitOfWork, conversation: str) -> None:
    """What a restore of a part asks of the database that lives."""
    uow.restores.find_home(["message"])
    uow.restores.list_known(["message"])
    uow.restores.list_answered(["message"])
    uow.restores.list_taken_keys(conversation, "user", ["key"])
    uow.usage.list_known(["turn:1:0"])
    uow.accounts.is_being_erased("user")
    uow.accounts.list_erasures("pseudonym")
    uow.places.find_below(conversation, 5)
    uow.places.find_from(conversation, 5)
    uow.places.find_first_since(conversation, 0)
    uow.places.find_nth_from_above(conversation, 1, 5, 2)
    uow.places.count_listed(conversation, 5)
    uow.places.count_delivered(conversation, "bot", 0)
    uow.places.raise_numbers(conversation, 1, 100, 100)


def use(uow: UnitOfWork) -> None:
    """What quotas and the report of usage ask."""
    day = Subject("user", "somebody", 20_000)
    assert uow.usage.reserve(day, 10, 1, most_tokens=100, most_cost=100)
    uow.usage.open(OpenUsage("turn:1", "user", "bot", 20_000, 10, 1))
    uow.usage.move("turn:1", "turn:2")
    uow.usage.anonymise_open("user")
    assert uow.usage.has_open()
    assert uow.usage.close("turn:2") is not None
    uow.usage.count({day: Counts(turns=1, reserved_tokens=-10, reserved_cost=-1)})
    assert uow.usage.find_day(day).turns == 1
    uow.usage.list_days(day, 20_400)
    uow.usage.forget_days(day)


def chat_with_people(uow: UnitOfWork) -> None:
    """One human chat with everything that requests do in it."""
    with_other = chat._open_with(uow, "user", "other")["id"]
    chat._open_with(uow, "other", "user")
    stored, sides = people._open(uow, with_other, "user")
    message = people._store(uow, stored, "user", NewMessage("Hello"))
    accepting.find_repeated(uow, with_other, "user", NewMessage("Hello"), 120_000_000)
    people.show(uow, with_other, sides["other"].principal_id)
    for type_ in ("ai", "human", "all"):
        for is_unread in (False, True):
            chat._list_unified(uow, "other", type_, is_unread, 20, 0)
    chat._list_messages(uow, "other", with_other, 50, 0, False, False)
    chat._list_beside(uow, "other", with_other, 50, message["id"], None, False, False)
    chat._mark_read(uow, "other", with_other)
    for user_id in ("user", "other"):
        chat._delete(uow, user_id, with_other)


# Tables that are empty but for what a job has not folded yet.
SHORT = ("counter_deltas",)


def test_no_hot_statement_scans_or_sorts(recorded: tuple[Recorder, UnitOfWork]) -> None:
    recorder, uow = recorded
    live_through(uow)
    connection = recorder.connection
    if connection.dialect.name == "postgresql":
        # On small tables the planner prefers to scan; forbidden to, it shows whether an index serves the query.
        connection.exec_driver_sql("SET enable_seqscan = off")
        connection.exec_driver_sql("SET enable_bitmapscan = off")
    assert len(recorder.statements) > 40, "the recorder saw too little"
    bad = [
        f"{statement}\n{plan}"
        for statement, plan in recorder.plans()
        if not any(table in statement for table in SHORT)
        and (
            # "page" is what a PageStatement has found already, at most its LIMIT.
            "SCAN " in plan.replace("SCAN CONSTANT ROW", "").replace("SCAN page", "")
            or "Seq Scan" in plan
            or "TEMP B-TREE" in plan
            or "Sort" in plan
        )
    ]
    assert not bad, "\n\n".join(bad)
