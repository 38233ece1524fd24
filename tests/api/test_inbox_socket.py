"""The WebSocket of a person's inbox: contract section 10."""

import asyncio
import base64
import json
import os
import re
import socket as sockets
import time
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.api.conftest import MakeUser
from tests.api.expecting import newest, open_fresh, refused
from tests.api.sockets import DURABLE, Frames, address, closing, describe, inbox_of, names, seqs, socket_at
from tests.client import Api, Json, messages
from tests.rows import add_influencer
from tests.service import FakeModel, Service, token
from tests.waiting import until

EVENTS = {
    "new_message",
    "message_updated",
    "conversation_read",
    "conversation_deleted",
    "typing_status",
    "message_delta",
    "resync",
}


@pytest.fixture
async def frames(service: Service) -> Frames:
    return await describe(service.url)


def conversation_path(conversation: Json, action: str = "") -> str:
    return f"/api/v1/chat/conversations/{conversation['id']}{action}"


# --- the description


async def test_every_event_is_described_with_an_example_that_fits(service: Service, frames: Frames) -> None:
    document = frames.document
    assert document.keys() == {"events", "client_frames", "close_codes"}
    assert document["events"].keys() == EVENTS
    for name, event in document["events"].items():
        assert event.keys() == {"schema", "example"}
        Draft202012Validator.check_schema(event["schema"])
        assert event["example"]["event"] == name
        frames.check(event["example"])
        with pytest.raises(AssertionError):
            frames.check({**event["example"], "surprise": 1})
    assert document["close_codes"].keys() >= {"4001", "4003", "4008", "4029", "1009", "1012", "1013"}
    assert "ping" in document["client_frames"]


# --- who may listen


async def closing_at(where: str, *protocols: str) -> tuple[int, str]:
    """What the server closes with; it accepts first, so that browsers see it."""
    async with socket_at(where, *protocols) as socket:
        assert socket.response is not None
        assert socket.response.status_code == 101
        return await closing(socket)


async def test_the_token_may_come_in_the_query(api: Api, frames: Frames) -> None:
    async with inbox_of(api, frames) as inbox:
        assert inbox.socket.subprotocol is None


async def test_the_token_may_come_as_a_subprotocol(api: Api) -> None:
    where = address(api.url, api.user_id)
    async with socket_at(where, "bearer", token(api.user_id)) as socket:
        assert socket.subprotocol == "bearer"
        await socket.send("ping")
        assert await socket.recv() == "pong"


async def test_without_a_good_token_the_socket_closes_with_the_reason(api: Api) -> None:
    where, me = address(api.url, api.user_id), api.user_id
    assert await closing_at(where) == (4001, "Missing authentication token")
    assert await closing_at(f"{where}?token=") == (4001, "Missing authentication token")
    assert await closing_at(f"{where}?token=nonsense") == (4001, "Invalid token format")
    forged = token(me, secret="another-secret-of-more-than-thirty-two-bytes")
    assert await closing_at(f"{where}?token={forged}") == (4001, "Invalid token signature")
    assert await closing_at(f"{where}?token={token(me, ttl_seconds=-100)}") == (4001, "Token has expired")
    assert await closing_at(where, "bearer", token(me, iss="somebody")) == (4001, "Invalid token issuer")


@pytest.mark.parametrize("user_id", ["somebody-else", "%00", "🙂", "{user_id}", "x" * 3000])
async def test_the_inbox_of_somebody_else_is_closed(api: Api, user_id: str) -> None:
    code, reason = await closing_at(address(api.url, user_id, token=token(api.user_id)))
    assert (code, bool(reason)) == (4003, True)


async def test_a_socket_closes_when_its_token_expires(api: Api) -> None:
    expires_at = int(time.time()) + 2
    where = address(api.url, api.user_id, token=token(api.user_id, exp=expires_at))
    assert await closing_at(where) == (4001, "Token has expired")
    assert expires_at - 0.1 <= time.time() < expires_at + 2, "at exp, without the leeway"


async def test_an_eleventh_socket_replaces_the_oldest(api: Api, frames: Frames) -> None:
    open_sockets = [inbox_of(api, frames) for _ in range(12)]
    inboxes = [await manager.__aenter__() for manager in open_sockets]
    try:
        for oldest in inboxes[:2]:
            code, _ = await oldest.closed()
            assert code == 4008
        for inbox in inboxes[2:]:
            assert await inbox.settle() == []
    finally:
        for manager in open_sockets:
            await manager.__aexit__(None, None, None)


