"""WebM with Opus: the durations of all blocks, or their times where those leave gaps (RFC 8794, RFC 9559).

A browser that records does not know how long it will: there may be no duration, and segments and clusters of unknown
size. So masters are entered without asking where they end, and everything else is passed over by its size.
"""

from collections.abc import Iterator

from yral_chat.services.media.audio import opus
from yral_chat.services.media.audio.pieces import Recording
from yral_chat.services.media.damage import Damaged

MAGIC = b"\x1a\x45\xdf\xa3"
EBML, DOC_TYPE = 0x1A45DFA3, 0x4282
SEGMENT, INFO, TIMESTAMP_SCALE = 0x18538067, 0x1549A966, 0x2AD7B1
TRACKS, TRACK, TRACK_NUMBER, TRACK_TYPE, CODEC = 0x1654AE6B, 0xAE, 0xD7, 0x83, 0x86
CLUSTER, TIMESTAMP, BLOCK_GROUP, BLOCK, SIMPLE_BLOCK = 0x1F43B675, 0xE7, 0xA0, 0xA1, 0xA3
MASTERS = {EBML, SEGMENT, INFO, TRACKS, TRACK, CLUSTER, BLOCK_GROUP}
OF_UNKNOWN_SIZE = {SEGMENT, CLUSTER}
VIDEO, AUDIO = 1, 2
MAX_VALUE = 64
LACING, XIPH, EBML_LACING = 0x06, 0x02, 0x06
# An element's kind and size (at most 12), and of a block the track, the time, the flags and two bytes of Opus.
HEAD_BYTES = 32


class WebmReader:
    """One pass over the elements. Times are in ticks of `_scale` nanoseconds."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._scale = 1_000_000
        self._cluster = 0
        self._track: dict[int, int | bytes] = {}
        self._track_number: int | None = None
        self._samples = 0
        self._first: int | None = None
        self._last_end = 0.0

    def measure(self) -> float:
        """Seconds. Raises Damaged."""
        for kind, start, end, head in self._elements():
            if kind in (SIMPLE_BLOCK, BLOCK):
                self._block(start, end, head)
            elif kind == TRACK:
                self._track = {}
            elif kind in (TRACK_NUMBER, TRACK_TYPE, CODEC):
                self._describe(kind, self._value(start, end))
            elif kind == TIMESTAMP:
                self._cluster = int.from_bytes(self._value(start, end), "big")
            elif kind == TIMESTAMP_SCALE:
                self._scale = int.from_bytes(self._value(start, end), "big")
            elif kind == DOC_TYPE and self._value(start, end).rstrip(b"\0") != b"webm":
                raise Damaged("not WebM")
        if self._first is None:
            raise Damaged("no sound")
        return max(self._samples / opus.RATE, self._last_end - self._seconds(self._first))

    def _elements(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Kind, where the contents begin and end, and how they begin; of masters too, whose children follow."""
        position = 0
        while position < self._recording.size:
            head = self._recording.up_to(position, HEAD_BYTES)
            kind, kind_bytes = _number(head, 0, keep_marker=True)
            size, size_bytes = _number(head, kind_bytes)
            start = position + kind_bytes + size_bytes
            is_unknown = size == (1 << 7 * size_bytes) - 1
            if is_unknown and kind not in OF_UNKNOWN_SIZE:
                raise Damaged("an element without an end")
            end = self._recording.size if is_unknown else start + size
            if end > self._recording.size:
                raise Damaged("no end of the recording")
            yield kind, start, end, head[start - position : end - position]
            position = start if kind in MASTERS else end

    def _value(self, start: int, end: int) -> bytes:
        if end - start > MAX_VALUE:
            raise Damaged("a value that is too long")
        return self._recording.at(start, end - start)

    def _describe(self, kind: int, value: bytes) -> None:
        """Called for the number, the type and the codec of a track, in any order."""
        self._track[kind] = value.rstrip(b"\0") if kind == CODEC else int.from_bytes(value, "big")
        if self._track.get(TRACK_TYPE) == VIDEO:
            raise Damaged("a film")
        if len(self._track) == 3 and self._track[TRACK_TYPE] == AUDIO:
            if self._track[CODEC] != b"A_OPUS":
                raise Damaged("a kind of sound that is not taken")
            if self._track_number is None:
                self._track_number = int(self._track[TRACK_NUMBER])

    def _block(self, start: int, end: int, head: bytes) -> None:
        track, length = _number(head, 0)
        if track != self._track_number:
            return
        time = self._cluster + int.from_bytes(head[length : length + 2], "big", signed=True)
        flags = head[length + 2]
        packets, opus_head = 1, head[length + 3 : length + 5]
        if flags & LACING:
            packets = head[length + 3] + 1
            place = start + length + 4
            place += self._lacing_bytes(flags & LACING, place, packets - 1)
            opus_head = self._recording.at(place, min(2, max(0, end - place)))
        samples = packets * opus.packet_samples(opus_head)
        self._samples += samples
        self._first = time if self._first is None else min(self._first, time)
        self._last_end = max(self._last_end, self._seconds(time) + samples / opus.RATE)

    def _lacing_bytes(self, lacing: int, place: int, sizes: int) -> int:
        """How long the sizes of the packets are, of all but the last (RFC 9559 section 10.3)."""
        table = self._recording.up_to(place, sizes * 8)
        length = 0
        for _ in range(sizes if lacing in (XIPH, EBML_LACING) else 0):
            if lacing == EBML_LACING:
                length += _number(table, length)[1]
            else:
                while table[length] == 255:
                    length += 1
                length += 1
        return length

    def _seconds(self, ticks: int) -> float:
        return ticks * self._scale / 1e9


def _number(data: bytes, place: int, *, keep_marker: bool = False) -> tuple[int, int]:
    """A number of variable length and its bytes (RFC 8794 section 4); the zeros before the first one say how many."""
    first = data[place] if place < len(data) else 0
    if first >= 0x80 and not keep_marker:
        return first & 0x7F, 1
    length = 9 - first.bit_length()
    if not first or place + length > len(data):
        raise Damaged("no number where one should be")
    value = int.from_bytes(data[place : place + length], "big")
    return (value if keep_marker else value & (1 << 7 * length) - 1), length


def measure_webm(recording: Recording) -> float:
    """Seconds. Raises Damaged, also for films."""
    return WebmReader(recording).measure()
