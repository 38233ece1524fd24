"""Reads the objects that Litestream 0.5 writes, to the last byte: https://github.com/superfly/ltx.

    header        100 bytes: magic, flags, page size, pages, first and last transaction, …
    pages         number (4), flags (2: 1), size (4), the page as one LZ4 block; six zeros end them
    index         where each page is, then its own size (8)
    trailer       checksum of the database (8), of the file (8)

The checksum of the file is CRC-64/GO-ISO of everything before it, of pages as they are unpacked, with the highest bit
set. So whatever changes what an object says is found; what unpacks to the same page for Litestream is no change.
"""

import importlib
import struct
from typing import Any, Final

import msgspec

from yral_chat.clients.litestream import LitestreamError

MAGIC: Final = b"LTX1"
HEADER: Final = struct.Struct(">4sIIIQQ")
FRAME: Final = struct.Struct(">IHI")
HEADER_BYTES: Final = 100
END_BYTES: Final = 6
INDEX_SIZE_BYTES: Final = 8
TRAILER_BYTES: Final = 16
SIZE_FOLLOWS: Final = 1
IS_CHECKSUM: Final = 1 << 63

LZ4: Final = "lz4.block"
CRC64: Final = "fastcrc.crc64"

_LENGTH_FOLLOWS: Final = 15
_LENGTH_GOES_ON: Final = 255


class LtxDamaged(Exception):
    """It is not what was written; the text says what is wrong first."""


class LibraryMissing(LitestreamError):
    """Pages cannot be read here; that says nothing of them."""


class LtxHeader(msgspec.Struct, frozen=True):
    """`pages` is the size of the database after it. Transactions as Litestream counts them."""

    page_size: int
    pages: int
    min_txid: int
    max_txid: int


def read_header(data: bytes | bytearray) -> LtxHeader:
    """Of the first HEADER_BYTES of an object; needs no library. Raises LtxDamaged."""
    if len(data) < HEADER_BYTES:
        raise LtxDamaged("it ends too early")
    magic, _, *numbers = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise LtxDamaged("it does not begin as it must")
    header = LtxHeader(*numbers)
    if not (512 <= header.page_size <= 65536 and header.min_txid <= header.max_txid):
        raise LtxDamaged("its header makes no sense")
    return header


class LtxReader:
    """Takes an object piece by piece; needs memory for a piece, a page, and 8 bytes per page of the database.

    Raises LibraryMissing.
    """

    def __init__(self) -> None:
        self._lz4, self._crc64 = _load(LZ4), _load(CRC64).go_iso
        self._rest = bytearray()
        self._sum = 0
        self._header: LtxHeader | None = None  # once it was fed
        self._has_all_pages = False

    def feed(self, piece: bytes) -> None:
        """Raises LtxDamaged."""
        self._rest += piece
        if self._header is None:
            if len(self._rest) < HEADER_BYTES:
                return
            self._header = read_header(self._rest)
            self._add(self._rest[:HEADER_BYTES])
            del self._rest[:HEADER_BYTES]
        if not self._has_all_pages:
            self._read_pages(self._header.page_size)

    def finish(self) -> LtxHeader:
        """Once all of it was fed. Raises LtxDamaged."""
        if self._header is None or not self._has_all_pages:
            raise LtxDamaged("it ends too early")
        index_bytes = len(self._rest) - INDEX_SIZE_BYTES - TRAILER_BYTES
        if index_bytes < 0:
            raise LtxDamaged("it ends too early")
        if int.from_bytes(self._rest[index_bytes : index_bytes + INDEX_SIZE_BYTES]) != index_bytes:
            raise LtxDamaged("its index has another size")
        self._add(self._rest[:-8])
        if self._sum | IS_CHECKSUM != int.from_bytes(self._rest[-8:]):
            raise LtxDamaged("its checksum is another")
        return self._header

    def _read_pages(self, page_size: int) -> None:
        rest, start = self._rest, 0
        while len(rest) - start >= FRAME.size:
            number, flags, size = FRAME.unpack_from(rest, start)
            if number == 0:
                self._has_all_pages = True
                self._add(rest[start : start + END_BYTES])
                start += END_BYTES
                break
            if flags != SIZE_FOLLOWS or size > 2 * page_size:
                raise LtxDamaged("a page has another form")
            end = start + FRAME.size + size
            if end > len(rest):
                break
            self._add(rest[start : start + FRAME.size])
            self._add(self._page(bytes(rest[start + FRAME.size : end]), page_size, number))
            start = end
        del rest[:start]

    def _page(self, packed: bytes, page_size: int, number: int) -> bytes:
        try:
            page: bytes = self._lz4.decompress(packed, uncompressed_size=page_size)
        except self._lz4.LZ4BlockError as error:
            raise LtxDamaged(f"page {number} cannot be unpacked") from error
        if not _is_strict(packed):
            raise LtxDamaged(f"page {number} cannot be unpacked by Litestream")
        if len(page) != page_size:
            raise LtxDamaged(f"page {number} has another size")
        return page

    def _add(self, data: bytes | bytearray) -> None:
        self._sum = self._crc64(data, self._sum)


def _is_strict(block: bytes) -> bool:
    """Whether Litestream unpacks an LZ4 block that liblz4 has unpacked: for that one a copy from distance 0 is zeros,
    and a copy that the last sequence announces is nothing. Litestream refuses both.

    To read an object takes 1.75 times as long with it: 62 MB of database a second instead of 110.
    """
    place, end = 0, len(block)
    while True:
        token = block[place]
        place += 1
        literals = token >> 4
        if literals == _LENGTH_FOLLOWS:
            while (more := block[place]) == _LENGTH_GOES_ON:
                literals += more
                place += 1
            literals += more
            place += 1
        place += literals
        if place >= end:
            return token & _LENGTH_FOLLOWS == 0
        if not (block[place] or block[place + 1]):
            return False
        place += 2
        if token & _LENGTH_FOLLOWS == _LENGTH_FOLLOWS:
            while block[place] == _LENGTH_GOES_ON:
                place += 1
            place += 1


def check_libraries() -> None:
    """Raises LibraryMissing where no object can be read, and so no backup proven."""
    for module in (LZ4, CRC64):
        _load(module)


def _load(module: str) -> Any:
    """Of the extra `litestream`: who has no backups does without. Raises LibraryMissing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise LibraryMissing(f"{module} is not there. Install it: pip install 'yral-chat[litestream]'") from error
