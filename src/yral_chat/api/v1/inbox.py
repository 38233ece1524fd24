"""The WebSocket of a person's inbox (contract section 10)."""

import asyncio
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.responses import Response
from starlette.websockets import WebSocketDisconnect, WebSocketState

from yral_chat.api.deps import json_response
from yral_chat.api.errors import errors
from yral_chat.api.v1.event_schemas import CLIENT_FRAMES, CLOSE_CODES, event_documents
from yral_chat.clients.identity import Identity
from yral_chat.core import clock
from yral_chat.core.credentials import socket_token
from yral_chat.core.errors import AppError, Unauthorized
from yral_chat.realtime.hub import DRAINING, Listener
from yral_chat.resources import Resources

router = APIRouter(prefix="/api/v1/chat/ws", tags=["inbox"])

NOT_SIGNED_IN = 4001
NOT_YOUR_INBOX = 4003
TRY_LATER = 1013
MAX_SEQ = 2**63 - 1


@router.get("/docs", response_model=dict[str, Any], responses=errors(500))
async def describe_events() -> Response:
    """Every event with its JSON Schema and an example, client frames and close codes."""
    return json_response({"events": event_documents(), "client_frames": CLIENT_FRAMES, "close_codes": CLOSE_CODES})


@router.websocket("/inbox/{user_id}")
async def open_inbox(websocket: WebSocket, user_id: str) -> None:
    """Accepts first and refuses then, so that browsers see code and reason."""
    resources: Resources = websocket.app.state.resources
    token, subprotocol = socket_token(websocket.scope)
    await websocket.accept(subprotocol)
    identity = await _identify(websocket, resources, token, user_id)
    if identity is None:
        return
    try:
        listener, missed = await resources.inbox.connect(
            user_id,
            wants_deltas=websocket.query_params.get("stream") == "1",
            since=_since(websocket.query_params.get("since")),
        )
    except AppError as error:
        await websocket.close(TRY_LATER, error.message)
        return
    # The token's end is the socket's end.
    loop = asyncio.get_running_loop()
    expiry = loop.call_later(
        max(0.0, identity.expires_at - clock.seconds_now()), listener.close, NOT_SIGNED_IN, "Token has expired"
    )
    try:
        if resources.turns.is_draining:
            listener.close(DRAINING, "the server is draining: reconnect with since")
        await _serve(websocket, listener, missed)
    finally:
        expiry.cancel()
        resources.inbox.disconnect(listener)


async def _identify(websocket: WebSocket, resources: Resources, token: str | None, user_id: str) -> Identity | None:
    """The caller, or None after the socket was closed with the reason."""
    try:
        if token is None:
            raise Unauthorized("Missing authentication token")
        # Verified already where connects are counted (middleware/rate_limits.py).
        caller: Identity | AppError | None = websocket.scope["state"].get("caller")
        identity = caller or await resources.verifier.verify(token)
        if isinstance(identity, AppError):
            raise identity
    except Unauthorized as error:
        await websocket.close(NOT_SIGNED_IN, error.message)
        return None
    except AppError as error:
        await websocket.close(TRY_LATER, error.message)
        return None
    websocket.state.user_id = identity.user_id
    if identity.user_id != user_id:
        await websocket.close(NOT_YOUR_INBOX, "this is not your inbox")
        return None
    return identity


def _since(value: str | None) -> int | None:
    """An unreadable number is an unknown one: it leads to `resync`."""
    if not value:
        return None
    is_number = value.isascii() and value.isdigit() and len(value) <= 18
    return int(value) if is_number else MAX_SEQ


async def _serve(websocket: WebSocket, listener: Listener, missed: list[str]) -> None:
    """Sends until the listener is closed, listens until the client leaves."""
    reader = asyncio.create_task(_read(websocket, listener))
    try:
        for missed_frame in missed:
            await websocket.send_text(missed_frame)
        while (frame := await listener.take()) is not None:
            await websocket.send_text(frame)
        if listener.closed is not None and websocket.client_state is WebSocketState.CONNECTED:
            code, reason = listener.closed
            await websocket.close(code, reason)
    except WebSocketDisconnect:
        pass  # the client left while we were sending
    finally:
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader


async def _read(websocket: WebSocket, listener: Listener) -> None:
    """Answers `ping`; ignores everything else. A client that leaves closes the listener."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            listener.close(message.get("code") or 1005, "")
            return
        if message.get("text") == "ping":
            listener.put("pong")
