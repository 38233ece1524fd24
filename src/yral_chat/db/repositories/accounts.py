"""Everything of one person: to be given away page by page, and to be erased bit by bit."""

from typing import Any

import orjson
from sqlalchemy import BindParameter, and_, bindparam, delete, func, insert, literal, or_, select, text, update

from yral_chat.core.clock import now
from yral_chat.core.ids import new_id
from yral_chat.db.execution import Executor, Statement
from yral_chat.db.repositories.influencers import STATUS_RANK
from yral_chat.db.repositories.jobs import ERASE_JOB
from yral_chat.db.repositories.media import MediaObject
from yral_chat.db.tables import (
    audit_events,
    conversations,
    events,
    influencer_versions,
    influencers,
    jobs,
    media_objects,
    media_uses,
    messages,
    participants,
    principals,
    turns,
    usage_events,
    user_settings,
)

ERASED = "account.erased"  # in audit_events
NOBODY = ""  # whose use it was, once that is not to be known any more

_MOST: BindParameter[int] = bindparam("most")
_OWN_AI = and_(conversations.c.user_id == bindparam("user"), conversations.c.influencer_id.is_not(None))
# In the order of the unique index over both columns.
_AI_CONVERSATIONS = Statement(
    select(conversations.c.id, conversations.c.influencer_id)
    .where(_OWN_AI, conversations.c.influencer_id > bindparam("after"))
    .order_by(conversations.c.influencer_id)
    .limit(_MOST)
)
_HUMAN_CONVERSATIONS = Statement(
    select(conversations.c.id)
    .where(conversations.c.user_id == bindparam("user"), conversations.c.influencer_id.is_(None))
    .union_all(select(conversations.c.id).where(conversations.c.other_user_id == bindparam("user")))
)
_OWNED = Statement(
    select(influencers.c.id, influencers.c.created_at)
    .where(
        influencers.c.owner_id == bindparam("user"),
        influencers.c.created_at >= bindparam("time"),
        or_(influencers.c.created_at > bindparam("time"), influencers.c.id > bindparam("after")),
    )
    .order_by(influencers.c.created_at, influencers.c.id)
    .limit(_MOST)
)
_FILES = Statement(
    select(*(media_objects.c[name] for name in MediaObject.__struct_fields__))
    .where(
        media_objects.c.owner_id == bindparam("user"),
        media_objects.c.created_at >= bindparam("time"),
        or_(media_objects.c.created_at > bindparam("time"), media_objects.c.key > bindparam("after")),
        media_objects.c.is_stored.is_(True),
    )
    .order_by(media_objects.c.created_at, media_objects.c.key)
    .limit(_MOST)
)

_IN_CONVERSATION = messages.c.conversation_id == bindparam("conversation")
_OLDEST = select(messages.c.id).where(_IN_CONVERSATION).order_by(messages.c.seq).limit(_MOST)
_DELETE_OLDEST = Statement(delete(messages).where(messages.c.id.in_(_OLDEST)))
_SEQS_BY = Statement(
    select(messages.c.seq)
    .where(_IN_CONVERSATION, messages.c.sender_id == bindparam("sender"))
    .order_by(messages.c.seq)
    .limit(_MOST)
)
_DELETE_BY = Statement(
    delete(messages).where(
        _IN_CONVERSATION, messages.c.sender_id == bindparam("sender"), messages.c.seq <= bindparam("through")
    )
)
_DELETE_TURNS = Statement(delete(turns).where(turns.c.conversation_id == bindparam("conversation")))
_LEAVE = Statement(
    update(conversations)
    .where(conversations.c.id == bindparam("conversation"), conversations.c.user_id == bindparam("user"))
    .values(user_id=bindparam("nobody"), pair=None)
)
_LEAVE_AS_OTHER = Statement(
    update(conversations)
    .where(conversations.c.id == bindparam("conversation"), conversations.c.other_user_id == bindparam("user"))
    .values(other_user_id=bindparam("nobody"), pair=None)
)
_OF_SIDE = and_(
    participants.c.conversation_id == bindparam("conversation"), participants.c.principal_id == bindparam("side")
)
_LEAVE_SIDE = Statement(
    update(participants)
    .where(_OF_SIDE)
    .values(principal_id=bindparam("nobody"), is_hidden=True, unread_count=0, read_at=None)
)
_FEWER = Statement(
    update(participants)
    .where(_OF_SIDE)
    .values(unread_count=0, cleared_count=participants.c.cleared_count - bindparam("fewer"))
)

