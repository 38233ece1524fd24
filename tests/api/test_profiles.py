"""Names of people, from a real profile service to what a persona is told and what its owner sees."""

from tests.api.conftest import MakeUser, StartService
from tests.api.people import V2, inbox
from tests.fakes.profiles import ProfileServer
from tests.rows import add_influencer
from tests.service import FakeModel


async def test_a_name_reaches_the_greeting_the_prompt_and_the_owners_inbox(
    service_with: StartService, user_of: MakeUser, model: FakeModel
) -> None:
    async with ProfileServer() as profiles:
        service = service_with(PROFILE_URL=profiles.url)
        owner, user, stranger = user_of(service), user_of(service), user_of(service)
        profiles.names = {user.user_id: "meera", stranger.user_id: ""}
        bot = add_influencer(
            service,
            owner_id=owner.user_id,
            system_instructions="Call the person {{user}} whenever you can, and be kind.",
            initial_greeting="Namaste {{user}}!",
        )
        opened = await user.open(bot)
        assert [row["content"] for row in opened["recent_messages"]] == ["Namaste meera!"]
        await user.said(opened["id"], "Hello")
        (asked,) = model.requests()
        assert "Call the person meera whenever you can" in str(asked["body"]["systemInstruction"])

        (row,) = (await inbox(owner, V2, principal=bot))["conversations"]
        assert row["user"]["principal_id"] == user.user_id
        assert row["user"]["username"] == "meera"
        assert profiles.asked == [f"/people/{user.user_id}"], "and nobody is asked twice"

        nameless = await stranger.open(bot)
        assert [row["content"] for row in nameless["recent_messages"]] == ["Namaste you!"]
