"""The parser of server-sent events gives the same events however the bytes arrive."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yral_chat.clients.sse import EventParser, EventTooLarge

LINES = st.sampled_from(
    [
        "",
        "",
        "data: one",
        "data:two",
        "data:  three",
        "data",
        "data:",
        'data: {"text":"😀 é नमस्ते"}',
        ": comment",
        ":",
        "event: message",
        "id: 7",
        "retry: 10",
        "database: not data",
        "data : not data either",
        "nonsense",
    ]
)
NEWLINES = st.sampled_from(["\n", "\r\n", "\r"])
STREAMS = st.lists(st.tuples(LINES, NEWLINES), max_size=30)


def reference(stream: str) -> list[bytes]:
    """The specification, read slowly, over the whole stream; the event at its end counts without its blank line."""
    text = stream.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    events: list[str] = []
    data: list[str] = []
    for line in [*text.split("\n"), ""]:
        name, _, value = line.partition(":")
        if line == "":
            events.append("\n".join(data))
            data = []
        elif name == "data":
            data.append(value.removeprefix(" "))
    return [event.encode() for event in events if event]


def parse(packets: list[bytes]) -> list[bytes]:
    parser = EventParser()
    events = [event for packet in packets for event in parser.feed(packet)]
    return events + parser.flush()


@given(STREAMS, st.booleans(), st.data())
def test_any_split_gives_the_events_of_the_specification(
    lines: list[tuple[str, str]], has_bom: bool, data: st.DataObject
) -> None:
    stream = ("\ufeff" if has_bom else "") + "".join(line + newline for line, newline in lines)
    raw = stream.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    packets = [raw[start:end] for start, end in pairwise([0, *cuts, len(raw)])]
    assert parse(packets) == reference(stream)


@given(STREAMS)
def test_byte_by_byte_gives_the_same(lines: list[tuple[str, str]]) -> None:
    raw = "".join(line + newline for line, newline in lines).encode()
    assert parse([raw[at : at + 1] for at in range(len(raw))]) == parse([raw])


def test_an_event_is_given_with_the_packet_that_ends_it() -> None:
    parser = EventParser()
    assert parser.feed(b"data: a\r") == []
    assert parser.feed(b"\r") == [b"a"]  # a bare CR ends the line; nothing is held back for an LF
    assert parser.feed(b"\ndata: b\n") == []
    assert parser.feed(b"\n") == [b"b"]


def test_a_line_without_end_is_refused() -> None:
    parser = EventParser(limit=1000)
    parser.feed(b"data: " + b"x" * 900)
    with pytest.raises(EventTooLarge):
        parser.feed(b"x" * 200)


def test_an_event_of_many_lines_is_refused_too() -> None:
    parser = EventParser(limit=1000)
    with pytest.raises(EventTooLarge):
        parser.feed(b"data: 1234567890\n" * 200)


def test_the_limit_is_for_one_event_and_not_for_the_stream() -> None:
    parser = EventParser(limit=1000)
    half = b"data: " + b"x" * 500
    for _ in range(50):
        parser.feed(half)
        assert parser.feed(b"y" * 100 + b"\n\n: comment\n") == [b"x" * 500 + b"y" * 100]
