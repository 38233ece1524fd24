"""WAV: the duration is the number of bytes of sound over the bytes of a second (RFC 2361; Microsoft, "RIFF")."""

import struct

from yral_chat.services.media.audio.pieces import Recording
from yral_chat.services.media.damage import Damaged

PCM, FLOAT, A_LAW, MU_LAW, EXTENSIBLE = 0x0001, 0x0003, 0x0006, 0x0007, 0xFFFE
WIDTHS = {PCM: (8, 16, 24, 32), FLOAT: (32, 64), A_LAW: (8,), MU_LAW: (8,)}
RATES = range(1000, 768_001)
# What a writer leaves in the header that could not go back to fill it in.
UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)


def measure_wav(recording: Recording) -> float:
    """Seconds, from the bytes that are there. Raises Damaged."""
    position, second, sound = 12, 0, 0
    while len(head := recording.up_to(position, 8)) == 8 and (name := head[:4]).isascii():
        size = int.from_bytes(head[4:], "little")
        rest = recording.size - position - 8
        if name == b"fmt ":
            second = _bytes_of_a_second(recording.at(position + 8, min(size, 40)))
        elif name == b"data":
            if size > rest and size not in UNKNOWN_SIZES:
                raise Damaged("sound beyond the end")
            size = rest if size in UNKNOWN_SIZES else size
            sound += size
        position += 8 + size + size % 2
    if not second:
        raise Damaged("no description of the sound")
    return sound / second


def _bytes_of_a_second(description: bytes) -> int:
    """Computed, for the header's own figure may be any."""
    kind, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", description)
    if kind == EXTENSIBLE:
        (kind,) = struct.unpack_from("<H", description, 24)
    if bits not in WIDTHS.get(kind, ()) or rate not in RATES or not channels or block != channels * bits // 8:
        raise Damaged("a kind of sound that is not taken")
    return int(block * rate)
