"""A client of the wire that holds every answer to the OpenAPI document, and reads event streams."""

import json
import ssl
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import httpx2
from jsonschema import Draft202012Validator

from tests.service import Service, token

Json = dict[str, Any]

# Loopback has no TLS, and reading the system's certificates for it would take longer than most tests.
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Document:
    """The service's own OpenAPI document, as a judge of its answers."""

    def __init__(self, document: Json) -> None:
        self.document = document
        self._validators: dict[str, Draft202012Validator] = {}
        self._templates = sorted(
            (template.strip("/").split("/") for template in document["paths"]), key=lambda parts: str(parts)
        )

    @classmethod
    def of(cls, service: Service) -> Self:
        """Asks for it."""
        return cls(httpx2.get(f"{service.url}/openapi.json", timeout=30, verify=PLAIN).json())

    def template_of(self, path: str) -> str | None:
        """The documented path that this one is of; fixed parts win over parameters."""
        parts = path.strip("/").split("/")
        fitting = [
            template
            for template in self._templates
            if len(template) == len(parts)
            and all(a == b or a.startswith("{") for a, b in zip(template, parts, strict=True))
        ]
        if not fitting:
            return None
        best = min(fitting, key=lambda template: [part.startswith("{") for part in template])
        return "/" + "/".join(best)

    def check(self, response: httpx2.Response) -> None:
        """Raises AssertionError when status, type or body are not documented."""
        method, template = response.request.method.lower(), self.template_of(response.request.url.path)
        if template is None or method not in self.document["paths"][template]:
            assert response.status_code in (404, 405), f"undocumented {method} {response.request.url.path}"
            return
        documented = self.document["paths"][template][method]["responses"]
        status = str(response.status_code)
        if status == "304":
            return
        assert status in documented, f"{method} {template} does not document {status}: {response.text[:500]}"
        if not response.headers.get("content-type", "").startswith("application/json"):
            return
        schema = documented[status].get("content", {}).get("application/json", {}).get("schema")
        assert schema is not None, f"{method} {template} {status} has no schema"
        self.validate(schema, response.json(), f"{method} {template} {status}")

    def validate(self, schema: Json, instance: Any, what: str) -> None:
        """`what` names the schema too."""
        if what not in self._validators:
            whole = {**schema, "components": self.document["components"]}
            self._validators[what] = Draft202012Validator(whole)
        errors = [
            f"{'/'.join(map(str, error.absolute_path))}: {error.message[:300]}"
            for error in self._validators[what].iter_errors(instance)
        ]
        assert not errors, f"{what}: {errors}"


class Event:
    """One server-sent event."""

    def __init__(self, lines: list[str]) -> None:
        fields = dict(line.split(": ", 1) for line in lines)
        self.id = fields["id"]
        self.event = fields["event"]
        self.data: Any = json.loads(fields["data"])

    def __repr__(self) -> str:
        return f"<{self.event} {self.id} {str(self.data)[:80]}>"


async def read_events(response: httpx2.Response) -> AsyncIterator[Event]:
    """The events of a stream; comments are passed over."""
    lines: list[str] = []
    async for line in _lines(response):
        if line.startswith(":"):
            continue
        if line:
            lines.append(line)
        elif lines:
            yield Event(lines)
            lines = []


async def _lines(response: httpx2.Response) -> AsyncIterator[str]:
    """Lines as the event stream format has them: `aiter_lines` would also break at U+2028 and its like."""
    waiting = b""
    async for chunk in response.aiter_bytes():
        *complete, waiting = (waiting + chunk).split(b"\n")
        for line in complete:
            yield line.decode()


def text_of(events: list[Event]) -> str:
    """The tokens of a stream, joined."""
    return "".join(event.data["text"] for event in events if event.event == "token")


class Api:
    """One user. Every answer that passes through `request` is checked against the document."""

    def __init__(
        self, url: str, document: Document, user_id: str | None = None, verify: ssl.SSLContext = PLAIN
    ) -> None:
        self.url = url
        self.document = document
        self.user_id = user_id or f"user-{uuid.uuid4()}"
        self.http = httpx2.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {token(self.user_id)}"}, timeout=60, verify=verify,
            # Less than after which the service closes an idle connection: a request might just be on its way.
            limits=httpx2.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=3.0),
        )  # fmt: skip

    async def close(self) -> None:
        await self.http.aclose()

    async def request(self, method: str, path: str, **kwargs: Any) -> httpx2.Response:
        response = await self.http.request(method, path, **kwargs)
        self.document.check(response)
        return response

    async def get(self, path: str, **kwargs: Any) -> httpx2.Response:
        return await self.request("GET", path, **kwargs)

    async def post(self, path: str, json: Any = None, **kwargs: Any) -> httpx2.Response:
        return await self.request("POST", path, json=json, **kwargs)

    async def delete(self, path: str, **kwargs: Any) -> httpx2.Response:
        return await self.request("DELETE", path, **kwargs)

    # what a person does

    async def influencers(self) -> list[Json]:
        found: list[Json] = (await self.get("/api/v1/influencers")).json()["influencers"]
        return found

    async def open(self, influencer_id: str | None = None) -> Json:
        """The conversation with this influencer, by default the first of the list."""
        influencer_id = influencer_id or (await self.influencers())[0]["id"]
        response = await self.post("/api/v1/chat/conversations", {"influencer_id": influencer_id})
        assert response.status_code == 201, response.text
        conversation: Json = response.json()
        return conversation

    async def send(self, conversation_id: str, content: str, **more: Any) -> httpx2.Response:
        """A text message; `more` are further fields of the body."""
        return await self.post(messages(conversation_id), {"message_type": "text", "content": content, **more})

    async def said(self, conversation_id: str, content: str, **more: Any) -> tuple[Json, Json]:
        """Sends, expects a reply, and returns (user message, assistant message)."""
        response = await self.send(conversation_id, content, **more)
        assert response.status_code == 200, response.text
        return response.json()["user_message"], response.json()["assistant_message"]

    @asynccontextmanager
    async def streaming(
        self, method: str, path: str, json: Any = None, headers: dict[str, str] | None = None
    ) -> AsyncIterator[tuple[httpx2.Response, AsyncIterator[Event]]]:
        """An open event stream, which leaving the block cuts."""
        async with self.http.stream(method, path, json=json, headers=headers) as response:
            yield response, read_events(response)

    async def stream(self, conversation_id: str, content: str, **more: Any) -> list[Event]:
        """Sends with streaming and returns all events."""
        body = {"message_type": "text", "content": content, **more}
        async with self.streaming("POST", f"{messages(conversation_id)}/stream", body) as (response, events):
            assert response.status_code == 200, (await response.aread()).decode()
            return [event async for event in events]

    async def resume(self, conversation_id: str, message_id: str, last_event_id: str | None = None) -> list[Event]:
        headers = {"Last-Event-ID": last_event_id} if last_event_id else None
        path = f"{messages(conversation_id)}/{message_id}/stream"
        async with self.streaming("GET", path, headers=headers) as (response, events):
            assert response.status_code == 200, (await response.aread()).decode()
            return [event async for event in events]

    async def history(self, conversation_id: str, **query: Any) -> list[Json]:
        """The newest messages, oldest first unless asked otherwise."""
        response = await self.get(messages(conversation_id), params={"order": "asc", "limit": 200, **query})
        assert response.status_code == 200, response.text
        found: list[Json] = response.json()["messages"]
        return found


def messages(conversation_id: str) -> str:
    return f"/api/v1/chat/conversations/{conversation_id}/messages"
