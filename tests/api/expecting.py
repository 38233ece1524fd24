"""What the tests of the API say about answers again and again."""

from typing import Any

import httpx2

from tests.client import Api, Json
from tests.rows import add_influencer
from tests.service import FakeModel, Service

GREETING = "Hello, what is on your mind?"
# What the client puts before a conversation that the persona began: the vendor wants a user's message first.
OPENING = "…"


async def open_fresh(api: Api, service: Service, **columns: Any) -> Json:
    """A new conversation with a persona of its own, which greets."""
    return await api.open(add_influencer(service, initial_greeting=GREETING, **columns))


def refused(response: httpx2.Response, status: int, code: str, *, retry_after: str | None = None) -> Json:
    """The envelope of a refusal (contract section 2), which this must be."""
    assert response.status_code == status, response.text
    error: Json = response.json()
    assert error["error"] == code, error
    assert error["message"]
    assert isinstance(error["details"], dict)
    assert error["correlation_id"] == response.headers["x-correlation-id"]
    assert ("detail" in error) == (status in (401, 403))
    assert error.get("detail", error["message"]) == error["message"]
    assert ("retry-after" in response.headers) == (status in (429, 503, 504))
    if retry_after is not None:
        assert response.headers["retry-after"] == retry_after
    return error


def texts_sent(request: dict[str, Any]) -> list[str]:
    """What the model was shown of the conversation, oldest first, without the system text."""
    texts = [part["text"] for content in request["body"]["contents"] for part in content["parts"] if "text" in part]
    return texts[1:] if texts[0] == OPENING else texts


async def asked(model: FakeModel, count: int) -> bool:
    """Whether the model has been asked so often since the test began."""
    return model.state()["requests"] >= count


async def newest(api: Api, conversation_id: str) -> Json:
    """The newest row of a conversation, finished or not."""
    return (await api.history(conversation_id, include="unfinished"))[-1]
