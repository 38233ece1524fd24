"""Names that nobody has asked for: whoever imports a card gets a free one, also while others import the same."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.db.conftest import add_influencer
from tests.services.cards import v3
from yral_chat.clients.identity import Identity
from yral_chat.core.config import Settings
from yral_chat.core.ids import UserId
from yral_chat.resources import Resources
from yral_chat.services.characters.creating import Created
from yral_chat.services.characters.names import free_name


@pytest.fixture
async def resources(tmp_path: Path, database_url: str) -> AsyncIterator[Resources]:
    url = SecretStr(database_url)
    opened = Resources(Settings(_env_file=None, environment="test", data_dir=tmp_path, database_url=url))
    await opened.open()
    yield opened
    await opened.close()


async def test_a_name_that_is_taken_between_any_two_looks_is_no_conflict(
    resources: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, look, taken = resources.database, resources.database.read, ["another", "a-third", "a-fourth"]

    async def read(*unit: Any, **options: Any) -> Any:
        found = await look(*unit, **options)
        if taken:
            name = await look(free_name, "Together")
            await database.write(add_influencer, taken.pop(), name=name, name_key=name.lower())
        return found

    monkeypatch.setattr(database, "read", read)
    card = tmp_path / "card.json"
    card.write_text(json.dumps(v3(name="Together")))
    caller = Identity(UserId("somebody"), is_anonymous=False, expires_at=0)
    made = await resources.cards.import_card(caller, card, persona_id=None, name=None, is_preview=False)
    assert isinstance(made, Created)
    assert made.influencer["name"] == "Together4"
    assert taken == []
