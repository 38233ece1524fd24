"""Objects as Litestream writes them, changed so that they still agree with themselves: as a fault of its own would."""

from pathlib import Path

import fastcrc
import lz4.block  # type: ignore[import-untyped]

from yral_chat.clients.ltx import FRAME, HEADER, HEADER_BYTES, IS_CHECKSUM, SIZE_FOLLOWS


def pages_of(data: bytes) -> dict[int, bytes]:
    """By number, as they are in the database."""
    page_size = HEADER.unpack_from(data)[2]
    place, pages = HEADER_BYTES, {}
    while (frame := FRAME.unpack_from(data, place))[0]:
        number, _, size = frame
        place += FRAME.size
        pages[number] = lz4.block.decompress(data[place : place + size], uncompressed_size=page_size)
        place += size
    return pages


def rewrite(path: Path, old: bytes, new: bytes) -> int:
    """Replaces a text by one as long in all pages of an object; returns how often it was there."""
    data = path.read_bytes()
    pages = pages_of(data)
    path.write_bytes(_packed(data[:HEADER_BYTES], {n: page.replace(old, new) for n, page in pages.items()}))
    return sum(page.count(old) for page in pages.values())


def _packed(header: bytes, pages: dict[int, bytes]) -> bytes:
    packed, plain, index = bytearray(header), bytearray(header), bytearray()
    for number, page in pages.items():
        block = lz4.block.compress(page, store_size=False)
        frame = FRAME.pack(number, SIZE_FOLLOWS, len(block))
        index += _varint(number) + _varint(len(packed)) + _varint(len(frame) + len(block))
        packed += frame + block
        plain += frame + page
    index += _varint(0)
    end = bytes(6) + index + len(index).to_bytes(8) + bytes(8)
    return bytes(packed) + end + (fastcrc.crc64.go_iso(plain + end) | IS_CHECKSUM).to_bytes(8)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
