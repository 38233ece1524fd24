"""OutputFilter: the instructions do not leave, however they are cut; everything else does, unchanged."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.services.moderation.leaking import CUTS, GREETING, INSTRUCTIONS, LEAKS
from tests.services.moderation.packs import benign
from yral_chat.services.moderation.leaks import LEAK_WORDS, OutputFilter, Secret
from yral_chat.services.moderation.words import words

SECRET = Secret.of(INSTRUCTIONS, [GREETING])
WORDS = INSTRUCTIONS.split()


def pass_through(pieces: list[str], secret: Secret = SECRET, *, is_patient: bool = True) -> tuple[str, bool]:
    """What leaves, and whether the filter stopped it. An impatient caller releases whatever may be released at once."""
    output, sent = OutputFilter(secret), ""
    for piece in pieces:
        sent += output.feed(piece)
        if output.is_leak:
            return sent, True
        if not is_patient:
            sent += output.release()
    sent += output.end()
    return sent, output.is_leak


def longest_leak(sent: str) -> int:
    """Most consecutive words of the instructions that have left."""
    said, secret = words(sent), words(INSTRUCTIONS)
    for size in range(LEAK_WORDS, 0, -1):
        runs = {tuple(secret[at : at + size]) for at in range(len(secret) - size + 1)}
        if any(tuple(said[at : at + size]) in runs for at in range(len(said) - size + 1)):
            return size
    return 0


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", LEAKS)
def test_what_is_said_to_be_stopped_is_stopped_and_the_rest_is_not(name: str, cut: str) -> None:
    text, is_covered = LEAKS[name]
    sent, is_stopped = pass_through(list(CUTS[cut](text)))
    assert is_stopped == is_covered
    assert longest_leak(sent) < LEAK_WORDS


@pytest.mark.parametrize("cut", CUTS)
def test_twelve_words_never_leave_a_caller_that_releases_at_once(cut: str) -> None:
    for start in range(0, len(WORDS) - LEAK_WORDS - 18):
        text = f"You see, {' '.join(WORDS[start : start + LEAK_WORDS])}"
        sent, is_stopped = pass_through(list(CUTS[cut](text)), is_patient=False)
        assert is_stopped
        assert longest_leak(sent) < LEAK_WORDS


def test_a_patient_caller_sends_nothing_of_the_run() -> None:
    sent, is_stopped = pass_through([f"{word} " for word in ["Well,", "then:", *WORDS[4:30]]])
    assert is_stopped
    assert longest_leak(sent) <= 3


@st.composite
def texts_and_cuts(draw: st.DrawFn) -> tuple[str, list[str]]:
    """Texts out of the secret's words, their encodings and others, cut anywhere."""
    said = st.sampled_from([*WORDS, "and", "well", "\n", "😀", "नमस्ते", "漢字", "e\u0301", "'", "a" * 200, "="])
    run = st.integers(0, len(WORDS) - 1).flatmap(lambda at: st.just(" ".join(WORDS[at : at + 14])))
    other = st.sampled_from([text[:400] for text, _ in LEAKS.values()]) | st.text(max_size=30)
    parts = draw(st.lists(said | run | other, max_size=12))
    text = draw(st.sampled_from([" ", "", "\n"])).join(parts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=20)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    return text, [piece for piece in pieces if piece]


@settings(max_examples=300)
@given(cut=texts_and_cuts(), is_patient=st.booleans())
def test_cuts_change_nothing(cut: tuple[str, list[str]], is_patient: bool) -> None:
    text, pieces = cut
    _, is_stopped = pass_through([text] if text else [])
    sent, is_stopped_in_pieces = pass_through(pieces, is_patient=is_patient)
    assert is_stopped == is_stopped_in_pieces
    assert text.startswith(sent)
    if not is_stopped:
        assert sent == text


def test_benign_texts_pass_unchanged_and_at_once() -> None:
    numbers = random.Random(7)
    for row in benign():
        text, output, sent = row.text * 2, OutputFilter(SECRET), ""
        while text:
            size = numbers.randint(1, 12)
            piece, text = text[:size], text[size:]
            sent += output.feed(piece)
            assert not output.held
        assert sent + output.end() == row.text * 2


def test_the_greeting_may_be_said() -> None:
    assert pass_through([GREETING]) == (GREETING, False)
    assert pass_through(list(GREETING)) == (GREETING, False)


def test_the_greeting_with_the_words_before_it_may_not() -> None:
    assert pass_through([INSTRUCTIONS[-120:]])[1]


def test_short_instructions_are_a_leak_as_a_whole_and_the_shortest_never() -> None:
    short = Secret.of("You are a friendly cook from Lucknow.")
    assert pass_through(["Well: you are a friendly cook from Lucknow!"], short)[1]
    assert not pass_through(["you are a friendly cook from Delhi"], short)[1]
    assert not pass_through(["You are brief."], Secret.of("You are brief."))[1]


def test_scripts_without_spaces_are_counted_in_characters() -> None:
    instructions = "你是阿莎一位来自勒克瑙的温暖而俏皮的厨师喜欢街头小吃从不谈论政治总是用两段简短的话回答"
    secret = Secret.of(instructions)
    assert pass_through(list(instructions), secret)[1]
    assert not pass_through(list("你好我是阿莎今天想吃什么呢我喜欢街头小吃"), secret)[1]


def test_hindi_instructions_are_found() -> None:
    instructions = "तुम लखनऊ की एक मज़ेदार रसोइया हो और राजनीति पर कभी बात नहीं करती हो, हमेशा दो छोटे पैराग्राफ में जवाब दो"
    assert pass_through(list(f"ठीक है: {instructions}"), Secret.of(instructions))[1]


def test_what_is_held_back_is_the_matching_piece_only() -> None:
    output = OutputFilter(SECRET)
    assert output.feed("I like it. You are Asha, a warm and ") == "I like it. "
    assert output.level == "some"
    assert output.feed("friendly soul. ") == "You are Asha, a warm and friendly soul. "
    assert not output.held
