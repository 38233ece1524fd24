"""What people do in a service of an earlier revision, as far as it can: to be kept as a dump.

Ada, Bert and Cleo leave nothing unfinished. Zoe does: her service is killed in the middle of her reply.
"""

from contextlib import suppress
from typing import Any

from tests.api import people
from tests.api.creating import created
from tests.client import Api, Document, messages
from tests.crash.outside import CUT
from tests.files import uploaded
from tests.service import FakeModel, Service
from tests.services.cards import encoded, v3
from tests.waiting import until

CONVERSATIONS = "/api/v1/chat/conversations"
INFLUENCERS = "/api/v1/influencers"
ME = "/api/v1/users/me"
AT_REST = ("ada", "bert", "cleo")
# A text that a database could get wrong: scripts, combining characters, quotes, a line break, an emoji of two parts.
DIFFICULT = "Nämaste 'dear' \"friend\" \\ %s :x\n— आज 今日 é 👩‍🚀"
# What Zoe has no whole reply to.
CUT_OFF = "This was cut off"
FACTS = (
    '{"facts": [{"key": "city", "value": "Pune", "confidence": 90},'
    ' {"key": "pet", "value": "a parrot", "confidence": 80}]}'
)


class Town:
    """The people of one service."""

    def __init__(self, service: Service, model: FakeModel) -> None:
        self.service = service
        self.model = model
        self.document = Document.of(service)
        self.ada, self.bert, self.cleo, self.zoe = (self.person(name) for name in (*AT_REST, "zoe"))

    def person(self, name: str) -> Api:
        return Api(self.service.url, self.document, name)

    def can(self, path: str) -> bool:
        """Whether this version has that route."""
        return path in self.document.document["paths"]

    async def close(self) -> None:
        for person in (self.ada, self.bert, self.cleo, self.zoe):
            await person.close()

    # --- without a vendor

    async def talk_offline(self) -> None:
        """Plain conversations with the persona that says that it is offline."""
        personas = await self.ada.influencers()
        for persona in personas[:3]:
            conversation = await self.ada.open(persona["id"])
            await self.ada.said(conversation["id"], f"Hello {persona['name']}")
        read = await self.ada.open(personas[0]["id"])
        await self.ada.stream(read["id"], DIFFICULT)
        await self.ada.post(f"{CONVERSATIONS}/{read['id']}/read")
        await self.ada.said(read["id"], "Once more", client_message_id="a-key")
        gone = await self.bert.open(personas[0]["id"])
        await self.bert.said(gone["id"], "This will be deleted")
        await self.bert.delete(f"{CONVERSATIONS}/{gone['id']}")
        kept = await self.bert.open(personas[1]["id"])
        await self.bert.said(kept["id"], "This will stay")

    # --- with a vendor that is told how to fail

    async def live(self) -> None:
        await self._fail_and_stop()
        if self.can("/api/v1/media/upload"):
            await self._show_and_speak()
        if self.can(people.HUMAN):
            await self._meet()
            await self._make_personas()
            await self._remember()
            await self._leave()

    async def _fail_and_stop(self) -> None:
        conversation = (await self.cleo.open((await self.cleo.influencers())[0]["id"]))["id"]
        _, reply = await self.cleo.said(conversation, "Tell me more")
        again = await self.cleo.post(f"{messages(conversation)}/{reply['id']}/regenerate")
        assert again.status_code == 200, again.text
        for text, wish in (
            ("This reply is blocked", {"block_reason": "SAFETY"}),
            ("This reply fails", {"status": 500}),
        ):
            self.model.tell(default=wish)
            failed = await self.cleo.send(conversation, text)
            assert failed.json()["details"]["assistant_message"]["status"] == "failed", failed.text
        self.model.tell(default={"pieces": ["A reply", " that is", " stopped"], "is_held": True}, release=1)
        await self._stop(conversation)
        self.model.reset()

    async def _stop(self, conversation: str) -> None:
        """Once a part of the text is there."""
        body = {"message_type": "text", "content": "Stop this one"}
        async with self.cleo.streaming("POST", f"{messages(conversation)}/stream", body) as (_, events):
            async for event in events:
                if event.event == "token":
                    break
            reply = (await self.cleo.history(conversation, include="unfinished"))[-1]
            stopped = await self.cleo.post(f"{messages(conversation)}/{reply['id']}/cancel")
            assert stopped.status_code == 200, stopped.text

    async def _show_and_speak(self) -> None:
        conversation = (await self.bert.open((await self.bert.influencers())[2]["id"]))["id"]
        image, voice = await uploaded(self.bert, "image"), await uploaded(self.bert, "audio")
        for body in (
            {"message_type": "multimodal", "content": "What is this?", "media_urls": [image["storage_key"]]},
            {"message_type": "audio", "audio_url": voice["storage_key"], "audio_duration_seconds": 1},
        ):
            response = await self.bert.post(messages(conversation), body)
            assert response.status_code == 200, response.text
        made = await self.bert.post(f"{CONVERSATIONS}/{conversation}/images", {"prompt": "a boat at dawn"})
        assert made.status_code == 201, made.text
        gone = (await self.bert.open((await self.bert.influencers())[3]["id"]))["id"]
        image = await uploaded(self.bert, "image")
        await self.bert.post(messages(gone), {"message_type": "image", "media_urls": [image["storage_key"]]})
        await self.bert.delete(f"{CONVERSATIONS}/{gone}")

    async def _meet(self) -> None:
        chat = (await people.open_with(self.ada, self.bert))["id"]
        for number in range(3):
            await people.wrote(self.ada, chat, f"{DIFFICULT} {number}")
        await people.read(self.bert, chat)
        await people.wrote(self.bert, chat, "And you?", client_message_id="another-key")
        cleared = (await people.open_with(self.cleo, self.ada))["id"]
        await people.wrote(self.cleo, cleared, "Before")
        await people.delete(self.ada, cleared)
        await people.wrote(self.cleo, cleared, "After")
        await self.cleo.http.put(f"{ME}/settings", json={"locale": "hi", "time_zone": "Asia/Kolkata"})

    async def _make_personas(self) -> None:
        made = await created(self.ada, name="tarastudies", display_name="Tara", personality_traits={"humour": "dry"})
        for text in ("You are Tara, who has changed.", "You are Tara, who has changed again."):
            path = f"{INFLUENCERS}/{made['id']}/system-prompt"
            changed = await self.ada.request("PATCH", path, json={"system_instructions": text})
            assert changed.status_code == 200, changed.text
        fields = {"name": "mirabynight"}
        imported = await self.ada.request(
            "POST", f"{INFLUENCERS}/import", data=fields, files={"file": ("card", encoded(v3()))}
        )
        assert imported.status_code == 201, imported.text
        retired = await created(self.ada, name="goneagain", display_name="Gone")
        assert (await self.ada.delete(f"{INFLUENCERS}/{retired['id']}")).status_code == 200
        conversation = (await self.cleo.open(made["id"]))["id"]
        await self.cleo.said(conversation, "Who are you?")
        key = {"X-Admin-Key": self.service.settings["ADMIN_API_KEY"] or ""}
        banned = await self.ada.post(
            f"/api/v1/admin/influencers/{imported.json()['id']}/ban", {"reason": "A trial"}, headers=key
        )
        assert banned.status_code == 200, banned.text

    async def _remember(self) -> None:
        """Two facts, of which one is forgotten; and so many messages that there is a summary."""
        conversation = (await self.cleo.open((await self.cleo.influencers())[4]["id"]))["id"]
        self.model.tell(kinds={"structured": {"pieces": [FACTS]}})
        await self.cleo.said(conversation, "I live in Pune with a parrot")
        path = f"{CONVERSATIONS}/{conversation}/memories"

        async def are_there() -> bool:
            return len((await self.cleo.get(path)).json()["memories"]) == 2

        await until(are_there, what="memories")
        self.model.tell(kinds={"structured": {"pieces": ['{"facts": []}']}})
        assert (await self.cleo.delete(f"{path}/pet")).status_code == 200
        for number in range(14):
            await self.cleo.said(conversation, f"Something long ago, number {number}")

    async def _leave(self) -> None:
        """Somebody comes, talks to everybody, and has the account erased."""
        dora = self.person("dora")
        await dora.said((await dora.open())["id"], "I shall be gone")
        await people.wrote(dora, (await people.open_with(dora, self.ada))["id"], "Goodbye")
        response = await dora.http.request("DELETE", ME, params={"confirm": "dora"})
        assert response.status_code == 200, response.text
        await dora.close()

    # --- what is not finished

    async def leave_unfinished(self) -> None:
        """Ends with the death of the service: in the middle of one reply, and right behind another."""
        personas = await self.zoe.influencers()
        conversation, other = [(await self.zoe.open(persona["id"]))["id"] for persona in personas[:2]]
        if self.can("/api/v1/media/upload"):
            await uploaded(self.zoe, "image")  # and never used
        await self.zoe.said(conversation, "This has its reply")
        self.model.tell(script=[{"pieces": ["This is", " cut off"], "is_held": True}], release=1)
        body: dict[str, Any] = {"message_type": "text", "content": CUT_OFF, "client_message_id": CUT_OFF}
        with suppress(*CUT):
            async with self.zoe.streaming("POST", f"{messages(conversation)}/stream", body) as (_, events):
                async for event in events:
                    if event.event == "token":
                        break
                await self.zoe.said(other, "Nobody has counted this yet")
                self.service.kill()
