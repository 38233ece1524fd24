"""What must hold at the end: in the database by itself, and between the database and what people saw."""

from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import orjson

from tests.history.record import READABLE, Json, Record, Reply
from tests.history.stored import Row, Stored
from tests.history.vendor import Call, RandomVendor
from yral_chat.core.clock import MILLISECOND

LAST_CONTENT = 1000
# Usage of what is asked behind the turns.
BEHIND = ("memories.", "conversations.")


def check_rows(stored: Stored, record: Record) -> None:
    """The database by itself: order, statuses, counts, summaries."""
    record.require(not stored.turns, "a turn is left", turns=stored.turns)
    record.require(not stored.jobs, "a job is left", jobs=stored.jobs)
    for conversation in stored.conversations.values():
        _check_order(conversation, stored.history[conversation.id], record)
        if conversation.influencer_id is not None:
            _check_pairs(stored.history[conversation.id], record)
        _check_summary(conversation, stored, record)
    for row in stored.messages.values():
        _check_status(row, record)
    _check_totals(stored, record)


def _check_order(conversation: Row, history: list[Row], record: Record) -> None:
    for one, other in pairwise(history):
        is_rising = one.seq < other.seq and one.created_at + MILLISECOND <= other.created_at
        record.require(is_rising, "messages out of order", one=one, other=other)
    if history:
        record.require(conversation.last_seq == history[-1].seq, "a wrong last_seq", is_=conversation)
        record.require(conversation.last_message_time >= history[-1].created_at, "a wrong last time", is_=conversation)


def _check_pairs(history: list[Row], record: Record) -> None:
    """Exactly one reply per user message, behind it, in the same conversation."""
    by_id = {row.id: row for row in history}
    replies = Counter(row.reply_to for row in history if row.origin == "model")
    for row in history:
        if row.role == "user":
            record.require(replies[row.id] == 1, "a message without exactly one reply", row=row, has=replies[row.id])
        elif row.origin == "model":
            question = by_id.get(row.reply_to)
            record.require(question is not None and question.seq < row.seq, "a reply to nothing", row=row)
        else:
            record.require(row.origin == "greeting" and row.seq == 1, "an unknown message", row=row)


def _check_status(row: Row, record: Record) -> None:
    require = record.require
    require(row.status not in ("pending", "streaming"), "a message is left unfinished", row=row)
    require((row.error_code is not None) == (row.status in ("failed", "cancelled")), "a wrong error", row=row)
    require((row.error_code == "CANCELLED") == (row.status == "cancelled"), "a wrong error", row=row)
    require(row.completed_at is not None and row.completed_at >= row.created_at, "a wrong completion", row=row)
    require(1 <= row.attempt <= row.last_attempt, "a wrong attempt", row=row)
    require(row.is_listed == (row.status in READABLE or row.content != ""), "listed or not", row=row)
    if row.status in READABLE:
        require(row.content, "a delivered message without text", row=row)


def _check_summary(conversation: Row, stored: Stored, record: Record) -> None:
    history = stored.history[conversation.id]
    listed = sum(row.is_listed for row in history)
    record.require(
        conversation.message_count == listed, "a wrong message_count", has=conversation.message_count, is_=listed
    )
    sides = {row.principal_id: row for row in stored.participants if row.conversation_id == conversation.id}
    if conversation.influencer_id is None:
        unread = {principal: _unread_of_side(side, history) for principal, side in sides.items()}
    else:
        unread = {
            conversation.user_id: sum(row.role == "assistant" and row.status == "delivered" for row in history),
            conversation.influencer_id: sum(row.role == "user" and row.status == "delivered" for row in history),
        }
    has = {principal: row.unread_count for principal, row in sides.items()}
    record.require(has == unread, "a wrong unread_count", has=has, is_=unread)
    for row in sides.values():
        record.require(row.updated_at == conversation.updated_at, "an inbox out of step", row=row, is_=conversation)
    _check_last(conversation, history, record)


def _unread_of_side(side: Row, history: list[Row]) -> int:
    """What one of two people has not read: of a hidden side, nothing."""
    news = [row for row in history if row.seq > side.cleared_seq and row.sender_id != side.principal_id]
    return 0 if side.is_hidden else sum(row.status == "delivered" for row in news)