_KEYS = Statement(select(media_objects.c.key).where(media_objects.c.owner_id == bindparam("user")).limit(_MOST))
_DELETE_USES = Statement(delete(media_uses).where(media_uses.c.key == bindparam("file")))
_DELETE_FILE = Statement(delete(media_objects).where(media_objects.c.key == bindparam("file")))

_ERASE_INFLUENCER = Statement(
    update(influencers)
    .where(influencers.c.id == bindparam("influencer"))
    .values(
        name=bindparam("new_name"),
        name_key=bindparam("new_name"),
        display_name="Deleted Bot",
        avatar_url="",
        description="",
        category="",
        status="discontinued",
        status_rank=STATUS_RANK["discontinued"],
        owner_id=None,
        system_instructions="",
        initial_greeting="",
        suggested_messages="[]",
        personality_traits="{}",
        voice=None,
        seed_hash=None,
        card=None,
        status_before_ban=None,
        updated_at=bindparam("time"),
    )
)
_DELETE_VERSIONS = Statement(
    delete(influencer_versions).where(influencer_versions.c.influencer_id == bindparam("influencer"))
)

_UNNAMED = orjson.dumps({"influencer": None}).decode().strip("{}")
_TOLD_OF = (
    select(events.c.user_id, events.c.seq, events.c.data)
    .join(participants, participants.c.conversation_id == events.c.conversation_id)
    .where(
        participants.c.principal_id == bindparam("influencer"),
        participants.c.is_persona.is_(True),
        text("NOT participants.is_hidden"),  # as in the index; a persona never hides
        events.c.event == "new_message",
    )
    .limit(_MOST)
)
_EVENTS_NAMING = Statement(
    {
        "sqlite": _TOLD_OF.where(func.instr(events.c.data, _UNNAMED) == 0),
        "postgresql": _TOLD_OF.where(func.strpos(events.c.data, _UNNAMED) == 0),
    }
)
_REWRITE_EVENT = Statement(
    update(events)
    .where(events.c.user_id == bindparam("reader"), events.c.seq == bindparam("number"))
    .values(data=bindparam("new_data"))
)

_ANONYMISE_USAGE = Statement(
    update(usage_events)
    .where(
        usage_events.c.id.in_(select(usage_events.c.id).where(usage_events.c.user_id == bindparam("user")).limit(_MOST))
    )
    .values(user_id=NOBODY, conversation_id=NOBODY)
)
_DELETE_EVENTS = Statement(delete(events).where(events.c.user_id == bindparam("user")))
_DELETE_SETTINGS = Statement(delete(user_settings).where(user_settings.c.user_id == bindparam("user")))
_DELETE_PRINCIPAL = Statement(delete(principals).where(principals.c.id == bindparam("user")))
# A ban names the persona, and its owner had chosen the name.
_EMPTY_AUDIT = Statement(
    update(audit_events).where(audit_events.c.subject == bindparam("influencer")).values(details="{}")
)
_RENAME_SUBJECT = Statement(
    update(audit_events).where(audit_events.c.subject == bindparam("user")).values(subject=bindparam("nobody"))
)
_JOB = (jobs.c.id, jobs.c.name, jobs.c.payload)
# Not LIKE: ids have characters that mean something there.
_JOBS_NAMING = Statement(
    {
        "sqlite": select(*_JOB).where(func.instr(jobs.c.payload, bindparam("text")) > 0),
        "postgresql": select(*_JOB).where(func.strpos(jobs.c.payload, bindparam("text")) > 0),
    }
)
_REWRITE = Statement(
    update(jobs)
    .where(jobs.c.id == bindparam("job"))
    .values(id=bindparam("new_id"), payload=bindparam("new_payload"), run_at=bindparam("time"), attempts=0)
)
_DELETE_JOB = Statement(delete(jobs).where(jobs.c.id == bindparam("job")))
_ADD_AUDIT = Statement(insert(audit_events))
_FIRST_ERASED = Statement(
    select(func.min(audit_events.c.created_at)).where(
        audit_events.c.action == ERASED, audit_events.c.created_at > bindparam("time")
    )
)
_HAS_AUDIT = Statement(
    select(literal(1)).where(audit_events.c.id == bindparam("erasure"), audit_events.c.action == ERASED)
)
_ERASURES = Statement(select(audit_events.c.id).where(audit_events.c.action == ERASED))
_ERASURES_OF = Statement(
    select(audit_events.c.id).where(audit_events.c.subject == bindparam("pseudonym"), audit_events.c.action == ERASED)
)
_OF_JOB = and_(jobs.c.is_dead.is_(False), jobs.c.name == ERASE_JOB)
_IS_BEING_ERASED = Statement(
    {
        "sqlite": select(literal(1)).where(_OF_JOB, func.instr(jobs.c.payload, bindparam("text")) > 0).limit(1),
        "postgresql": select(literal(1)).where(_OF_JOB, func.strpos(jobs.c.payload, bindparam("text")) > 0).limit(1),
    }
)


