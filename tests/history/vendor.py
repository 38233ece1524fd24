"""A vendor that answers as it likes, and remembers everything it was asked and was going to say.

Every answer carries the number of its call. So whoever reads a stored reply knows which call it came from, and two
answers that were mixed into one do not go unnoticed.
"""

import json
import random
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from tests.fakes.model_server import Behaviour, FakeModelServer, Wire

# What our client puts before a prompt that would begin with an answer.
OPENING = "…"
# How the background asks: for facts, and for a summary.
SUMMARISING = "You keep the summary"
WORDS = ("naam", "café", "🙂", "यह", "tea", "and", "so", "👩‍🚀", "on", "z̧")


class Call(msgspec.Struct, frozen=True):
    """One call. `text` is the whole answer; `is_complete` False: the vendor never meant to finish it."""

    number: int
    question: str
    text: str
    is_complete: bool
    system: str
    prompt: tuple[tuple[str, str], ...]  # (role, text) of what came before the question, oldest first


class RandomVendor(FakeModelServer):
    """`is_well` True: from now on every answer is quick and whole."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.calls: list[Call] = []
        self.refused = 0  # prompts that a vendor would not take
        self.is_well = False
        super().__init__(key="")

    async def _receive(self, request: web.Request, wire: Wire, model: str) -> Any:
        body = await super()._receive(request, wire, model)
        # A behaviour that was not used means that the request before this one was refused as malformed.
        self.refused += len(self.script)
        self.script.clear()
        self.script.append(self._plan(body))
        return body

    def _plan(self, body: Any) -> Behaviour:
        system = body.get("systemInstruction", {"parts": [{"text": ""}]})["parts"][0]["text"]
        *before, question = _flattened(body)
        if "responseJsonSchema" in body["generationConfig"]:
            return self._find_facts(json.loads(question[1])["message"])
        if system.startswith(SUMMARISING):
            return Behaviour(pieces=("They talk about this and that.",))
        number = len(self.calls)
        words = [self._rng.choice(WORDS) for _ in range(self._rng.choice((0, 2, 10, 40)))]
        text = " ".join([f"[{number}] You said: {question[1]}", *words])
        way = _whole if self.is_well else self._rng.choices(*_WAYS)[0]
        behaviour, is_complete = way(self._rng, _pieces(self._rng, text))
        self.calls.append(Call(number, question[1], text, is_complete, system, tuple(before)))
        return behaviour

    def _find_facts(self, message: str) -> Behaviour:
        if not self.is_well and self._rng.random() < 0.05:
            return Behaviour(status=503)
        fact = fact_of(message)
        found = [] if fact is None else [{"key": fact[0], "value": fact[1], "confidence": 90}]
        return Behaviour(pieces=(json.dumps({"facts": found}),), first_byte_delay=self._rng.uniform(0, 0.05))


def fact_of(message: str) -> tuple[str, str] | None:
    """(key, value) of what there is to remember in this message of a person."""
    value = message.partition(" ")[0]
    number = int(value.partition("/")[2])
    return (f"topic_{number % 6}", value) if number % 2 else None


def _flattened(body: Any) -> list[tuple[str, str]]:
    parts = [(content["role"], part["text"]) for content in body["contents"] for part in content["parts"]]
    return parts[1:] if parts[0] == ("user", OPENING) else parts


def _pieces(rng: random.Random, text: str) -> tuple[str, ...]:
    """Cut at random, also inside of what a person would take for one character."""
    cuts = sorted(rng.sample(range(1, len(text)), min(len(text) - 1, rng.choice((0, 1, 4, 12)))))
    return tuple(text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True))


def _packets(rng: random.Random) -> Any:
    return rng.choice(("event", "event", "event", "pairs", "split_event", "split_character"))


Way = Callable[[random.Random, tuple[str, ...]], tuple[Behaviour, bool]]


def _whole(rng: random.Random, pieces: tuple[str, ...]) -> tuple[Behaviour, bool]:
    return Behaviour(pieces=pieces, chunk_delay=rng.uniform(0, 0.01), packets=_packets(rng)), True


def _slow(rng: random.Random, pieces: tuple[str, ...]) -> tuple[Behaviour, bool]:
    first, each = rng.uniform(0, 0.6), rng.uniform(0.02, 0.15)
    return Behaviour(pieces=pieces, first_byte_delay=first, chunk_delay=each, packets=_packets(rng)), True


def _late(rng: random.Random, pieces: tuple[str, ...]) -> tuple[Behaviour, bool]:
    return Behaviour(pieces=pieces, first_byte_delay=rng.uniform(1, 3)), True


def _at_the_limit(rng: random.Random, pieces: tuple[str, ...]) -> tuple[Behaviour, bool]:
    return Behaviour(pieces=pieces, finish_reason="MAX_TOKENS"), True


def _error(rng: random.Random, pieces: tuple[str, ...]) -> tuple[Behaviour, bool]:
    status = rng.choice((500, 503, 503, 429, 400))
    return Behaviour(status=status, is_load=rng.random() < 0.5, retry_after=rng.choice((None, 0.1))), False


def _blocked_prompt(rng: random.Random, pieces: tuple[str, ...]) -> tuple[Behaviour, bool]:
    return Behaviour(block_reason="SAFETY"), False


def _blocked_answer(rng: random.Random, pieces: tuple[str, ...]) -> tuple[Behaviour, bool]:
    return Behaviour(pieces=pieces, chunk_delay=0.01, finish_reason="SAFETY"), False


def _unfinished(rng: random.Random, pieces: tuple[str, ...]) -> tuple[Behaviour, bool]:
    return Behaviour(pieces=pieces, finish_reason=None), False


def _broken(rng: random.Random, pieces: tuple[str, ...]) -> tuple[Behaviour, bool]:
    return Behaviour(pieces=pieces, chunk_delay=0.01, error_after=rng.randrange(len(pieces))), False


def _cut(rng: random.Random, pieces: tuple[str, ...]) -> tuple[Behaviour, bool]:
    # Each event of the wire is longer than this, and one more follows the last piece.
    return Behaviour(pieces=pieces, chunk_delay=0.01, cut_after_bytes=100 * rng.randint(1, len(pieces))), False


def _stalled(rng: random.Random, pieces: tuple[str, ...]) -> tuple[Behaviour, bool]:
    return Behaviour(pieces=pieces, stall_after=rng.randrange(len(pieces))), False


def _nothing(rng: random.Random, pieces: tuple[str, ...]) -> tuple[Behaviour, bool]:
    return Behaviour(pieces=()), False


_WAYS: tuple[list[Way], list[int]] = (
    [
        *(_whole, _slow, _late, _at_the_limit, _error, _blocked_prompt, _blocked_answer, _unfinished, _broken, _cut),
        *(_stalled, _nothing),
    ],
    [64, 10, 2, 3, 6, 2, 2, 2, 3, 2, 1, 2],
)