def check_talks(stored: Stored, record: Record) -> None:
    """Between two people: only they speak, each sees what is not cleared, and the other was told of everything once."""
    told = {
        (user, _data(row).get("message", {}).get("id")) for user, log in stored.events.items() for row in log.values()
    }
    for conversation in stored.conversations.values():
        if conversation.influencer_id is not None:
            continue
        pair = {conversation.user_id, conversation.other_user_id}
        sides = [row for row in stored.participants if row.conversation_id == conversation.id]
        record.require({row.principal_id for row in sides} == pair, "a talk with other sides", is_=sides)
        record.require(not all(row.is_hidden for row in sides), "a talk that nobody sees", id=conversation.id)
        history = stored.history[conversation.id]
        for side in sides:
            cleared = sum(row.seq <= side.cleared_seq for row in history)
            record.require(side.cleared_count == cleared, "a wrong cleared_count", side=side, is_=cleared)
        for row in history:
            is_said = row.sender_id in pair and row.role == "user" and row.status in READABLE
            record.require(is_said, "a message of nobody in a talk", row=row)
            if conversation.id in record.pairs.values():
                (reader,) = pair - {row.sender_id}
                record.require((reader, row.id) in told, "a message without its event", row=row)


def _check_last(conversation: Row, history: list[Row], record: Record) -> None:
    last = next((row for row in reversed(history) if row.is_listed and row.status != "failed"), None)
    is_ = None if last is None else (last.id, last.content[:LAST_CONTENT], last.role, last.status, last.created_at)
    has = (conversation.last_id, conversation.last_content, conversation.last_role, conversation.last_status,
           conversation.last_created_at)  # fmt: skip
    record.require(has == (is_ or (None,) * 5), "a wrong last message", has=has, is_=is_)


def _check_totals(stored: Stored, record: Record) -> None:
    deltas = stored.deltas
    record.require(not deltas, "counts that were not folded", deltas=deltas)
    has = (stored.counters.get("conversations", 0), stored.counters.get("messages", 0))
    is_ = (len(stored.conversations), sum(row.message_count for row in stored.conversations.values()))
    record.require(has == is_, "wrong totals (conversations, messages)", has=has, is_=is_)
    conversations = Counter(row.influencer_id for row in stored.conversations.values())
    of_people = Counter(row.user_id for row in stored.conversations.values() if row.influencer_id is not None)
    talks = Counter(row.principal_id for row in stored.participants if row.type == "human_chat" and not row.is_hidden)
    for influencer in stored.influencers.values():
        record.require(
            influencer.conversation_count == conversations[influencer.id], "a wrong conversation_count",
            has=influencer.conversation_count, is_=conversations[influencer.id],
        )  # fmt: skip
    for principal in stored.principals.values():
        record.require(
            principal.ai_conversations == of_people[principal.id], "a wrong number of conversations",
            has=principal.ai_conversations, is_=of_people[principal.id],
        )  # fmt: skip
        record.require(
            principal.human_conversations == talks[principal.id], "a wrong number of talks",
            has=principal.human_conversations, is_=talks[principal.id],
        )  # fmt: skip


def check_popularity(stored: Stored, record: Record, passing: str) -> None:
    """User messages of all time; for the persona whose conversations are deleted, at least those that are left."""
    said = Counter(
        stored.conversations[row.conversation_id].influencer_id
        for row in stored.messages.values()
        if row.role == "user"
    )
    for influencer in stored.influencers.values():
        has, is_ = influencer.message_count, said[influencer.id]
        record.require(has >= is_ if influencer.id == passing else has == is_, "a wrong popularity", has=has, is_=is_)


