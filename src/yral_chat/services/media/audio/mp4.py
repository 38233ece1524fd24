"""MP4 with AAC: the number of frames, whole or in fragments as Safari records (ISO/IEC 14496-12, 14496-14, 14496-3).

Tables of times are not asked. A decoder plays 1024 samples per frame at the rate that the codec's own configuration
names, and so the frames give the duration.
"""

import struct
from collections.abc import Iterator

from yral_chat.services.media.audio.pieces import Recording
from yral_chat.services.media.damage import Damaged

MAX_BOXES = 20_000
MAX_TABLE_BYTES = 64 * 1024
RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
AAC_TYPES = {0x40, 0x66, 0x67, 0x68}  # MPEG-4 audio; MPEG-2 AAC main, low complexity, scalable rate
PLAIN_AAC, WITH_REPLICATION = {1, 2, 3, 4}, {5, 29}
ES, DECODER_CONFIG, DECODER_SPECIFIC = 3, 4, 5
SAMPLE_ENTRY_BYTES = {0: 28, 1: 44}  # by version; QuickTime's 1 has four more numbers

Box = tuple[bytes, int, int]


class Mp4Reader:
    """One pass over the outer boxes, with a look into those that describe tracks and fragments."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._frame_seconds: dict[int, float] = {}  # by number of the track
        self._frames: dict[int, int] = {}
        self._listed_bytes = 0
        self._data_bytes = 0

    def measure(self) -> float:
        """Seconds of the longest track. Raises Damaged, also for films."""
        for kind, start, end in self._boxes(0, self._recording.size):
            if kind == b"moov":
                for track in self._all(start, end, b"trak"):
                    self._track(*track)
            elif kind == b"moof":
                for fragment in self._all(start, end, b"traf"):
                    self._fragment(*fragment)
            elif kind == b"mdat":
                self._data_bytes += end - start
        if not self._frame_seconds or self._listed_bytes > self._data_bytes:
            raise Damaged("no sound, or not all of it")
        return max(self._frames.get(track, 0) * seconds for track, seconds in self._frame_seconds.items())

    def _boxes(self, start: int, end: int) -> Iterator[Box]:
        for _ in range(MAX_BOXES):
            if start >= end:
                return
            size, kind = struct.unpack(">I4s", self._recording.at(start, 8))
            inside = start + 8
            if size == 1:
                size = int.from_bytes(self._recording.at(inside, 8), "big")
                inside += 8
            after = end if size == 0 else start + size
            if not inside <= after <= end:
                raise Damaged("a box beyond the end")
            yield kind, inside, after
            start = after
        raise Damaged("too many boxes")

    def _all(self, start: int, end: int, wanted: bytes) -> Iterator[tuple[int, int]]:
        return ((inside, after) for kind, inside, after in self._boxes(start, end) if kind == wanted)

    def _one(self, start: int, end: int, *path: bytes) -> tuple[int, int]:
        for wanted in path:
            found = next(self._all(start, end, wanted), None)
            if not found:
                raise Damaged(f"no {wanted!r}")
            start, end = found
        return start, end

    def _track(self, start: int, end: int) -> None:
        header, _ = self._one(start, end, b"tkhd")
        is_long = self._recording.at(header, 1)[0] == 1
        number = int.from_bytes(self._recording.at(header + (20 if is_long else 12), 4), "big")
        media = self._one(start, end, b"mdia")
        handler, _ = self._one(*media, b"hdlr")
        kind = self._recording.at(handler + 8, 4)
        if kind == b"vide":
            raise Damaged("a film")
        if kind != b"soun":
            return
        table = self._one(*media, b"minf", b"stbl")
        self._frame_seconds[number] = self._described(*self._one(*table, b"stsd"))
        self._frames[number] = self._frames.get(number, 0) + self._counted(*self._one(*table, b"stsz"))

    def _described(self, start: int, end: int) -> float:
        """Seconds that a frame plays, from the first sample description."""
        kind, inside, after = next(self._boxes(start + 8, end), (b"", 0, 0))
        if kind != b"mp4a":
            raise Damaged("a kind of sound that is not taken")
        version = int.from_bytes(self._recording.at(inside + 8, 2), "big")
        if version not in SAMPLE_ENTRY_BYTES:
            raise Damaged("an unknown description of sound")
        inside += SAMPLE_ENTRY_BYTES[version]
        nested = next(self._all(inside, after, b"wave"), (inside, after))  # QuickTime puts it one deeper
        place, stop = self._one(*nested, b"esds")
        return _frame_seconds(_configuration(self._recording.at(place + 4, min(stop - place - 4, 1024))))

    def _counted(self, start: int, end: int) -> int:
        size, count = struct.unpack(">II", self._recording.at(start + 4, 8))
        if size:
            self._listed_bytes += size * count
            return int(count)
        if count * 4 > end - start - 12:
            raise Damaged("a table beyond its end")
        for place in range(start + 12, start + 12 + count * 4, MAX_TABLE_BYTES):
            sizes = self._recording.at(place, min(MAX_TABLE_BYTES, start + 12 + count * 4 - place))
            self._listed_bytes += sum(bytes_of_frame for (bytes_of_frame,) in struct.iter_unpack(">I", sizes))
        return int(count)

    def _fragment(self, start: int, end: int) -> None:
        header, _ = self._one(start, end, b"tfhd")
        number = int.from_bytes(self._recording.at(header + 4, 4), "big")
        for run, _ in self._all(start, end, b"trun"):
            count = int.from_bytes(self._recording.at(run + 4, 4), "big")
            self._frames[number] = self._frames.get(number, 0) + count


def _configuration(descriptors: bytes) -> bytes:
    """The AudioSpecificConfig inside the descriptors of an elementary stream (ISO/IEC 14496-1 section 7.2.6)."""
    tag, body = _descriptor(descriptors)
    if tag != ES:
        raise Damaged("no description of the stream")
    flags = body[2]
    skipped = 3 + (2 if flags & 0x80 else 0) + (2 if flags & 0x20 else 0)
    if flags & 0x40:
        skipped += 1 + body[skipped]  # an address, with its length before it
    tag, body = _descriptor(body[skipped:])
    if tag != DECODER_CONFIG or body[0] not in AAC_TYPES:
        raise Damaged("a kind of sound that is not taken")
    tag, body = _descriptor(body[13:])
    if tag != DECODER_SPECIFIC:
        raise Damaged("no configuration of the decoder")
    return body


def _descriptor(data: bytes) -> tuple[int, bytes]:
    """Tag and body; the size has seven bits in each of up to four bytes."""
    size, place = 0, 1
    for place in range(1, 5):
        size = size << 7 | data[place] & 0x7F
        if not data[place] & 0x80:
            break
    return data[0], data[place + 1 : place + 1 + size]


def _frame_seconds(configuration: bytes) -> float:
    """From an AudioSpecificConfig (ISO/IEC 14496-3 section 1.6.2.1): type 5 bits, rate 4 (or 28), channels 4."""
    bits = _Bits(configuration)
    kind, rate = bits.take(5), bits.rate()
    bits.take(4)
    if kind in WITH_REPLICATION:
        bits.rate()  # of what replication adds; frames are counted at the lower rate
        kind = bits.take(5)
    if kind not in PLAIN_AAC or not rate:
        raise Damaged("a kind of AAC that is not taken")
    return (960 if bits.take(1) else 1024) / rate


class _Bits:
    """Reads from the highest bit on; behind the end are zeros."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data[:16].ljust(16, b"\0"), "big")
        self._left = 128

    def take(self, count: int) -> int:
        self._left -= count
        return self._value >> self._left & (1 << count) - 1

    def rate(self) -> int:
        index = self.take(4)
        if index == 15:
            return self.take(24)
        return RATES[index] if index < len(RATES) else 0


def measure_mp4(recording: Recording) -> float:
    """Seconds. Raises Damaged, also for films."""
    return Mp4Reader(recording).measure()
