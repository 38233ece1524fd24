"""The personas that ship are loaded once, renewed when their files change, and never over an owner's edit."""

from yral_chat import personas
from yral_chat.core.cache import LRUCache
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.services.influencers import InfluencerService


def service(database: Database) -> InfluencerService:
    return InfluencerService(database, LRUCache(), base_url="http://here")


async def test_seeding_twice_changes_nothing(database: Database) -> None:
    influencers = service(database)
    assert await influencers.seed() == len(personas.load())
    before = await database.read(lambda uow: uow.influencers.list_listed(100, 0))
    assert await influencers.seed() == 0
    assert await database.read(lambda uow: uow.influencers.list_listed(100, 0)) == before


async def test_a_changed_file_renews_the_row(database: Database) -> None:
    influencers = service(database)
    await influencers.seed()
    first = personas.load()[0]

    def make_old(uow: UnitOfWork) -> None:
        uow.influencers.update(first.id, description="of an older version", seed_hash="older")

    await database.write(make_old)
    assert await influencers.seed() == 1
    renewed = await influencers.find(first.id)
    assert renewed is not None
    assert renewed.description == first.description


async def test_an_owners_edit_stays(database: Database) -> None:
    influencers = service(database)
    await influencers.seed()
    edited, owned = personas.load()[:2]

    def edit(uow: UnitOfWork) -> None:
        uow.influencers.update(edited.id, description="mine", seed_hash=None)
        uow.influencers.update(owned.id, description="adopted", owner_id="somebody", seed_hash="older")

    await database.write(edit)
    assert await influencers.seed() == 0
    for persona_id, description in ((edited.id, "mine"), (owned.id, "adopted")):
        stored = await influencers.find(persona_id)
        assert stored is not None
        assert stored.description == description


async def test_pictures_get_whole_addresses(database: Database) -> None:
    influencers = service(database)
    assert influencers.absolute("/static/personas/x.webp") == "http://here/static/personas/x.webp"
    assert influencers.absolute("https://elsewhere/x.png") == "https://elsewhere/x.png"
    assert influencers.absolute("") == ""
