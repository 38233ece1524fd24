"""What people see of a service, to be compared with what they saw before."""

from typing import Any
from urllib.parse import urlsplit

from tests.client import Api, Document, Json, messages

CONVERSATIONS = "/api/v1/chat/conversations"


class Looking:
    """One person, and what the service of a revision can show."""

    def __init__(self, url: str, document: Document, user_id: str) -> None:
        self.api = Api(url, document, user_id)
        self._paths = document.document["paths"]

    async def look(self) -> Json:
        """Answers by address."""
        found: Json = {}
        conversations: list[str] = []
        for version in ("v1", "v2", "v3"):
            path = f"/api/{version}/chat/conversations"
            if path in self._paths:
                found[path] = await self._get(path, limit=100)
                conversations += [conversation["id"] for conversation in found[path]["conversations"]]
        for path in ("/api/v1/users/me/export", "/api/v1/users/me/settings", "/api/v1/chat/human/conversations"):
            if path in self._paths:
                found[path] = await self._get(path)
        for id_ in sorted(set(conversations)):
            found |= await self._conversation(id_)
        return found | await self._personas()

    async def _conversation(self, id_: str) -> Json:
        path = f"{CONVERSATIONS}/{id_}"
        found = {path: await self._get(path)}
        found[messages(id_)] = await self._get(messages(id_), order="asc", limit=200, include="unfinished")
        if f"{CONVERSATIONS}/{{conversation_id}}/memories" in self._paths and found[path]["influencer"]:
            found[f"{path}/memories"] = await self._get(f"{path}/memories")
        return found

    async def _personas(self) -> Json:
        listed = await self._get("/api/v1/influencers", limit=100)
        found: Json = {"/api/v1/influencers": listed}
        for persona in listed["influencers"]:
            path = f"/api/v1/influencers/{persona['id']}"
            found[path] = await self._get(path)
            if found[path].get("system_prompt") is not None:  # only its owner sees it
                for more in ("/versions", "/card"):
                    found[path + more] = await self._get(path + more)
        return found

    async def _get(self, path: str, **query: Any) -> Json:
        response = await self.api.get(path, params=query or None)
        assert response.status_code == 200, f"{path}: {response.text}"
        answer: Json = plain(response.json())
        return answer


def plain(value: Any) -> Any:
    """The same without what changes by itself: ports, signatures, the time of the look, how popular a persona is."""
    if isinstance(value, dict):
        dropped = {"exported_at"} | (
            {"conversation_count", "message_count"} if "conversation_count" in value else set()
        )
        return {key: plain(item) for key, item in value.items() if key not in dropped}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, str) and value.startswith("http://127.0.0.1:"):
        return urlsplit(value).path
    return value


def differences(before: Any, after: Any, place: str = "") -> list[str]:
    """What is not as it was; what is new is none."""
    if isinstance(before, dict) and isinstance(after, dict):
        gone = [f"{place}/{key}: gone" for key in before if key not in after]
        kept = [key for key in before if key in after]
        return gone + [line for key in kept for line in differences(before[key], after[key], f"{place}/{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = zip(before, after, strict=True)
        return [line for at, pair in enumerate(pairs) for line in differences(*pair, f"{place}/{at}")]
    return [] if before == after else [f"{place}: was {before!r:.200}, is {after!r:.200}"]
