"""The last unit of an erasure, with somebody who did not wait for it."""

from tests.db.conftest import add_influencer
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.services import chat, people
from yral_chat.services.accounts import erasing
from yral_chat.services.accounts.erasure_log import Erasure


async def test_what_begins_during_an_erasure_is_counted_for_the_account_after_it(database: Database) -> None:
    def unit(uow: UnitOfWork) -> tuple[int, int]:
        add_influencer(uow, "bot")
        chat._open(uow, "mine", "bot")
        people.open_pair(uow, "mine", "other")
        people.open_pair(uow, "another", "mine")  # nobody has written in it: not in this inbox
        erasing.finish(uow, Erasure("erasure", "mine", "2026-03-01T09:30:00.000000Z"), erasing.total([]))
        return uow.conversations.count("mine")

    assert await database.write(unit) == (1, 1)
    page = await database.read(chat._list_inbox, "mine", "mine", "all", None, 20, 0)
    assert len(page["conversations"]) == page["total"] == 2
