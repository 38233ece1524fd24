"""What people do with each other, as the tests of human chats need it."""

from typing import Any

import httpx2

from tests.client import Api, Json

HUMAN, V1 = "/api/v1/chat/human/conversations", "/api/v1/chat/conversations"
V2, V3 = "/api/v2/chat/conversations", "/api/v3/chat/conversations"


async def open_with(api: Api, other: Api) -> Json:
    """The caller's view of the conversation with `other`."""
    response = await api.post(HUMAN, {"participant_id": other.user_id})
    assert response.status_code == 201, response.text
    conversation: Json = response.json()
    return conversation


async def write(api: Api, conversation_id: str, content: str, **more: Any) -> httpx2.Response:
    """On the route for people."""
    body = {"message_type": "text", "content": content, **more}
    return await api.post(f"{HUMAN}/{conversation_id}/messages", body)


async def wrote(api: Api, conversation_id: str, content: str, **more: Any) -> Json:
    """Writes, expects no reply, and returns the message."""
    response = await write(api, conversation_id, content, **more)
    assert response.status_code == 200, response.text
    assert response.json()["assistant_message"] is None
    message: Json = response.json()["user_message"]
    return message


async def seen(api: Api, conversation_id: str) -> Json:
    response = await api.get(f"{V1}/{conversation_id}")
    assert response.status_code == 200, response.text
    conversation: Json = response.json()
    return conversation


async def inbox(api: Api, path: str = V3, **query: Any) -> Json:
    """A page of a list; without `conversations` it would be none."""
    response = await api.get(path, params=query)
    assert response.status_code == 200, response.text
    page: Json = response.json()
    assert page["has_more"] == (page["offset"] + len(page["conversations"]) < page["total"])
    return page


def ids(page: Json) -> list[str]:
    return [conversation["id"] for conversation in page["conversations"]]


async def texts(api: Api, conversation_id: str) -> list[str]:
    """What this side sees, oldest first."""
    return [row["content"] for row in await api.history(conversation_id)]


async def read(api: Api, conversation_id: str) -> Json:
    response = await api.post(f"{V1}/{conversation_id}/read")
    assert response.status_code == 200, response.text
    mark: Json = response.json()
    return mark


async def delete(api: Api, conversation_id: str) -> int:
    """Returns how many messages were deleted for this side."""
    response = await api.delete(f"{V1}/{conversation_id}")
    assert response.status_code == 200, response.text
    count: int = response.json()["deleted_messages_count"]
    return count
