"""MP3: every frame is counted, whatever a Xing or VBRI header says (ISO/IEC 11172-3 and 13818-3, Layer III)."""

import re
from functools import lru_cache

import msgspec

from yral_chat.services.media.audio.pieces import Recording
from yral_chat.services.media.damage import Damaged

VERSION_2_5, VERSION_2, VERSION_1 = 0, 2, 3
RATES = {VERSION_1: (44100, 48000, 32000), VERSION_2: (22050, 24000, 16000), VERSION_2_5: (11025, 12000, 8000)}
# kbit/s by index. At 0 ("free") frames have no length; no encoder that people use writes it.
BITRATES_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
BITRATES_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
LAYER_3 = 1
SYNC = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]")
FRAMES_IN_A_ROW = 3  # make chance improbable
MAX_LEAD = 64 * 1024  # before the first frame; padding is common there, other files are not MP3
BLOCK = 16 * 1024
INDEX_NAMES = (b"Xing", b"Info", b"VBRI")
INDEX_BYTES = 64  # of a frame, within which such a name stands


class Frame(msgspec.Struct, frozen=True):
    """`length` in bytes; `kind` is what frames of one recording share."""

    length: int
    seconds: float
    kind: tuple[int, int]


def measure_mp3(recording: Recording) -> float:
    """Seconds. Tags and torn frames between the frames are left out. Raises Damaged when there is more of that."""
    begin = _after_tags(recording)
    position = _find_frame(recording, begin)
    if not 0 <= position - begin <= MAX_LEAD:
        raise Damaged("no frames")
    seconds, sound, junk = 0.0, 0, 0
    first = _frame(recording.at(position, 4))
    if first and any(name in recording.up_to(position, INDEX_BYTES) for name in INDEX_NAMES):
        position += first.length
    while len(head := recording.up_to(position, 4)) == 4:
        frame = _frame(head)
        if frame and position + frame.length <= recording.size:
            seconds += frame.seconds
            sound += frame.length
            position += frame.length
        else:
            found = _find_frame(recording, position + 1)
            junk += (found if found >= 0 else recording.size) - position
            position = found if found >= 0 else recording.size
    if junk > sound:
        raise Damaged("more between the frames than frames")
    return seconds


def _after_tags(recording: Recording) -> int:
    """Where the ID3v2 tags end (id3.org, ID3v2.4.0 section 3.1: four times seven bits)."""
    position = 0
    while (head := recording.up_to(position, 10)).startswith(b"ID3") and len(head) == 10:
        size = 0
        for byte in head[6:]:
            size = size << 7 | byte & 0x7F
        position += 10 + size + (10 if head[5] & 0x10 else 0)
    return position


def _find_frame(recording: Recording, position: int) -> int:
    """The first place from `position` on where frames follow each other, -1 when there is none."""
    while len(block := recording.up_to(position, BLOCK)) >= 4:
        for match in SYNC.finditer(block):
            if _is_a_row(recording, position + match.start()):
                return position + match.start()
        position += len(block) - 1
    return -1


def _is_a_row(recording: Recording, position: int) -> bool:
    kind = None
    for _ in range(FRAMES_IN_A_ROW):
        frame = _frame(recording.up_to(position, 4))
        if not frame or (kind and frame.kind != kind):
            return False
        kind = frame.kind
        position += frame.length
        if position >= recording.size:
            return position == recording.size
    return True


def _frame(head: bytes) -> Frame | None:
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    return _described(head[1], head[2])


@lru_cache(maxsize=2048)
def _described(second: int, third: int) -> Frame | None:
    """What the second and third byte of a header say; None for what is no frame of Layer III."""
    version, layer = second >> 3 & 3, second >> 1 & 3
    bitrate, rate, padding = third >> 4, third >> 2 & 3, third >> 1 & 1
    if version not in RATES or layer != LAYER_3 or bitrate in (0, 15) or rate == 3:
        return None
    kilobits = (BITRATES_1 if version == VERSION_1 else BITRATES_2)[bitrate]
    samples, hertz = 1152 if version == VERSION_1 else 576, RATES[version][rate]
    length = samples // 8 * kilobits * 1000 // hertz + padding
    return Frame(length=length, seconds=samples / hertz, kind=(version, rate))
