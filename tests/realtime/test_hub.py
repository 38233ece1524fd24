"""Streams and sockets: every reader gets everything once, in order, however late or slow."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yral_chat.core.objects import Message
from yral_chat.realtime import hub as realtime
from yral_chat.realtime.hub import Hub, Listener, ReplyStream, parse_event_id, sse_frame

QUESTION: Message = {"id": "question"}  # type: ignore[typeddict-item] # its content does not matter here
END = sse_frame("done", "1-done", {})


def idle(attempt: int, place: int) -> bytes:
    return sse_frame("idle", f"{attempt}-{place}", {})


def parsed(frames: list[bytes]) -> list[tuple[str, str, Any]]:
    """(id, event, data) of each frame that is not a heartbeat."""
    events = []
    for frame in frames:
        if frame.startswith(b":"):
            continue
        lines = dict(line.split(": ", 1) for line in frame.decode().strip().split("\n"))
        events.append((lines["id"], lines["event"], json.loads(lines["data"])))
    return events


async def collect(stream: ReplyStream, last_event_id: str | None = None, *, seconds: float = 5) -> list[bytes]:
    following = stream.follow(last_event_id, heartbeat_seconds=seconds, idle_seconds=seconds, idle_frame=idle)
    return [frame async for frame in following]


def text_of(frames: list[bytes]) -> str:
    return "".join(data["text"] for _, event, data in parsed(frames) if event == "token")


@given(
    pieces=st.lists(st.text(min_size=1, max_size=5), max_size=10),
    joins=st.lists(st.tuples(st.integers(0, 10), st.integers(0, 50)), max_size=5),
)
def test_readers_that_join_anywhere_get_the_text_from_their_place(
    pieces: list[str], joins: list[tuple[int, int]]
) -> None:
    async def scenario() -> None:
        stream = ReplyStream(QUESTION, "reply", 1)
        readers: list[tuple[int, asyncio.Task[list[bytes]]]] = []
        for number in range(len(pieces) + 1):
            for after, wish in joins:
                if after == number:
                    place = min(wish, len(stream.text))
                    readers.append((place, asyncio.create_task(collect(stream, f"1-{place}"))))
            await asyncio.sleep(0)
            if number < len(pieces):
                stream.append(pieces[number])
        stream.end(END, None)
        whole = "".join(pieces)
        assert stream.text == whole
        for place, reader in readers:
            frames = await reader
            assert text_of(frames) == whole[place:]
            assert frames[-1] == END
            lengths = [int(event_id.split("-")[1]) for event_id, event, _ in parsed(frames) if event == "token"]
            assert lengths == sorted(set(lengths))

    asyncio.run(scenario())


async def test_listeners_in_step_share_the_same_bytes() -> None:
    stream = ReplyStream(QUESTION, "reply", 1)
    readers = [asyncio.create_task(collect(stream)) for _ in range(3)]
    for piece in ("one", "two"):
        await asyncio.sleep(0)
        stream.append(piece)
    await asyncio.sleep(0)
    stream.end(END, None)
    results = [await reader for reader in readers]
    assert all(a is b for a, b in zip(results[0][1:], results[1][1:], strict=True))


async def test_a_new_attempt_begins_anew_for_everybody() -> None:
    stream = ReplyStream(QUESTION, "reply", 1)
    reader = asyncio.create_task(collect(stream))
    stream.append("lost")
    await asyncio.sleep(0.01)
    stream.restart(2)
    stream.append("kept")
    stream.end(END, None)
    events = [(event_id, event) for event_id, event, _ in parsed(await reader)]
    assert events == [("1-0", "start"), ("1-4", "token"), ("2-0", "start"), ("2-4", "token"), ("1-done", "done")]


async def test_silence_brings_heartbeats_and_then_the_idle_frame() -> None:
    stream = ReplyStream(QUESTION, "reply", 3)
    following = stream.follow("3-0", heartbeat_seconds=0.01, idle_seconds=0.05, idle_frame=idle)
    frames = [frame async for frame in following]
    assert frames[0] == b": ping\n\n"
    assert frames[-1] == idle(3, 0)


def test_event_ids_of_other_attempts_or_shapes_are_none_of_ours() -> None:
    assert parse_event_id("2-7", 2, 7) == 7
    assert parse_event_id("2-done", 2, 7) == 7
    for odd in ("1-7", "2-8", "2-x", "2-", "-", "", "2-²", "2--1", "2-9999999999", None):
        assert parse_event_id(odd, 2, 7) is None, odd


# sockets


def drain(listener: Listener) -> list[Any]:
    frames = []
    while listener._frames:
        seq, frame = listener._frames.popleft()
        if not 0 < seq <= (listener.replayed_through or 0):
            frames.append(json.loads(frame))
    return frames


@given(order=st.permutations(range(1, 9)), newest=st.integers(0, 8), begins_after=st.integers(0, 8))
def test_durable_events_leave_in_order_without_gap_or_repetition(
    order: list[int], newest: int, begins_after: int
) -> None:
    async def scenario() -> None:
        hub = Hub(max_sockets_per_user=10)
        listener = hub.connect("user", wants_deltas=False)
        for place, seq in enumerate(order):
            if place == begins_after:
                hub.begin(listener, newest)
            hub.publish("user", "new_message", {"n": seq}, seq=seq)
        if begins_after == len(order):
            hub.begin(listener, newest)
        assert [frame["seq"] for frame in drain(listener)] == list(range(newest + 1, 9))
        hub.disconnect(listener)

    asyncio.run(scenario())


async def test_who_would_miss_an_event_is_sent_to_the_replay() -> None:
    """It was committed, and nobody here was told of it: the answer was lost, or comes late."""
    hub = Hub(max_sockets_per_user=10)
    listener = hub.connect("user", wants_deltas=False)
    hub.begin(listener, 0)
    hub.publish("user", "new_message", {}, seq=1)
    hub.publish("user", "new_message", {}, seq=3)
    taken = [await listener.take()]
    async with asyncio.timeout(realtime.GAP_SECONDS + 5):
        taken.append(await listener.take())
    assert [frame and json.loads(frame)["seq"] for frame in taken] == [1, None]
    assert listener.closed == (realtime.DRAINING, "an event is missing here: reconnect with since")
    again = hub.connect("user", wants_deltas=False)
    hub.disconnect(listener)
    hub.begin(again, 3)
    hub.publish("user", "new_message", {}, seq=2)
    hub.publish("user", "new_message", {}, seq=4)
    assert [frame["seq"] for frame in drain(again)] == [4]


async def test_who_has_it_by_replay_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realtime, "GAP_SECONDS", 0.05)
    hub = Hub(max_sockets_per_user=10)
    listener, later, beginning = (hub.connect("user", wants_deltas=False) for _ in range(3))
    hub.begin(listener, 0)
    hub.publish("user", "new_message", {}, seq=2)
    hub.begin(later, 2)
    assert await listener.take() is None
    assert (later.closed, beginning.closed) == (None, listener.closed)
    hub.publish("user", "new_message", {}, seq=3)
    assert [frame["seq"] for frame in drain(later)] == [3]


async def test_each_gap_has_its_own_time() -> None:
    hub = Hub(max_sockets_per_user=10)
    listener = hub.connect("user", wants_deltas=False)
    hub.begin(listener, 0)
    timers = []
    for seq in (2, 3, 5, 1, 4):  # 1 is missing until it comes, and then 4
        hub.publish("user", "new_message", {}, seq=seq)
        timers.append(hub._inboxes["user"].timer)
    first, same, still_the_same, second, none = timers
    assert first is same is still_the_same is not second
    assert [timer and timer.cancelled() for timer in (first, second, none)] == [True, True, None]
    assert [frame["seq"] for frame in drain(listener)] == [1, 2, 3, 4, 5]


async def test_live_events_carry_the_newest_number_and_deltas_go_where_they_are_wanted() -> None:
    hub = Hub(max_sockets_per_user=10)
    plain, eager = hub.connect("user", wants_deltas=False), hub.connect("user", wants_deltas=True)
    for listener in (plain, eager):
        hub.begin(listener, 41)
    hub.publish("user", "new_message", {}, seq=42)
    hub.publish("user", "typing_status", {"is_typing": False})
    hub.publish_delta("user", lambda: {"text": "x"})
    assert [(frame["event"], frame["seq"]) for frame in drain(plain)] == [("new_message", 42), ("typing_status", 42)]
    assert [frame["event"] for frame in drain(eager)] == ["new_message", "typing_status", "message_delta"]


async def test_a_slow_socket_is_dropped_and_the_others_go_on() -> None:
    hub = Hub(max_sockets_per_user=10)
    slow, quick = hub.connect("user", wants_deltas=False), hub.connect("user", wants_deltas=False)
    for listener in (slow, quick):
        hub.begin(listener, 0)
    for seq in range(1, realtime.MAX_WAITING_FRAMES + 2):
        hub.publish("user", "new_message", {}, seq=seq)
        assert (await quick.take()) is not None
    assert slow.closed == (realtime.TOO_SLOW, "the socket cannot keep up")
    assert await slow.take() is None
    assert quick.closed is None
    assert (hub.counts.slow_closed, hub.counts.events_sent) == (1, realtime.MAX_WAITING_FRAMES + 1)


@pytest.mark.parametrize("sign", ["x", "न"])
async def test_large_frames_count_by_their_bytes(sign: str) -> None:
    hub = Hub(max_sockets_per_user=10)
    listener = hub.connect("user", wants_deltas=False)
    hub.begin(listener, 0)
    half = realtime.MAX_WAITING_BYTES // 2 // len(sign.encode())
    for seq in range(1, 4):
        hub.publish("user", "new_message", {"text": sign * half}, seq=seq)
    assert listener.closed is not None
    assert listener.closed[0] == realtime.TOO_SLOW


async def test_the_oldest_socket_gives_way() -> None:
    hub = Hub(max_sockets_per_user=2)
    first, second, third = (hub.connect("user", wants_deltas=False) for _ in range(3))
    assert first.closed is not None
    assert first.closed[0] == realtime.REPLACED
    assert (second.closed, third.closed) == (None, None)
    for listener in (first, second, third):
        hub.disconnect(listener)
    assert not hub.is_listening("user")
