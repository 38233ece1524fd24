"""What a person has beside conversations: settings, personas of their own, and pictures for everybody to see."""

import msgspec

from yral_chat.clients.storage import PUBLIC
from yral_chat.core.errors import NotFound
from yral_chat.db.database import UnitOfWork
from yral_chat.db.repositories.media import MediaObject
from yral_chat.db.repositories.restores import Copied
from yral_chat.services.restores.erased import AccountErased, Erasures

PAGE = 200


class Owned(msgspec.Struct, frozen=True):
    """A persona and its texts."""

    row: Copied
    versions: list[Copied]


def check_user(uow: UnitOfWork, user_id: str, erasures: Erasures) -> None:
    """On the copy. Raises AccountErased; NotFound when the copy does not know this person at all."""
    if erasures.find(uow, user_id) is not None:
        raise AccountErased
    if not uow.influencers.is_person(user_id) and not uow.accounts.list_human_conversations(user_id):
        raise NotFound("The copy knows nothing of this person")


def list_public_files(uow: UnitOfWork, user_id: str, after: tuple[int, str]) -> tuple[list[Copied], tuple[int, str]]:
    """On the copy: the next page of the person's avatars, and where the page after that begins; (0, "") at the end."""
    page: list[MediaObject] = uow.accounts.list_files(user_id, after, PAGE)
    rows = [msgspec.structs.asdict(file) for file in page if file.key.startswith(f"{PUBLIC}/")]
    return rows, (page[-1].created_at, page[-1].key) if page else (0, "")


def read_owned(uow: UnitOfWork, influencer_id: str) -> Owned | None:
    row = uow.restores.find_influencer(influencer_id)
    return None if row is None else Owned(row, uow.restores.list_versions(influencer_id))


def put_files(uow: UnitOfWork, user_id: str, files: list[Copied], erasures: Erasures) -> None:
    erasures.check(uow, user_id)
    uow.restores.add_files([file | {"is_stored": True, "is_used": True} for file in files])


def put_settings(uow: UnitOfWork, user_id: str, settings: Copied | None, erasures: Erasures) -> bool:
    """Those of a person who has none now. Returns whether they were put back."""
    erasures.check(uow, user_id)
    return settings is not None and uow.restores.add_settings(settings)


def put_owned(uow: UnitOfWork, user_id: str, owned: Owned, erasures: Erasures) -> bool:
    """A persona that is not there at all; one that was deleted is, and stays so. Returns whether it was put back.

    Its conversations are counted as they come back. Nothing where somebody else has its name now.
    """
    erasures.check(uow, user_id)
    if not uow.restores.add_influencer(owned.row | {"conversation_count": 0}):
        return False
    uow.restores.add_versions(owned.versions)
    return True
