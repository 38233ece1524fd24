"""What the wires of all vendors have in common."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from tests.fakes.behaviour import NATURAL, Behaviour, Wire


class Event(msgspec.Struct, frozen=True):
    data: bytes
    is_text: bool = False


def echo_text(message: str) -> str:
    """What a server in echo mode answers to `message`: whoever reads the answer knows which prompt it belongs to."""
    return f"You said: {message}"


def words_of(text: str) -> tuple[str, ...]:
    words = text.split(" ")
    return tuple(word if not at else f" {word}" for at, word in enumerate(words))


def texts_of(behaviour: Behaviour) -> tuple[str, ...]:
    texts = (behaviour.chunk_text,) * behaviour.chunks or behaviour.pieces
    if behaviour.duplicate is not None:
        texts = texts[: behaviour.duplicate + 1] + texts[behaviour.duplicate :]
    return texts


def damaged(data: bytes, behaviour: Behaviour, at: int) -> bytes:
    if behaviour.invalid_utf8_in != at:
        return data
    text = b'"text":"' if b'"text":"' in data else b'"content":"'
    return data.replace(text, text + b"\xff\xfe", 1)


def redirect_of(status: int) -> dict[str, str]:
    """To an address that answers 200, so that whoever follows it notices."""
    return {"Location": "/control"} if 300 <= status < 400 else {}


def message_of(status: int, behaviour: Behaviour) -> str:
    if status == 429:
        return "Too many requests at the moment, try again later." if behaviour.is_load else "You exceeded your quota."
    return {401: "Incorrect key.", 404: "The model is not found.", 503: "The model is overloaded."}.get(
        status, f"The request failed with {status}."
    )


def finish_reason(wire: Wire, behaviour: Behaviour) -> str | None:
    if behaviour.finish_reason != NATURAL:
        return behaviour.finish_reason
    return "STOP" if wire == "gemini" else "stop"


def json_response(body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, headers=headers, content_type="application/json")


def bearer(request: web.Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ").strip()


async def delayed(behaviour: Behaviour) -> None:
    """Waits as long as the vendor is silent; for ever when it stalls."""
    if behaviour.stall_after is not None:
        await asyncio.Event().wait()
    if behaviour.first_byte_delay:
        await asyncio.sleep(behaviour.first_byte_delay)
