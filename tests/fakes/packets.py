"""How the events of an answer travel."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec

from tests.fakes.answers import Event, finish_reason, texts_of
from tests.fakes.behaviour import Behaviour, Wire
from tests.fakes.gemini_wire import gemini_chunk, gemini_content, gemini_events
from tests.fakes.openai_wire import openai_chunk, openai_events, openai_usage

# Long enough for the reader to see two writes as two packets.
PACKET_PAUSE_SECONDS = 0.003


class Packet(msgspec.Struct, frozen=True):
    """Bytes that are written at once, after `pause` seconds; or the point at which nothing more comes.

    With it the answer has cost `output` tokens; None: it changes nothing. `tells_usage`: it says so.
    """

    data: bytes = b""
    pause: float = 0.0
    stalls: bool = False
    output: int | None = None
    tells_usage: bool = False


@lru_cache(maxsize=64)
def packets_of(wire: Wire, behaviour: Behaviour, model: str, wants_usage: bool) -> tuple[Packet, ...]:
    """Encoded once for every behaviour: the fake must not cost what is measured."""
    packets = list(build_packets(wire, behaviour, model, wants_usage))
    if behaviour.is_last_line_open:
        packets[-1] = msgspec.structs.replace(packets[-1], data=packets[-1].data.rstrip(b"\r\n"))
    return tuple(packets)


def build_packets(wire: Wire, behaviour: Behaviour, model: str, wants_usage: bool) -> Iterator[Packet]:
    texts = 0
    waiting = b""  # the first of a pair
    for event in events(wire, behaviour, model, wants_usage):
        if behaviour.stall_after == texts:
            yield Packet(stalls=True)
        pause = behaviour.chunk_delay if texts and event.is_text else 0.0
        texts += event.is_text
        data = frame(event.data, behaviour)
        output = None if event.data.startswith((b'{"error"', b"[DONE]")) else texts
        tells_usage = b'"usageMetadata":{' in data or b'"usage":{' in data
        if behaviour.packets == "pairs":
            if waiting:
                tells_usage = tells_usage or b'"usageMetadata":{' in waiting or b'"usage":{' in waiting
                yield Packet(waiting + data, pause, output=texts, tells_usage=tells_usage)
            waiting = b"" if waiting else data
        elif behaviour.packets == "event":
            yield Packet(data, pause, output=output, tells_usage=tells_usage)
        else:
            split = inside_a_character(data) if behaviour.packets == "split_character" else len(data) // 2
            yield Packet(data[:split], pause or PACKET_PAUSE_SECONDS)
            yield Packet(data[split:], PACKET_PAUSE_SECONDS, output=output, tells_usage=tells_usage)
    if waiting:
        yield Packet(waiting, output=texts)


def frame(data: bytes, behaviour: Behaviour) -> bytes:
    newline = behaviour.newline.encode()
    comment = b": still here" + newline + newline if behaviour.has_comments else b""
    return comment + b"data: " + data + newline + newline


def inside_a_character(data: bytes) -> int:
    """The place after the first byte of the first character that has several."""
    return next((at + 1 for at, byte in enumerate(data) if byte >= 0xC0), len(data) // 2)


def events(wire: Wire, behaviour: Behaviour, model: str, wants_usage: bool) -> Iterator[Event]:
    if wire == "gemini":
        yield from gemini_events(behaviour, model)
    else:
        yield from openai_events(behaviour, model, wants_usage)


def whole_answer(wire: Wire, behaviour: Behaviour, model: str) -> dict[str, Any]:
    """The answer as one object."""
    text = "".join(texts_of(behaviour))
    finish = finish_reason(wire, behaviour)
    if wire == "openai":
        if behaviour.block_reason is not None:
            finish, text = "content_filter", ""
        message = {"role": "assistant", "content": text}
        choices = [{"index": 0, "message": message, "finish_reason": finish}] if behaviour.has_candidates else []
        usage = {"usage": openai_usage(behaviour, len(texts_of(behaviour)))} if behaviour.has_usage else {}
        return {**openai_chunk(behaviour, model, choices, **usage), "object": "chat.completion"}
    if behaviour.block_reason is not None:
        feedback = {"promptFeedback": {"blockReason": behaviour.block_reason}}
        return {**feedback, **gemini_chunk(behaviour, model, output=0)}
    ending = {"finishReason": finish} if finish else {}
    return gemini_chunk(behaviour, model, output=len(texts_of(behaviour)), content=gemini_content(text), **ending)
