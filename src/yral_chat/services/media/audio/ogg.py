"""Ogg with Opus or Vorbis: the durations of all packets (RFC 3533 for pages, RFC 7845 for Opus in them)."""

from collections.abc import Iterator

from yral_chat.services.media.audio import opus
from yral_chat.services.media.audio.pieces import Recording
from yral_chat.services.media.audio.vorbis import VorbisBlocks
from yral_chat.services.media.damage import Damaged

MAGIC = b"OggS"
HEADER_BYTES = 27
CONTINUED, FIRST = 1, 2
MAX_STREAMS = 64
MAX_HEADER_PACKET = 1024 * 1024


class OggStream:
    """One logical stream. `samples` is what its packets play, at `rate`."""

    def __init__(self, head: bytes) -> None:
        self._vorbis = VorbisBlocks(head) if head.startswith(b"\x01vorbis") else None
        if not self._vorbis and not head.startswith(b"OpusHead"):
            raise Damaged("a kind of stream that is not taken")
        self._headers_left = 2 if self._vorbis else 1
        self.rate = self._vorbis.rate if self._vorbis else opus.RATE
        self._skipped = 0 if self._vorbis else int.from_bytes(head[10:12], "little")
        self._samples = 0
        self._granule = 0
        self.torn: list[bytes] = []  # the beginning of a packet that goes on on the next page

    def add(self, packet: bytes) -> None:
        if self._headers_left:
            self._headers_left -= 1
            if self._vorbis and not self._headers_left:
                self._vorbis.set_up(packet)
        elif self._vorbis:
            self._samples += self._vorbis.packet_samples(packet)
        else:
            self._samples += opus.packet_samples(packet)

    def end_page(self, granule: int) -> None:
        """`granule` is the position at the end of a page, -1 where no packet ends on it."""
        self._granule = granule if granule >= 0 else self._granule

    def seconds(self) -> float:
        """The last position may cut the end of the last packets short, by less than a second; else packets count."""
        is_trimmed = 0 <= self._samples - self._granule < self.rate
        return max(0, (self._granule if is_trimmed else self._samples) - self._skipped) / self.rate


def measure_ogg(recording: Recording) -> float:
    """Seconds; chained streams follow each other. Raises Damaged for streams other than Opus and Vorbis."""
    live: dict[bytes, OggStream] = {}
    streams: list[OggStream] = []
    position = 0
    while position < recording.size:
        head = recording.at(position, HEADER_BYTES)
        if head[:5] != MAGIC + b"\0":
            raise Damaged("no page where one should begin")
        sizes = recording.at(position + HEADER_BYTES, head[26])
        body = recording.at(position + HEADER_BYTES + head[26], sum(sizes))
        position += HEADER_BYTES + len(sizes) + len(body)
        serial = head[14:18]
        if head[5] & FIRST:
            live[serial] = OggStream(body)
            streams.append(live[serial])
        elif serial not in live:
            raise Damaged("a stream without a beginning")
        else:
            _add_packets(live[serial], sizes, body, is_continued=bool(head[5] & CONTINUED))
            live[serial].end_page(int.from_bytes(head[6:14], "little", signed=True))
        if len(streams) > MAX_STREAMS:
            raise Damaged("too many streams")
    return sum(stream.seconds() for stream in streams)


def _add_packets(stream: OggStream, sizes: bytes, body: bytes, *, is_continued: bool) -> None:
    if not is_continued:
        stream.torn.clear()
    for piece, is_whole in _pieces(sizes, body):
        if stream.torn or not is_whole:
            stream.torn.append(piece)
            if sum(map(len, stream.torn)) > MAX_HEADER_PACKET:
                raise Damaged("a packet without an end")
            piece = b"".join(stream.torn) if is_whole else b""
        if is_whole:
            stream.torn.clear()
            stream.add(piece)


def _pieces(sizes: bytes, body: bytes) -> Iterator[tuple[bytes, bool]]:
    """Packets, the last perhaps only begun: a size below 255 ends one."""
    start = end = 0
    for size in sizes:
        end += size
        if size < 255:
            yield body[start:end], True
            start = end
    if start < end:
        yield body[start:end], False