# --- what a client may send


async def test_ping_is_answered_and_everything_else_ignored(api: Api, frames: Frames) -> None:
    async with inbox_of(api, frames) as inbox:
        for frame in ("", "PING", " ping", '{"event": "ping"}', "x" * 4096, b"ping", b"\x00\xff", "🙂", b""):
            await inbox.socket.send(frame)
        await inbox.socket.send(["pi", "ng"])  # in two fragments
        assert await asyncio.wait_for(inbox.socket.recv(), 5) == "pong"
        assert await inbox.settle() == []
        await (await inbox.socket.ping())


@pytest.mark.parametrize("frame", ["x" * 4097, b"x" * 5000, "🙂" * 1025], ids=["text", "binary", "characters"])
async def test_a_large_frame_closes_the_socket(api: Api, frames: Frames, frame: Any) -> None:
    async with inbox_of(api, frames) as inbox:
        await inbox.socket.send(frame)
        code, _ = await inbox.closed()
        assert code == 1009


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\x81\x82\x00\x00\x00\x00\xff\xfe", 1007),  # text that is not UTF-8
        (b"\x81\x02hi", 1002),  # not masked
        (b"\x83\x80\x00\x00\x00\x00", 1002),  # an opcode that does not exist
        (b"\xf1\x80\x00\x00\x00\x00", 1002),  # reserved bits
        (b"\x80\x80\x00\x00\x00\x00", 1002),  # a continuation of nothing
    ],
    ids=["utf8", "mask", "opcode", "bits", "continuation"],
)
async def test_frames_against_the_protocol_end_only_their_socket(api: Api, raw: bytes, code: int) -> None:
    reader, writer = await shake_hands(api)
    writer.write(raw)
    answer = await asyncio.wait_for(reader.read(), 5)
    assert (answer[0], int.from_bytes(answer[2:4])) == (0x88, code)
    writer.close()
    await writer.wait_closed()
    assert (await api.get("/health/live")).status_code == 200


