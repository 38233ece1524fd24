"""Whatever the bytes are, they are taken or refused, and nothing else happens."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.services.media import pictures, test_audio
from yral_chat.core.errors import PayloadTooLarge, UnsupportedMedia

MAX_PIXELS = 1_000_000
NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]

Taker = Callable[[bytes], object]


@st.composite
def mutations(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """A real file, or two, with bytes overwritten, cut out, doubled and put in."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(("number", "bytes", "cut", "double", "insert", "splice"))):
            case "number":
                width, order = draw(st.sampled_from((1, 2, 4, 8))), draw(st.sampled_from(("big", "little")))
                number = draw(st.sampled_from(NUMBERS)) & (1 << 8 * width) - 1
                data[place : place + width] = number.to_bytes(width, "little" if order == "little" else "big")
            case "bytes":
                new = draw(st.binary(min_size=1, max_size=8))
                data[place : place + len(new)] = new
            case "cut":
                del data[place : place + draw(st.integers(1, 64))]
            case "double":
                data[place:place] = data[place : place + draw(st.integers(1, 200))]
            case "insert":
                data[place:place] = draw(st.binary(max_size=64))
            case _:
                data[place:] = draw(st.sampled_from(originals))[place:]
    return bytes(data)


def behind(heads: list[bytes]) -> st.SearchStrategy[bytes]:
    """Random bytes behind a real beginning."""
    return st.builds(lambda head, rest: head + rest, st.sampled_from(heads), st.binary(max_size=400))


PICTURES = [pictures.sample(name) for name in pictures.SAMPLES]
RECORDINGS = [test_audio.sample(name) for name in (*test_audio.SECONDS, "film.mp4", "film.webm")]
PICTURE_HEADS = [b"\xff\xd8\xff", b"GIF89a", *(data[:length] for data in PICTURES for length in (12, 16, 33))]
RECORDING_HEADS = [b"ID3\x04\0\0", *(data[:length] for data in RECORDINGS for length in (4, 12, 60))]


def try_out(take: Taker, strategy: st.SearchStrategy[bytes], examples: int) -> None:
    @settings(max_examples=examples, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def run(data: bytes) -> None:
        with contextlib.suppress(UnsupportedMedia, PayloadTooLarge):
            take(data)

    run()


def clean_in(folder: Path) -> Taker:
    clean = pictures.Cleaner(folder)

    def take(data: bytes) -> None:
        _, cleaned = clean(data, MAX_PIXELS)
        clean(cleaned, MAX_PIXELS)  # what was taken once is taken again

    return take


def measure_in(folder: Path) -> Taker:
    return test_audio.Measurer(folder)


# In the long run 20,000 cases, all four together.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("examples", [300, pytest.param(5_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ["mutated", "random"])
@pytest.mark.parametrize("of", ["pictures", "recordings"])
def test_nothing_but_a_refusal_escapes(tmp_path: Path, of: str, kind: str, examples: int) -> None:
    is_picture = of == "pictures"
    originals, heads = (PICTURES, PICTURE_HEADS) if is_picture else (RECORDINGS, RECORDING_HEADS)
    take = clean_in(tmp_path) if is_picture else measure_in(tmp_path)
    try_out(take, mutations(originals) if kind == "mutated" else behind(heads), examples)
