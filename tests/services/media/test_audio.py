"""Recordings are recognised by content and measured by what they play, whatever they say of themselves."""

from pathlib import Path

import pytest

from tests.services.media.pictures import SAMPLES as PICTURES
from tests.services.media.pictures import sample as picture
from yral_chat.core.errors import UnsupportedMedia
from yral_chat.services.media.audio import ALLOWED_AUDIO, AudioFacts, measure_audio

FOLDER = Path(__file__).parents[2] / "data" / "audio"
SECONDS = {
    "cbr.mp3": 2.0,
    "chromium.webm": 2.46,
    "cover.m4a": 2.0,
    "cover.mp3": 2.0,
    "extensible.wav": 0.5,
    "faststart.m4a": 2.0,
    "fragmented.mp4": 2.0,
    "live.webm": 2.0,
    "mulaw.wav": 1.0,
    "opus.ogg": 2.0,
    "pcm.wav": 0.5,
    "piped.wav": 1.0,
    "plain.m4a": 2.0,
    "vbr-xing.mp3": 3.0,
    "vbr.mp3": 3.0,
    "vorbis.ogg": 2.0,
}
MIME_TYPES = {
    ".m4a": "audio/mp4",
    ".mp3": "audio/mpeg",
    ".mp4": "audio/mp4",
    ".ogg": "audio/ogg",
    ".wav": "audio/wav",
    ".webm": "audio/webm",
}
# Those that may end anywhere, or after any page, box or element: what is there is a recording, only a shorter one.
OPEN_ENDED = {"cbr.mp3", "cover.mp3", "fragmented.mp4", "live.webm", "opus.ogg", "piped.wav"}
OPEN_ENDED |= {"vbr-xing.mp3", "vbr.mp3", "vorbis.ogg"}
EVERY = pytest.mark.parametrize("step", [97, pytest.param(1, marks=pytest.mark.long)])
UNKNOWN = b"\x01\xff\xff\xff\xff\xff\xff\xff"


class Measurer:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "recording"

    def __call__(self, data: bytes) -> AudioFacts:
        self._path.unlink(missing_ok=True)  # writing over a file waits for the disk, thousands of times
        self._path.write_bytes(data)
        return measure_audio(self._path)


@pytest.fixture
def measure(tmp_path: Path) -> Measurer:
    return Measurer(tmp_path)


def sample(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new, 1)


def patched(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


@pytest.mark.parametrize("name", SECONDS)
def test_a_recording_is_recognised_and_measured(name: str) -> None:
    facts = measure_audio(FOLDER / name)
    assert facts.mime_type == MIME_TYPES[Path(name).suffix]
    assert facts.extension == (".m4a" if name.endswith(".mp4") else Path(name).suffix)
    assert facts.duration_seconds == pytest.approx(SECONDS[name], abs=0.1)


@pytest.mark.parametrize("name", ["film.mp4", "film.webm", "chromium-opus.mp4"])
def test_films_and_other_kinds_of_sound_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedMedia) as refused:
        measure_audio(FOLDER / name)
    assert refused.value.details == {"allowed": list(ALLOWED_AUDIO)}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_no_recording(measure: Measurer, name: str) -> None:
    with pytest.raises(UnsupportedMedia):
        measure(picture(name))


@pytest.mark.parametrize(
    "data", [b"", b"ID3", b"ID3\x04\0\0\x7f\x7f\x7f\x7f", b"RIFF", b"fLaC" + bytes(99), b"\xff\xf1" * 50, b"hi" * 99]
)
def test_what_is_no_recording_is_refused(measure: Measurer, data: bytes) -> None:
    with pytest.raises(UnsupportedMedia):
        measure(data)


@EVERY
@pytest.mark.parametrize("name", SECONDS)
def test_every_beginning_of_a_recording_is_refused_or_shorter(measure: Measurer, name: str, step: int) -> None:
    data = sample(name)
    for length in range(len(data) - 1, -1, -step):
        try:
            facts = measure(data[:length])
        except UnsupportedMedia:
            continue
        assert name in OPEN_ENDED, length
        assert facts.duration_seconds <= SECONDS[name] + 0.1


@EVERY
@pytest.mark.parametrize("name", [*SECONDS, "film.mp4", "film.webm"])
def test_every_flipped_byte_is_measured_or_refused(measure: Measurer, name: str, step: int) -> None:
    data = sample(name)
    for place in range(0, len(data), step):
        try:
            measure(patched(data, place, bytes([data[place] ^ 0xFF])))
        except UnsupportedMedia:
            continue


def test_an_mp3_index_that_lies_is_not_believed(measure: Measurer) -> None:
    data = sample("vbr-xing.mp3")
    place = data.index(b"Xing") + 8
    assert measure(patched(data, place, b"\0\0\0\x01")).duration_seconds == pytest.approx(3.0, abs=0.1)


def test_an_mp3_that_begins_slowly_is_counted_to_its_end(measure: Measurer) -> None:
    """Readers that take five equal frames for a constant bitrate are off by a factor."""
    quiet, loud = sample("cbr.mp3"), sample("vbr.mp3")
    alone = measure(quiet).duration_seconds + measure(loud).duration_seconds
    assert measure(quiet + loud).duration_seconds == pytest.approx(alone, abs=0.1)