async def shake_hands(api: Api, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A socket without a library: nobody answers pings. `options` say how to connect."""
    host, port = api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(**(options or {"host": host, "port": int(port)}))
    path = address("", api.user_id, token=token(api.user_id), stream=1)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    return reader, writer


async def test_a_client_that_answers_no_ping_is_closed(impatient: Service, user_of: MakeUser) -> None:
    api = user_of(impatient)
    reader, writer = await shake_hands(api)
    received = await asyncio.wait_for(reader.read(), 10)
    assert received[0] == 0x89, "a ping"
    assert b"\x88" in received[6:], "then the end"
    writer.close()
    await writer.wait_closed()


# --- events


async def test_a_turn_is_told_as_it_goes(api: Api, service: Service, frames: Frames) -> None:
    conversation = await open_fresh(api, service, suggested_messages='["Hi"]')
    async with inbox_of(api, frames) as inbox:
        _, reply = await api.said(conversation["id"], "Hello")
        taken = await inbox.take_until("new_message")
        assert names(taken) == ["typing_status", "typing_status", "new_message"]
        typing = {"conversation_id": conversation["id"], "influencer_id": conversation["influencer_id"]}
        assert taken[0] == {"event": "typing_status", "seq": 0, "data": {**typing, "is_typing": True}}
        assert taken[1]["data"] == {**typing, "is_typing": False}
        assert taken[2] == {
            "event": "new_message",
            "seq": 1,
            "data": {
                "conversation_id": conversation["id"],
                "message": reply,
                "influencer_id": conversation["influencer_id"],
                "influencer": {**conversation["influencer"], "suggested_messages": None},
                "user": None,
                "unread_count": 2,
            },
        }
        assert await inbox.settle() == []


async def test_opening_a_conversation_and_replays_cause_no_event(api: Api, service: Service, frames: Frames) -> None:
    async with inbox_of(api, frames) as inbox:
        conversation = await open_fresh(api, service)
        assert await inbox.settle() == []
        await api.said(conversation["id"], "Hello", client_message_id="k")
        await inbox.take_until("new_message")
        await api.said(conversation["id"], "Hello", client_message_id="k")
        await api.stream(conversation["id"], "Hello", client_message_id="k")
        assert await inbox.settle() == []


async def test_deltas_come_to_those_who_ask_and_join_to_the_text(
    api: Api, service: Service, model: FakeModel, frames: Frames
) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"pieces": ["नम", "स्ते 🙂", " e\u0301", "!"], "chunk_delay": 0.1})
    async with inbox_of(api, frames, stream=1) as curious, inbox_of(api, frames) as content:
        _, reply = await api.said(conversation["id"], "Hello")
        taken = await curious.take_until("new_message")
        text = ""
        for delta in (frame["data"] for frame in taken if frame["event"] == "message_delta"):
            assert (delta["conversation_id"], delta["message_id"], delta["attempt"]) == (
                conversation["id"],
                reply["id"],
                1,
            )
            assert delta["offset"] == len(text)
            text += delta["text"]
        assert text == reply["content"] == "नमस्ते 🙂 e\u0301!"
        assert names(taken)[0] == "typing_status"
        assert "message_delta" not in names(await content.take_until("new_message"))


async def test_a_failed_reply_is_an_updated_message(
    api: Api, service: Service, model: FakeModel, frames: Frames
) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"status": 400})
    async with inbox_of(api, frames) as inbox:
        error = refused(await api.send(conversation["id"], "Hello"), 503, "ai_unavailable")
        taken = await inbox.take_until("message_updated")
        assert names(taken) == ["typing_status", "typing_status", "message_updated"]
        failed = error["details"]["assistant_message"]
        assert taken[-1]["data"] == {"conversation_id": conversation["id"], "message": failed}


async def test_a_cancelled_reply_is_an_updated_message(
    api: Api, service: Service, model: FakeModel, frames: Frames
) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"pieces": ["Half"], "stall_after": 1})
    async with inbox_of(api, frames, stream=1) as inbox:
        sending = asyncio.create_task(api.send(conversation["id"], "Hello"))
        await inbox.take_until("message_delta")
        reply = await newest(api, conversation["id"])
        stopped = (await api.post(f"{messages(conversation['id'])}/{reply['id']}/cancel")).json()
        taken = await inbox.take_until("message_updated")
        assert [frame["data"].get("is_typing") for frame in taken] == [False, None]
        assert taken[-1]["data"]["message"] == stopped
        refused(await sending, 409, "turn_cancelled")


async def test_a_regenerated_reply_is_an_updated_message(api: Api, service: Service, frames: Frames) -> None:
    conversation = await open_fresh(api, service)
    _, reply = await api.said(conversation["id"], "Hello")
    async with inbox_of(api, frames) as inbox:
        again = (await api.post(f"{messages(conversation['id'])}/{reply['id']}/regenerate")).json()
        taken = await inbox.take_until("message_updated")
        assert names(taken) == ["typing_status", "typing_status", "message_updated"]
        assert taken[-1]["data"]["message"] == again["assistant_message"]


async def test_a_failed_reply_that_is_run_again_is_a_new_message(
    api: Api, service: Service, model: FakeModel, frames: Frames
) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"status": 400})
    await api.send(conversation["id"], "Hello", client_message_id="k")
    model.reset()
    async with inbox_of(api, frames) as inbox:
        _, reply = await api.said(conversation["id"], "Hello", client_message_id="k")
        taken = await inbox.take_until("new_message")
        assert taken[-1]["data"]["message"] == reply


async def test_reading_and_deleting_are_told(api: Api, service: Service, frames: Frames) -> None:
    conversation = await open_fresh(api, service)
    async with inbox_of(api, frames) as inbox:
        mark = (await api.post(conversation_path(conversation, "/read"))).json()
        await api.delete(conversation_path(conversation))
        read, deleted = await inbox.take(), await inbox.take()
        assert (read["event"], read["seq"]) == ("conversation_read", 1)
        assert read["data"] == {
            "conversation_id": conversation["id"],
            "unread_count": 0,
            "read_at": mark["last_read_at"],
            "reader_id": api.user_id,
        }
        assert deleted == {"event": "conversation_deleted", "seq": 2, "data": {"conversation_id": conversation["id"]}}


async def test_deleting_stops_the_typing(api: Api, service: Service, model: FakeModel, frames: Frames) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"stall_after": 0})
    async with inbox_of(api, frames) as inbox:
        sending = asyncio.create_task(api.send(conversation["id"], "Hello"))
        await inbox.take_until("typing_status", is_typing=True)
        await api.delete(conversation_path(conversation))
        refused(await sending, 404, "not_found")
        first, second = await inbox.take(), await inbox.take()
        assert {first["event"], second["event"]} == {"typing_status", "conversation_deleted"}


async def test_the_owner_who_reads_is_told_and_the_user_is_not(
    api: Api, other: Api, service: Service, frames: Frames
) -> None:
    conversation = await api.open(add_influencer(service, owner_id=other.user_id))
    await api.said(conversation["id"], "Hello")
    async with inbox_of(api, frames) as of_user, inbox_of(other, frames) as of_owner:
        await other.post(conversation_path(conversation, "/read"))
        told = await of_owner.take()
        assert (told["event"], told["data"]["reader_id"]) == ("conversation_read", other.user_id)
        assert await of_user.settle() == []


async def test_all_sockets_of_a_user_and_nobody_elses_are_told(
    api: Api, other: Api, service: Service, frames: Frames
) -> None:
    conversation = await open_fresh(api, service)
    async with (
        inbox_of(api, frames) as first,
        inbox_of(api, frames) as second,
        inbox_of(other, frames) as stranger,
    ):
        await api.said(conversation["id"], "Hello")
        assert await first.take_until("new_message") == await second.take_until("new_message")
        assert await stranger.settle() == []


# --- replay


async def test_missed_events_come_first_and_in_order(api: Api, service: Service, frames: Frames) -> None:
    conversation = await open_fresh(api, service)
    async with inbox_of(api, frames) as inbox:
        await api.said(conversation["id"], "One")
        seen = await inbox.take_until("new_message")
    await api.post(conversation_path(conversation, "/read"))
    _, reply = await api.said(conversation["id"], "Two")
    async with inbox_of(api, frames, since=seen[-1]["seq"]) as inbox:
        missed = [await inbox.take(), await inbox.take()]
        assert names(missed) == ["conversation_read", "new_message"]
        assert seqs(missed) == [2, 3]
        assert missed[1]["data"]["message"] == reply
        assert await inbox.settle() == []
        await api.said(conversation["id"], "Three")
        assert seqs(await inbox.take_until("new_message")) == [4]
    async with inbox_of(api, frames, since=4) as inbox:
        assert await inbox.settle() == []
    async with inbox_of(api, frames, since=0) as inbox:
        assert seqs(await inbox.settle()) == [1, 2, 3, 4]


async def test_without_since_there_are_live_events_only(api: Api, service: Service, frames: Frames) -> None:
    conversation = await open_fresh(api, service)
    await api.said(conversation["id"], "One")
    async with inbox_of(api, frames) as inbox:
        assert await inbox.settle() == []
        await api.post(conversation_path(conversation, "/read"))
        assert seqs([await inbox.take()]) == [2]


@pytest.mark.parametrize("since", ["2", "-1", "x", "1.5", "9" * 30, "٣", "0x1"])
async def test_an_unknown_number_leads_to_resync(api: Api, service: Service, frames: Frames, since: str) -> None:
    conversation = await open_fresh(api, service)
    await api.post(conversation_path(conversation, "/read"))
    async with inbox_of(api, frames, since=since) as inbox:
        first = await inbox.take()
        assert (first["event"], first["seq"]) == ("resync", 1)
        assert first["data"]["reason"]
        await api.post(conversation_path(conversation, "/read"))
        assert seqs([await inbox.take()]) == [2]


async def test_events_that_are_no_longer_kept_lead_to_resync(impatient: Service, user_of: MakeUser) -> None:
    api, frames = user_of(impatient), await describe(impatient.url)
    conversation = await open_fresh(api, impatient)
    for _ in range(5):
        await api.post(conversation_path(conversation, "/read"))
    async with inbox_of(api, frames, since=1) as inbox:
        assert names(await inbox.settle()) == ["resync"]
    async with inbox_of(api, frames, since=2) as inbox:
        assert seqs(await inbox.settle()) == [3, 4, 5]


async def test_no_text_of_a_deleted_conversation_is_replayed(api: Api, service: Service, frames: Frames) -> None:
    first, second = await open_fresh(api, service), await open_fresh(api, service)
    await api.said(first["id"], "A secret")
    await api.said(second["id"], "Hello")
    await api.delete(conversation_path(first))
    async with inbox_of(api, frames, since=0) as inbox:
        taken = await inbox.settle()
        assert "A secret" not in json.dumps(taken)
    async with inbox_of(api, frames, since=1) as inbox:
        assert names(await inbox.settle()) == ["new_message", "conversation_deleted"]


async def test_replay_under_load_has_no_gap_and_no_repetition(
    api: Api, service: Service, model: FakeModel, frames: Frames
) -> None:
    """A socket that reconnects again and again, while events come, sees each of them once and in order."""
    conversations = [await open_fresh(api, service) for _ in range(4)]
    model.tell(default={"pieces": ["One", " two"], "chunk_delay": 0.004})

    async def talk(conversation: Json) -> None:
        for number in range(12):
            await api.said(conversation["id"], f"Message {number}")
            await api.post(conversation_path(conversation, "/read"))

    talking = asyncio.gather(*(talk(conversation) for conversation in conversations))
    seen: list[int] = []
    steady: list[int] = []

    async def listen_steadily() -> None:
        async with inbox_of(api, frames, since=0, stream=1) as inbox:
            while len(steady) < 96:
                steady.extend(seqs([await inbox.take()]))

    listening = asyncio.create_task(listen_steadily())
    while len(seen) < 96:
        async with inbox_of(api, frames, since=seen[-1] if seen else 0) as inbox:
            for _ in range(5):
                if len(seen) >= 96:
                    break
                frame = await inbox.take()
                assert frame["event"] != "resync"
                if frame["event"] in DURABLE:
                    seen.append(frame["seq"])
    await talking
    await listening
    assert seen == list(range(1, 97))
    assert steady == list(range(1, 97))


# --- a socket that cannot keep up, and the end


async def test_a_socket_that_takes_nothing_is_dropped_and_delays_nobody(
    api: Api, service: Service, model: FakeModel, frames: Frames
) -> None:
    conversation = await open_fresh(api, service)
    narrow = sockets.socket(sockets.AF_INET, sockets.SOCK_STREAM)
    narrow.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    narrow.setblocking(False)
    host, port = api.url.removeprefix("http://").split(":")
    await asyncio.get_running_loop().sock_connect(narrow, (host, int(port)))
    reader, writer = await shake_hands(api, sock=narrow, limit=2048)
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # from here on it takes nothing
    model.tell(default={"chunks": 12, "chunk_text": "x" * 40_000})
    async with inbox_of(api, frames) as brisk:
        for number in range(5):  # more than the buffers of both systems hold
            async with asyncio.timeout(10):
                _, reply = await api.said(conversation["id"], f"Much {number}")
                told = await brisk.take_until("new_message")
            assert told[-1]["data"]["message"]["id"] == reply["id"]
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    received = b""
    async with asyncio.timeout(10):
        while not re.search(rb"\x88.\x03\xf5", received, re.DOTALL):  # a close frame with 1013
            received = received[-100:] + await reader.read(65536)
            assert not reader.at_eof(), "cut without a reason"
    writer.close()
    await writer.wait_closed()


async def test_a_draining_server_asks_its_sockets_to_come_back(
    own_service: Service, user_of: MakeUser, model: FakeModel
) -> None:
    own_service.settings["SHUTDOWN_GRACE_SECONDS"] = "5"
    own_service.start()
    api, frames = user_of(own_service), await describe(own_service.url)
    conversation = await open_fresh(api, own_service)
    async with inbox_of(api, frames) as inbox:
        await api.post(conversation_path(conversation, "/read"))
        await inbox.take_until("conversation_read")
        stopping = asyncio.create_task(asyncio.to_thread(own_service.stop))
        code, reason = await inbox.closed()
        assert (code, "since" in reason) == (1012, True)
        assert await stopping == 0
    own_service.start()
    async with inbox_of(api, frames, since=0) as inbox:
        assert seqs(await inbox.settle()) == [1], "the replay outlives the process"


async def test_an_open_socket_counts_and_a_closed_one_does_not(api: Api, service: Service, frames: Frames) -> None:
    async def connections() -> float:
        text = (await api.get("/metrics")).text
        (line,) = [line for line in text.splitlines() if line.startswith("ws_connections ")]
        return float(line.split()[1])

    async def nobody() -> bool:
        return await connections() == 0

    await until(nobody, what="those of earlier tests to be forgotten")
    async with inbox_of(api, frames):
        assert await connections() == 1
    await until(nobody, what="the socket to be forgotten")
