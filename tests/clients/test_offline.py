"""OfflinePersona: charming within its means, and honest about them."""

import re
import time
from collections.abc import Iterator
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clients.conversations import ASHA, conversation, listen
from yral_chat.clients.language_model import ModelCall, Persona, closing_stream
from yral_chat.clients.offline import OfflinePersona, reply_to

MEERA = Persona(
    id="meera",
    display_name="Meera",
    category="Cooking",
    greeting="Hi, I'm Meera! What is in your fridge?",
    suggested_messages=("A quick dinner for two", "Save my burnt curry", "Teach me one spice"),
    traits={"cooking_style": "homely and quick", "warmth": "high"},
)
RHEA = Persona(
    id="rhea",
    display_name="Rhea",
    category="dating",
    greeting="Arre hi!",
    suggested_messages=("Pehli date pe kya pehnu",),
    traits={"language": "Hinglish"},
)
BARE = Persona(id="bare", display_name="Bare")
PERSONAS = (MEERA, RHEA, BARE, ASHA)
# The persona's own messages are quoted at the end of a sentence.
SENTENCE_END = re.compile(r"[.!?…”](?=\s|$)")


def replies(persona: Persona, *said: str) -> Iterator[str]:
    """One conversation, with the persona's replies in it."""
    texts: list[str] = []
    for text in said:
        texts.append(text)
        reply = reply_to(conversation(*texts, persona=persona))
        texts.append(reply)
        yield reply


def is_honest(reply: str) -> bool:
    return "offline demo" in reply and "GEMINI_API_KEY" in reply and "OPENAI_BASE_URL" in reply


SAID = st.text(max_size=120) | st.sampled_from(
    [
        "hello",
        "thanks!",
        "bye",
        "are you real?",
        "I want to bake bread",
        "ok",
        "",
        "{name} {0} %s",
        "😀",
        "हैलो जी",
        "why?",
    ]
)


@settings(max_examples=150)
@given(persona=st.sampled_from(PERSONAS), said=st.lists(SAID, min_size=1, max_size=8))
def test_never_silent_never_the_same_twice_in_a_row_and_deterministic(persona: Persona, said: list[str]) -> None:
    first, again = list(replies(persona, *said)), list(replies(persona, *said))
    assert first == again
    assert all(reply.strip() for reply in first)
    assert all(one != other for one, other in pairwise(first))


@pytest.mark.parametrize("persona", PERSONAS, ids=lambda persona: persona.id)
def test_two_to_five_sentences(persona: Persona) -> None:
    said = ("hello", "I want to bake bread for my mother", "ok", "thanks", "are you an AI?", "I failed my exam", "bye")
    for reply in replies(persona, *said * 3):
        assert 2 <= len(SENTENCE_END.findall(reply)) <= 5, reply


@pytest.mark.parametrize("persona", PERSONAS, ids=lambda persona: persona.id)
@pytest.mark.parametrize("text", ["hello", "I want to bake bread", "thanks", "bye", "ok"])
def test_the_first_reply_says_that_it_is_the_offline_demo(persona: Persona, text: str) -> None:
    first, second = replies(persona, text, "my bread did not rise")
    assert is_honest(first)
    assert not is_honest(second), "said once is enough"


def test_the_greeting_that_opens_a_conversation_is_not_a_reply() -> None:
    assert is_honest(reply_to(conversation(MEERA.greeting, "hello", persona=MEERA, first="assistant")))


@pytest.mark.parametrize(
    "question",
    [
        "Are you real?",
        "which model are you?",
        "are you an AI",
        "is this offline?",
        "do you need a key?",
        "model?",
        "bot",
    ],
)
@pytest.mark.parametrize("persona", PERSONAS, ids=lambda persona: persona.id)
def test_whoever_asks_is_told(persona: Persona, question: str) -> None:
    assert is_honest(list(replies(persona, "hello", "I like bread", question))[-1])


@pytest.mark.parametrize(
    "question",
    [
        "Are you a real person or an AI? I want to know",
        "be honest, am I talking to a human?",
        "are you a machine?",
        "kya tum insaan ho ya AI",
        "aap asli ho kya",
        "क्या तुम इंसान हो?",
        "¿eres una persona real?",
    ],
)
@pytest.mark.parametrize("persona", PERSONAS, ids=lambda persona: persona.id)
def test_whoever_asks_sincerely_is_told_that_it_is_an_ai(persona: Persona, question: str) -> None:
    reply = list(replies(persona, "hello", "I like bread", question))[-1]
    assert re.search(r"\b(I am an AI|main ek AI hoon)\b", reply, re.IGNORECASE), reply


