"""What people have in the service while somebody else tries their doors."""

import uuid
from contextlib import closing
from functools import cached_property
from typing import Any

import httpx2
from sqlalchemy import func, insert, select

from tests.api.access.callers import PEOPLE, headers_of
from tests.client import PLAIN, Json
from tests.rows import add_influencer, connect, execute, fetch
from tests.service import Service
from tests.waiting import until
from yral_chat.core.clock import now
from yral_chat.db.tables import counter_deltas, jobs, memories, messages, metadata, turns

CONVERSATIONS, HUMAN = "/api/v1/chat/conversations", "/api/v1/chat/human/conversations"

# Tables that are empty when nothing is left to be done.
UNFINISHED = (jobs, turns, counter_deltas)
ANSWERED = 2  # messages of a world: the reply, and what was written to the friend
# Which of the marks below a caller may ever see; all others see none.
MAY_SEE = {
    "user": {"person", "chat", "human"},
    "peer": {"person", "human"},
    "bot owner": {"person", "chat", "prompt"},
}


class World:
    """A user who talks to somebody's bot and to a friend. Each thing is made when it is first asked for.

    `marks` are in everything that is theirs: where one shows, something of theirs shows.
    """

    def __init__(self, service: Service, client: httpx2.Client) -> None:
        self.service = service
        self.client = client
        number = uuid.uuid4().hex
        self.ids = {who: f"{who.replace(' ', '-')}-{number}" for who in PEOPLE}
        self.marks = {
            "person": self.ids["user"],
            "chat": f"chat-{number}",
            "human": f"between-friends-{number}",
            "prompt": f"secret-of-the-persona-{number}",
        }
        self.headers = headers_of(self.ids)

    def call(self, who: str, method: str, path: str, **request: Any) -> httpx2.Response:
        return self.client.request(method, path, headers=self.headers[who], **request)

    @cached_property
    def bot(self) -> str:
        return add_influencer(
            self.service,
            owner_id=self.ids["bot owner"],
            system_instructions=f"You are brief. Never say {self.marks['prompt']}.",
            initial_greeting="Hello!",
        )

    @cached_property
    def conversation(self) -> str:
        made: str = self._made("user", CONVERSATIONS, {"influencer_id": self.bot})["id"]
        return made

    @cached_property
    def reply(self) -> str:
        """A delivered answer, which is the newest message of the conversation."""
        body = {"message_type": "text", "content": f"Keep this: {self.marks['chat']}"}
        sent = self._made("user", f"{CONVERSATIONS}/{self.conversation}/messages", body)
        reply: str = sent["assistant_message"]["id"]
        return reply

    @cached_property
    def memory(self) -> str:
        """The key of something that is remembered of the user."""
        row = {"conversation_id": self.conversation, "key": "city", "value": self.marks["chat"], "confidence": 90}
        times = {"source_seq": 1, "created_at": now(), "updated_at": now()}
        execute(self.service, insert(memories).values(row | times))
        return "city"

    @cached_property
    def human_conversation(self) -> str:
        found: str = self._made("user", HUMAN, {"participant_id": self.ids["peer"]})["id"]
        body = {"message_type": "text", "content": self.marks["human"]}
        self._made("user", f"{HUMAN}/{found}/messages", body)
        return found

    async def build(self) -> None:
        """Everything at once; returns when nothing works in the background any more that could change a row."""
        _ = self.reply, self.memory, self.human_conversation
        await until(self._is_settled, what="nothing is left to be done")

    async def _is_settled(self) -> bool:
        handed_over = select(func.count()).where(
            messages.c.conversation_id.in_([self.conversation, self.human_conversation]), messages.c.is_handed_over
        )
        left = [fetch(self.service, select(func.count()).select_from(table))[0][0] for table in UNFINISHED]
        return not any(left) and fetch(self.service, handed_over)[0][0] == ANSWERED

    def _made(self, who: str, path: str, body: Json) -> Any:
        response = self.call(who, "POST", path, json=body)
        assert response.is_success, response.text
        return response.json()

    def seen_in(self, response: httpx2.Response) -> set[str]:
        """The names of the marks that stand in an answer, headers included."""
        text = f"{response.text}\n{response.headers}"
        return {name for name, mark in self.marks.items() if mark in text}

    def rows(self) -> set[str]:
        """The rows that have a mark of this world."""
        return {row for row in all_rows(self.service) if any(mark in row for mark in self.marks.values())}


def all_rows(service: Service) -> set[str]:
    """Every row of every table as text."""
    with closing(connect(service)) as connection:
        found = {
            f"{table.name}: {tuple(row)}"
            for table in metadata.sorted_tables
            for row in connection.execute(select(table))
        }
    connection.engine.dispose()
    return found


def client_of(service: Service) -> httpx2.Client:
    return httpx2.Client(base_url=service.url, verify=PLAIN, timeout=60)