def check_acknowledged(stored: Stored, record: Record) -> None:
    """Nothing that somebody was told is lost, and nothing was stored twice."""
    keys = Counter(
        (row.conversation_id, row.sender_id, row.client_message_id)
        for row in stored.messages.values()
        if row.client_message_id
    )
    record.require(all(number == 1 for number in keys.values()), "a key twice", keys=keys.most_common(3))
    contents: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in stored.messages.values():
        if row.role == "user":
            contents[row.conversation_id, row.content].append(row.id)
    for sent in record.sent:
        if sent.conversation_id in record.doomed:
            continue
        found = contents[sent.conversation_id, sent.content]
        facts = {"content": sent.content, "key": sent.key, "acknowledged": sent.ids, "stored": found}
        record.require(sent.ids <= set(found), "an acknowledged message is lost", **facts)
        record.require(len(found) <= 1, "a message is stored twice", **facts)
        record.require(found or not sent.ids, "an acknowledged message is lost", **facts)
        record.require(not found or sent.ids or sent.is_open, "a refused message was stored", **facts)
    for conversation in record.opened:
        if conversation in record.deleted:
            record.require(conversation not in stored.conversations, "deleted, and there", id=conversation)
        elif conversation not in record.doomed:
            record.require(conversation in stored.conversations, "a conversation is lost", id=conversation)
    for message in record.messages.values():
        if message["conversation_id"] not in record.doomed:
            record.require(message["id"] in stored.messages, "a message that was shown is lost", message=message)


def check_replies(stored: Stored, record: Record, vendor: RandomVendor) -> None:
    """Every reply is what its readers saw of its attempt, and comes out of one call for its own question."""
    for row in stored.messages.values():
        if row.origin != "model" or row.conversation_id in record.doomed:
            continue
        reply = record.replies.get(row.id)
        if reply is not None:
            _check_seen(row, reply, record)
        _check_origin(row, stored.messages[row.reply_to], vendor.calls, record)


def _check_seen(row: Row, reply: Reply, record: Record) -> None:
    require = record.require
    newest = max(reply.attempt_since, default=0)
    require(row.attempt >= newest, "an older attempt is stored", row=row, seen=newest)
    ended = reply.ended.get(row.attempt)
    if ended is not None:
        is_same = (ended["status"] in READABLE) == (row.status in READABLE)
        require(is_same and ended["content"] == row.content, "another end is stored", row=row, seen=ended)
    if reply.delivered_since is not None:
        require(row.status in READABLE, "a delivered reply was lost", row=row)
    text = reply.texts.get(row.attempt, "")
    is_blocked = row.error_code == "BLOCKED_CONTENT"
    require(is_blocked or row.content.startswith(text), "a stream is not its reply", row=row, seen=text)
    if row.attempt in reply.stops:
        code, text = reply.stops[row.attempt]
        require(row.error_code == code, "another failure is stored", row=row, seen=(code, text))
        require(is_blocked or row.content == text, "a failed stream is not its reply", row=row, seen=text)
    for attempt, offset, text in reply.deltas:
        whole = row.content if attempt == row.attempt and not is_blocked else reply.texts.get(attempt, "")
        piece = whole[offset : offset + len(text)]
        is_known = attempt == row.attempt and not is_blocked
        require(piece == text if is_known else text.startswith(piece), "a delta is not its reply", row=row, seen=text)
    delivered = [attempt for attempt, end in reply.ended.items() if end["status"] in READABLE]
    require(len(delivered) <= 1 or reply.is_regenerated, "two replies to one message", row=row, attempts=delivered)


def _check_origin(row: Row, question: Row, calls: list[Call], record: Record) -> None:
    if not row.content:
        return
    number, _, _ = row.content.removeprefix("[").partition("]")
    if not number.isdigit() or not row.content.startswith(f"[{number}]"):
        record.require(row.status not in READABLE and "[".startswith(row.content[:1]), "an unknown text", row=row)
        return
    call = calls[int(number)] if int(number) < len(calls) else None
    if row.status in READABLE:
        is_whole = call is not None and call.text == row.content and call.is_complete
        record.require(is_whole, "a reply is not one whole answer", row=row, call=call)
        record.require(call is None or call.question == question.content, "an answer to another question", row=row)
    elif call is not None and call.question == question.content:
        record.require(call.text.startswith(row.content), "a part of no answer", row=row, call=call)


def check_prompts(stored: Stored, record: Record, vendor: RandomVendor) -> None:
    """What the vendor was shown before each question: the true history, and nothing that failed."""
    record.require(not vendor.refused, "prompts that no vendor takes", number=vendor.refused)
    questions = {row.content: row for row in stored.messages.values() if row.role == "user"}
    for call in vendor.calls:
        question = questions.get(call.question)
        if question is None or question.conversation_id in record.doomed:
            continue
        _check_prompt(call, question, stored, vendor.calls, record)


