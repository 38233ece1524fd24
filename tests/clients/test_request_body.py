"""Bodies with media: what the plain encoder would give, in pieces that never stop the loop for long."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yral_chat.clients.request_body import PIECE_BYTES, Base64, JsonBody


async def pieces_of(body: JsonBody) -> list[bytes]:
    content = body.content()
    if isinstance(content, bytes):
        return [content]
    assert isinstance(content, AsyncIterator)
    return [piece async for piece in content]


def plain(value: Any) -> Any:
    if isinstance(value, Base64):
        return value.prefix + base64.b64encode(value.data).decode()
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


BODIES = st.recursive(
    st.text() | st.integers(-(2**53), 2**53) | st.none() | st.binary().map(lambda data: Base64(data, prefix="data:x,")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(BODIES)
async def test_a_body_is_what_the_plain_encoder_would_give(value: Any) -> None:
    body = JsonBody(value)
    sent = b"".join(await pieces_of(body))
    assert json.loads(sent) == plain(value)
    assert len(sent) == body.size


@pytest.mark.parametrize("size", [0, 1, 2, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 5 * PIECE_BYTES + 2])
async def test_media_leaves_in_small_pieces_and_each_sending_begins_anew(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    body = JsonBody({"data": Base64(data[:size])})
    pieces = await pieces_of(body)
    assert max(map(len, pieces)) <= 4 * PIECE_BYTES // 3
    assert json.loads(b"".join(pieces)) == {"data": base64.b64encode(data[:size]).decode()}
    assert await pieces_of(body) == pieces
    assert body.headers == {"Content-Length": str(body.size)}


async def test_a_long_text_leaves_in_pieces_too() -> None:
    body = JsonBody({"text": "x" * 2**21})
    pieces = await pieces_of(body)
    assert max(map(len, pieces)) <= PIECE_BYTES
    assert len(b"".join(pieces)) == body.size


async def test_a_body_without_media_is_sent_as_one() -> None:
    body = JsonBody({"text": "hello"})
    assert body.content() == b'{"text":"hello"}'
    assert body.headers == {}


def test_what_has_no_place_in_json_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        JsonBody({"x": object()})
