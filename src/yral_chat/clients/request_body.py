"""JSON bodies with media in them: encoded piece by piece while they leave."""

import asyncio
import secrets
from binascii import b2a_base64
from collections.abc import AsyncIterator
from typing import Any

import msgspec

# Three bytes are four characters of base64. A piece takes about 0.1 ms to encode, and nothing else runs meanwhile.
PIECE_BYTES = 48 * 1024


class Base64:
    """Stands in a body where bytes are to be sent as a base64 string that begins with `prefix`."""

    __slots__ = ("data", "prefix")

    def __init__(self, data: bytes, prefix: str = "") -> None:
        self.data = data
        self.prefix = prefix


class JsonBody:
    """A JSON body. Media is neither copied nor encoded before it is sent: 20 MB of audio encoded at once would stop
    the event loop for 70 ms and take another 27 MB."""

    def __init__(self, body: Any) -> None:
        media: list[bytes] = []
        gap = secrets.token_hex(16)  # no text of a conversation holds it by chance or by intent

        def leave_a_gap(value: object) -> str:
            if not isinstance(value, Base64):
                raise TypeError(f"{type(value).__name__} has no place in a JSON body")
            media.append(value.data)
            return value.prefix + gap

        encoded = msgspec.json.encode(body, enc_hook=leave_a_gap)
        self._texts = encoded.split(gap.encode()) if media else [encoded]
        self._media = media

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return sum(map(len, self._texts)) + sum(4 * ((len(data) + 2) // 3) for data in self._media)

    @property
    def headers(self) -> dict[str, str]:
        """Without a length it would travel in chunks, which servers of some age do not take."""
        return {"Content-Length": str(self.size)} if self._is_in_pieces else {}

    def content(self) -> bytes | AsyncIterator[bytes]:
        """For the HTTP client; each call begins anew."""
        return self._pieces() if self._is_in_pieces else self._texts[0]

    @property
    def _is_in_pieces(self) -> bool:
        # aiohttp warns of bytes that are longer than 1 MiB, because they are sent in one go.
        return bool(self._media) or len(self._texts[0]) > 2**20

    async def _pieces(self) -> AsyncIterator[bytes]:
        for at, text in enumerate(self._texts):
            async for piece in slices(text):
                yield bytes(piece)
            if at < len(self._media):
                async for piece in slices(self._media[at]):
                    yield b2a_base64(piece, newline=False)


async def slices(data: bytes) -> AsyncIterator[memoryview]:
    """`data` in order, in pieces of PIECE_BYTES, and a chance for others between them."""
    view = memoryview(data)
    for at in range(0, len(view), PIECE_BYTES):
        if at:
            await asyncio.sleep(0)  # a socket that takes everything at once would never let others run
        yield view[at : at + PIECE_BYTES]