def _check_prompt(call: Call, question: Row, stored: Stored, calls: list[Call], record: Record) -> None:
    before = [row for row in stored.history[question.conversation_id] if row.seq < question.seq]
    said = [row.content for row in before if row.role == "user"]
    shown = [text for role, text in call.prompt if role == "user"]
    record.require(said[len(said) - len(shown) :] == shown, "a prompt without the history", call=call, said=said[-12:])
    by_content = {row.content: row for row in before if row.role == "user"}
    expected: Row | None = None  # the user message whose answer has to come next, if it was delivered at once
    for role, text in [*call.prompt, ("user", call.question)]:
        if role == "user":
            if expected is not None:
                reply = stored.reply_to[expected.id]
                is_missing = reply.status in READABLE and reply.last_attempt == 1
                record.require(not is_missing, "a prompt without a delivered reply", call=call, reply=reply)
            expected = by_content.get(text)
        elif expected is not None:
            _check_shown_reply(text, expected, stored.reply_to[expected.id], calls, call, record)
            expected = None


def _check_shown_reply(text: str, question: Row, reply: Row, calls: list[Call], call: Call, record: Record) -> None:
    number = text.removeprefix("[").partition("]")[0]
    source = calls[int(number)] if number.isdigit() and int(number) < len(calls) else None
    is_whole = source is not None and source.text == text and source.question == question.content
    record.require(is_whole, "a prompt with something that is no reply", text=text, call=call)
    record.require(source is None or source.is_complete, "a prompt with a failed reply", text=text, call=call)
    is_failed = reply.status not in READABLE and reply.content == text
    record.require(not is_failed, "a prompt with a failed reply", text=text, reply=reply)


def check_usage(stored: Stored, record: Record) -> None:
    """Every delivered attempt was paid for, once."""
    usage = [row for row in stored.usage if not row.id.startswith(BEHIND)]
    paid = Counter((row.turn_id, row.attempt) for row in usage if row.outcome in ("completed", "truncated"))
    record.require(all(number == 1 for number in paid.values()), "paid twice", paid=paid.most_common(3))
    recorded = {(row.turn_id, row.attempt) for row in usage}
    for row in stored.messages.values():
        if row.origin != "model":
            continue
        if row.status in READABLE:
            record.require((row.id, row.attempt) in paid, "a delivered reply without its usage", row=row)
            tokens = {
                paying.output_tokens
                for paying in usage
                if (paying.turn_id, paying.attempt) == (row.id, row.attempt)
                and paying.outcome in ("completed", "truncated")
            }
            record.require(row.token_count in tokens, "other tokens than paid for", row=row, paid=tokens)
        for attempt in range(1, row.attempt):
            reply = record.replies.get(row.id)
            was_delivered = reply is not None and reply.ended.get(attempt, {}).get("status") in READABLE
            record.require(
                not was_delivered or (row.id, attempt) in recorded, "an attempt without usage", row=row, n=attempt
            )


def check_events(stored: Stored, record: Record) -> None:
    """The log is whole, tells of every message once, and equals what the sockets said."""
    has_deleted = record.forgetful | {
        record.opened[conversation] for conversation in record.doomed if conversation in record.opened
    }
    for user, log in stored.events.items():
        newest = stored.principals[user].last_event_seq
        record.require(max(log) == newest, "a log with another end", user=user, has=max(log), is_=newest)
        if user not in has_deleted:
            record.require(sorted(log) == list(range(1, newest + 1)), "a log with holes", user=user, has=sorted(log))
        told = Counter(_data(row)["message"]["id"] for row in log.values() if row.event == "new_message")
        record.require(all(number == 1 for number in told.values()), "told twice", told=told.most_common(3))
    for (user, seq), frame in record.durable.items():
        row = stored.events[user].get(seq)
        if row is None:
            record.require(user in has_deleted, "an event that was not stored", frame=frame)
            continue
        record.require(
            (row.event, _data(row)) == (frame["event"], frame["data"]), "another event is stored", frame=frame
        )
    told_of = {_data(row).get("message", {}).get("id") for log in stored.events.values() for row in log.values()}
    for row in stored.messages.values():
        if row.origin == "model" and row.status in READABLE:
            record.require(row.id in told_of, "a delivered reply without an event", row=row)


def _data(row: Row) -> Json:
    data: dict[str, Any] = orjson.loads(row.data)
    return data