@pytest.mark.parametrize(
    "text", ["I met a real estate agent", "the key to success is sleep", "my role model is Sachin"]
)
def test_who_does_not_ask_is_not_told_again(text: str) -> None:
    assert not is_honest(list(replies(MEERA, "hello", text))[-1])


def test_greets_back_with_its_own_greeting_once() -> None:
    first, second = replies(MEERA, "hello", "hello again")
    assert first.startswith("Hi, I'm Meera!")
    assert "Hi, I'm Meera!" not in second


def test_picks_up_the_words_of_the_user() -> None:
    first, second = replies(MEERA, "I want to learn Italian cooking for my mother", "what about {braces}?")
    assert "Italian cooking" in first
    assert "braces" in second.lower()


def test_offers_its_suggestions_and_speaks_of_its_traits_as_the_conversation_grows() -> None:
    said = [f"I am thinking about number{word}" for word in ("one", "two", "three", "four", "five", "six", "seven")]
    spoken = " ".join(replies(MEERA, *said))
    assert any(message in spoken for message in MEERA.suggested_messages)
    assert "homely and quick" in spoken or "warmth is high" in spoken


def test_does_not_suggest_what_was_said_already() -> None:
    said = list(MEERA.suggested_messages[:2])
    later = list(replies(MEERA, *said, "thanks", "thank you", "thanks a lot"))[2:]
    assert all(MEERA.suggested_messages[2] in reply for reply in later)


def test_differs_by_persona_and_by_the_length_of_the_conversation() -> None:
    assert len({reply_to(conversation("I want to bake bread", persona=persona)) for persona in PERSONAS}) == 4
    assert len(set(replies(MEERA, *["my bread did not rise"] * 6))) >= 5


def test_hinglish_personas_speak_hinglish() -> None:
    for reply in replies(RHEA, "hello", "meri behen ki shaadi", "accha", "thanks"):
        assert re.search(r"\b(hai|hoon|ho|hain|yeh|kya)\b", reply), reply


def test_does_not_play_with_a_life() -> None:
    reply = reply_to(conversation("hi", "Hello!", "I want to kill myself", persona=MEERA))
    assert "emergency number" in reply
    assert "kitchen" not in reply


# --- as a model


async def test_streams_word_by_word_and_loses_nothing() -> None:
    request = conversation("hello", persona=MEERA)
    heard = await listen(OfflinePersona(0), request)
    assert heard.text == reply_to(request)
    assert len(heard.deltas) == len(heard.text.split())
    assert heard.completion is not None
    assert (heard.completion.provider, heard.completion.model) == ("offline", "offline-persona")
    assert heard.completion.usage.output == len(heard.deltas)
    assert heard.completion.usage.prompt == 3 + 1  # "You are Asha." and "hello"
    assert heard.calls[0].outcome == "completed"


async def test_speaks_at_the_pace_that_is_set() -> None:
    request = msgspec.structs.replace(conversation(), max_output_tokens=2)
    started = time.monotonic()
    heard = await listen(OfflinePersona(1), request)
    assert time.monotonic() - started >= 1
    assert heard.calls[0].first_token_seconds is not None
    assert heard.calls[0].first_token_seconds < 1


async def test_stops_at_the_output_limit() -> None:
    request = msgspec.structs.replace(conversation(), max_output_tokens=3)
    heard = await listen(OfflinePersona(0), request)
    assert (heard.outcome, len(heard.deltas)) == ("truncated", 3)


async def test_does_not_speak_past_the_deadline() -> None:
    heard = await listen(OfflinePersona(1), conversation(seconds=0.5))
    assert (heard.outcome, len(heard.deltas)) == ("timeout", 1)
    assert heard.calls[0].outcome == "timeout"


async def test_leaving_closes_the_call_with_what_was_said() -> None:
    calls: list[ModelCall] = []
    async with closing_stream(OfflinePersona(0).stream(conversation(), calls)) as answer:
        await anext(answer)
        await anext(answer)
    assert (calls[0].outcome, calls[0].usage.output) == ("cancelled", 2)


def test_another_attempt_at_the_same_reply_is_another_reply() -> None:
    request = conversation("What should I cook tonight?", persona=ASHA)
    again = msgspec.structs.replace(request, attempt=2)
    assert reply_to(request) != reply_to(again)