class AccountRepository:
    """Rows of all tables that hold something of a person."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    # what there is

    def list_ai_conversations(self, user_id: str, after: str, most: int) -> list[tuple[str, str]]:
        """(conversation, influencer) of the next page, ordered by influencer; `after` is the last one's, or ""."""
        rows = self._executor.all(_AI_CONVERSATIONS, {"user": user_id, "after": after, "most": most})
        return [(row[0], row[1]) for row in rows]

    def list_human_conversations(self, user_id: str) -> list[str]:
        """Ids of all of them, deleted ones included that the other side still has."""
        return [row[0] for row in self._executor.all(_HUMAN_CONVERSATIONS, {"user": user_id})]

    def list_owned(self, user_id: str, after: tuple[int, str], most: int) -> list[tuple[int, str]]:
        """(created_at, id) of the next page of influencers, discontinued ones included; `after` is the last one's."""
        parameters = {"user": user_id, "time": after[0], "after": after[1], "most": most}
        return [(time, influencer_id) for influencer_id, time in self._executor.all(_OWNED, parameters)]

    def list_files(self, user_id: str, after: tuple[int, str], most: int) -> list[MediaObject]:
        """The next page of stored files; `after` is (created_at, key) of the last one."""
        parameters = {"user": user_id, "time": after[0], "after": after[1], "most": most}
        return [MediaObject(*row) for row in self._executor.all(_FILES, parameters)]

    # what goes

    def delete_messages(self, conversation_id: str, most: int) -> int:
        """Deletes the oldest; returns how many. The conversation and what it counts are the caller's matter."""
        return self._executor.run(_DELETE_OLDEST, {"conversation": conversation_id, "most": most})

    def delete_messages_by(self, conversation_id: str, sender_id: str, most: int) -> list[int]:
        """Deletes the oldest of this person; returns their numbers."""
        parameters: dict[str, Any] = {"conversation": conversation_id, "sender": sender_id}
        seqs = [seq for (seq,) in self._executor.all(_SEQS_BY, {**parameters, "most": most})]
        if seqs:
            self._executor.run(_DELETE_BY, {**parameters, "through": seqs[-1]})
        return seqs

    def delete_turns(self, conversation_id: str) -> None:
        """Whoever works on one finds that it is not in charge any more."""
        self._executor.run(_DELETE_TURNS, {"conversation": conversation_id})

    def uncount(self, conversation_id: str, side_id: str, fewer: int) -> None:
        """This side of a human chat has nothing unread, and has deleted `fewer` messages less than it counts."""
        self._executor.run(_FEWER, {"conversation": conversation_id, "side": side_id, "fewer": fewer})

    def leave(self, conversation_id: str, user_id: str, nobody: str) -> None:
        """`nobody` takes this person's side of a human chat; the pair may begin a new one."""
        parameters = {"conversation": conversation_id, "user": user_id, "nobody": nobody}
        self._executor.run(_LEAVE, parameters)
        self._executor.run(_LEAVE_AS_OTHER, parameters)
        self._executor.run(_LEAVE_SIDE, {"conversation": conversation_id, "side": user_id, "nobody": nobody})

    def delete_files(self, user_id: str, most: int) -> list[str]:
        """Forgets files of this person, whoever uses them; returns their keys. The files are the caller's to remove."""
        keys = [key for (key,) in self._executor.all(_KEYS, {"user": user_id, "most": most})]
        if keys:
            for statement in (_DELETE_USES, _DELETE_FILE):
                self._executor.run_many(statement, [{"file": key} for key in keys])
        return keys

    def unname_in_events(self, influencer_id: str, most: int) -> int:
        """Takes the influencer out of what others were told, so that no replay shows it; returns how many events."""
        found = self._executor.all(_EVENTS_NAMING, {"influencer": influencer_id, "most": most})
        for reader_id, seq, data in found:
            unnamed = orjson.dumps(orjson.loads(data) | {"influencer": None}).decode()
            self._executor.run(_REWRITE_EVENT, {"reader": reader_id, "number": seq, "new_data": unnamed})
        return len(found)

    def erase_influencer(self, influencer_id: str, new_name: str, time: int) -> None:
        """Discontinued, without a word of its owner's: what is left is an id for the conversations of others."""
        parameters = {"influencer": influencer_id, "new_name": new_name, "time": time}
        self._executor.run(_ERASE_INFLUENCER, parameters)
        for statement in (_DELETE_VERSIONS, _EMPTY_AUDIT):
            self._executor.run(statement, {"influencer": influencer_id})

    def anonymise_usage(self, user_id: str, most: int) -> int:
        """What was used stays counted, by nobody. Returns how many rows."""
        return self._executor.run(_ANONYMISE_USAGE, {"user": user_id, "most": most})

    def rewrite_jobs(self, user_id: str, anonymous: dict[str, Any], kept: str) -> None:
        """No queued job names this person.

        Those named `kept` stay without who it was: their payload takes the values of `anonymous`, under a new id and
        free to be taken, so that a run which has read the old payload cannot end.
        """
        found = self._executor.all(_JOBS_NAMING, {"text": orjson.dumps(user_id).decode()})
        for job_id, name, payload in found:
            if name == kept:
                rewritten = orjson.dumps(orjson.loads(payload) | anonymous).decode()
                self._executor.run(
                    _REWRITE, {"job": job_id, "new_id": new_id(), "new_payload": rewritten, "time": now()}
                )
            else:
                self._executor.run(_DELETE_JOB, {"job": job_id})

    def finish(self, user_id: str, pseudonym: str, erasure_id: str, details: Any, time: int) -> None:
        """What is left of the person goes; that it was erased stays under the pseudonym.

        `details` is JSON-ready and names nobody.
        """
        for statement in (_DELETE_EVENTS, _DELETE_SETTINGS, _DELETE_PRINCIPAL):
            self._executor.run(statement, {"user": user_id})
        self._executor.run(_RENAME_SUBJECT, {"user": user_id, "nobody": pseudonym})
        if not self.is_finished(erasure_id):
            row = {
                "id": erasure_id,
                "action": ERASED,
                "subject": pseudonym,
                "reason": "",
                "details": orjson.dumps(details).decode(),
                "created_at": time,
            }
            self._executor.run(_ADD_AUDIT, row)

    def is_finished(self, erasure_id: str) -> bool:
        """Whether this database has lived through that erasure."""
        return self._executor.one(_HAS_AUDIT, {"erasure": erasure_id}) is not None

    def find_erased_since(self, time: int) -> int | None:
        """When the first account was erased after `time`. Looks at the whole audit."""
        row = self._executor.one(_FIRST_ERASED, {"time": time})
        return None if row is None else row[0]

    def is_being_erased(self, user_id: str) -> bool:
        return self._executor.one(_IS_BEING_ERASED, {"text": orjson.dumps(user_id).decode()}) is not None

    def list_erasures(self, pseudonym: str | None = None) -> list[str]:
        """The ids of those that were finished, of one account or, by a look at the whole audit, of all."""
        if pseudonym is None:
            return [row[0] for row in self._executor.all(_ERASURES, {})]
        return [row[0] for row in self._executor.all(_ERASURES_OF, {"pseudonym": pseudonym})]