def test_tags_and_torn_frames_of_an_mp3_play_nothing(measure: Measurer) -> None:
    data = sample("vbr.mp3")
    data = data[data.index(b"\xff\xf3") :]
    tag = b"ID3\x04\0\0\0\0\x10\0" + b"\xff\xfb\x90\0" * 512
    seconds = measure(data).duration_seconds
    assert measure(tag + tag + data + b"TAG" + bytes(125)).duration_seconds == seconds
    assert measure(data + bytes(700) + data).duration_seconds == pytest.approx(2 * seconds, abs=0.1)
    with pytest.raises(UnsupportedMedia):
        measure(data + bytes(20_000) + data)


@pytest.mark.parametrize("name", ["plain.m4a", "faststart.m4a"])
def test_times_in_an_mp4_are_not_believed(measure: Measurer, name: str) -> None:
    data = sample(name)
    for box, scale in ((b"mvhd", 12), (b"mdhd", 12)):
        data = patched(data, data.index(box) + 4 + scale, b"\x7f\xff\xff\xff\0\0\0\x01")
    assert measure(data).duration_seconds == pytest.approx(2.0, abs=0.1)


def test_an_mp4_that_lists_more_than_it_has_is_refused(measure: Measurer) -> None:
    data = sample("plain.m4a")
    with pytest.raises(UnsupportedMedia):
        measure(patched(data, data.index(b"stsz") + 8, b"\0\0\x10\0"))


def test_sizes_in_a_wav_are_checked(measure: Measurer) -> None:
    data = sample("pcm.wav")
    place = data.index(b"data") + 4
    claimed = int.from_bytes(data[place : place + 4], "little")
    with pytest.raises(UnsupportedMedia):
        measure(patched(data, place, (claimed + 2).to_bytes(4, "little")))
    rate = data.index(b"fmt ") + 16
    assert measure(patched(data, rate, b"\xff\xff\xff\x7f")).duration_seconds == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", ["opus.ogg", "vorbis.ogg"])
@pytest.mark.parametrize("position", [0, 1, 2**62])
def test_positions_in_an_ogg_are_not_believed(measure: Measurer, name: str, position: int) -> None:
    data = sample(name)
    place = data.index(b"OggS")
    while place >= 0:
        data = patched(data, place + 6, position.to_bytes(8, "little"))
        place = data.find(b"OggS", place + 27)
    assert measure(data).duration_seconds == pytest.approx(2.0, abs=0.1)


def test_chained_oggs_follow_each_other(measure: Measurer) -> None:
    chained = sample("opus.ogg") + sample("vorbis.ogg")
    assert measure(chained).duration_seconds == pytest.approx(4.0, abs=0.1)


def test_an_ogg_with_another_stream_is_refused(measure: Measurer) -> None:
    with pytest.raises(UnsupportedMedia):
        measure(replaced(sample("opus.ogg"), b"OpusHead", b"\x80theora!"))


def test_a_webm_of_unknown_sizes_is_measured(measure: Measurer) -> None:
    """Until version 120 or so Chromium left segments and clusters open, and wrote no duration; Firefox still does."""
    data = sample("chromium.webm")
    for kind in (b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"):
        place = data.rindex(kind) + 4
        data = patched(data, place, UNKNOWN)
    data = patched(data, data.index(b"\x44\x89\x84"), b"\xec\x85\0")
    assert measure(data).duration_seconds == pytest.approx(2.46, abs=0.1)


def test_times_in_a_webm_cannot_shorten_it(measure: Measurer) -> None:
    data = sample("chromium.webm")
    place = data.find(b"\xa3", 0x110)
    while place >= 0:
        if data[place + 2] == 0x81:
            data = patched(data, place + 3, b"\0\0")
        place = data.find(b"\xa3", place + 1)
    assert measure(data).duration_seconds == pytest.approx(2.46, abs=0.1)


def test_a_pause_in_a_webm_counts(measure: Measurer) -> None:
    data = sample("chromium.webm")
    begin = data.rindex(b"\x1f\x43\xb6\x75")
    ten_seconds_in = patched(replaced(data[begin:], b"\xe7\x81\0", b"\xe7\x82\x27\x10"), 4, UNKNOWN)
    beginning = patched(data, data.index(b"\x18\x53\x80\x67") + 4, UNKNOWN)
    assert measure(beginning + ten_seconds_in).duration_seconds == pytest.approx(12.46)


@pytest.mark.parametrize("lacing", ["xiph", "ebml", "fixed"])
def test_laced_blocks_of_a_webm_count_every_packet(measure: Measurer, lacing: str) -> None:
    data = sample("live.webm")
    begin = data.index(b"\x1f\x43\xb6\x75")
    packet = b"\x08" + bytes(9)  # SILK, one frame of 20 ms
    table = {"xiph": b"\x0a\x0a", "ebml": b"\x8a\xbf", "fixed": b""}[lacing]
    flags = {"xiph": 0x82, "ebml": 0x86, "fixed": 0x84}[lacing]
    body = b"\x81\0\0" + bytes([flags, 2]) + table + packet * 3
    block = b"\xa3" + bytes([0x80 | len(body)]) + body
    cluster = b"\x1f\x43\xb6\x75" + UNKNOWN + b"\xe7\x81\0" + block * 10
    assert measure(data[:begin] + cluster).duration_seconds == pytest.approx(0.6)


@pytest.mark.long
def test_a_file_of_millions_of_empty_pieces_is_given_up(measure: Measurer) -> None:
    with pytest.raises(UnsupportedMedia):
        measure(sample("live.webm") + b"\xec\x80" * 1_100_000)
