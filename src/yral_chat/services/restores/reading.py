"""What a copy of the database has of a conversation or a person. The units here run on the copy."""

from collections.abc import AsyncIterator

from yral_chat.core.errors import NotFound
from yral_chat.db.database import UnitOfWork
from yral_chat.db.repositories.restores import Copied
from yral_chat.db.snapshots import Snapshot
from yral_chat.services.accounts.erasing import nobody_of
from yral_chat.services.restores.erased import AccountErased, Erasures
from yral_chat.services.restores.records import Then, Wanted

PAGE = 200


async def list_conversations(copy: Snapshot, wanted: Wanted) -> AsyncIterator[str]:
    """Ids of what is wanted. Raises NotFound when the copy has no such conversation."""
    if wanted.conversation_id is not None:
        if await copy.read(lambda uow: uow.restores.find_conversation(wanted.conversation_id or "")) is None:
            raise NotFound("The copy has no such conversation")
        yield wanted.conversation_id
        return
    user_id, after = wanted.user_id or "", ""
    while page := await copy.read(lambda uow, after: uow.accounts.list_ai_conversations(user_id, after, PAGE), after):
        for conversation_id, after in page:  # noqa: B007 - the last one is where the next page begins
            yield conversation_id
    for conversation_id in await copy.read(lambda uow: uow.accounts.list_human_conversations(user_id)):
        yield conversation_id


def find_then(uow: UnitOfWork, conversation_id: str, wanted: Wanted, erasures: Erasures) -> Then | None:
    """None when nobody who is wanted saw it then. Raises AccountErased when nobody of it may come back; NotFound when
    it is not the wanted person's."""
    row = uow.restores.find_conversation(conversation_id)
    if row is None:
        return None
    people = [person for person in (row["user_id"], row["other_user_id"]) if person is not None]
    if wanted.user_id is not None and wanted.user_id not in people:
        raise NotFound("In the copy this conversation is not that person's")
    gone = {person: nobody_of(erasure) for person in people if (erasure := erasures.find(uow, person)) is not None}
    asked = {wanted.user_id} if wanted.user_id is not None else set(people)
    if asked <= gone.keys():
        raise AccountErased
    sides = {side["principal_id"]: side for side in uow.restores.list_sides(conversation_id)}
    seen = frozenset(person for person in asked - gone.keys() if person in sides and not sides[person]["is_hidden"])
    return Then(row, sides, gone, seen) if seen else None


def list_shown(uow: UnitOfWork, message_ids: list[str], erasures: Erasures) -> tuple[list[Copied], list[Copied]]:
    """What these messages show, as (uses, files), without the files of those whose accounts were erased since."""
    uses, files = uow.restores.list_uses(message_ids)
    gone = {owner for owner in {file["owner_id"] for file in files} if erasures.find(uow, owner) is not None}
    kept = {file["key"] for file in files if file["owner_id"] not in gone}
    return [use for use in uses if use["key"] in kept], [file for file in files if file["key"] in kept]
