"""A conversation comes back out of a copy that an earlier version has left."""

from pathlib import Path

import pytest
from sqlalchemy import select

from tests.rows import At, fetch
from tests.upgrades.conftest import EARLIER, LeftBy, on_sqlite
from tests.upgrades.dumps import faults_of, load
from yral_chat.core.config import Settings
from yral_chat.db.backends import create_database
from yral_chat.db.migrations import migrate
from yral_chat.db.tables import conversations, messages
from yral_chat.restore_part_commands import Copy, RestoreCommandFailed, Wanted, restore_part
from yral_chat.services import chat


@on_sqlite
@pytest.mark.parametrize("revision", EARLIER)
async def test_a_copy_of_an_earlier_version_is_upgraded_first(left_by: LeftBy, data: Path, revision: str) -> None:
    url = left_by(revision)
    migrate(url)
    persona = conversations.c.influencer_id.is_not(None)
    query = select(conversations.c.id, conversations.c.user_id).where(persona).order_by(conversations.c.message_count)
    id_, user = fetch(At(url), query)[-1]
    told = select(messages).where(messages.c.conversation_id == id_).order_by(messages.c.seq)
    before = fetch(At(url), told)
    database = create_database(url)
    await database.open()
    await database.write(chat._delete, user, id_)
    await database.close()
    copy = data / "older.db"
    load(revision, f"sqlite:///{copy}")
    settings = Settings(_env_file=None, environment="test", data_dir=data)

    async def restore(*, is_forced: bool) -> list[str]:
        said: list[str] = []
        await restore_part(settings, Copy(copy), None, Wanted(id_, is_forced=is_forced), said.append)
        return said

    with pytest.raises(RestoreCommandFailed, match=f"tables of another version .{revision},"):
        await restore(is_forced=True)
    migrate(f"sqlite:///{copy}")
    with pytest.raises(RestoreCommandFailed, match="one of another database"):  # it had no name until now
        await restore(is_forced=False)
    assert fetch(At(url), told) == []
    assert f"Put back: {len(before)} messages" in (await restore(is_forced=True))[-1]
    assert [row.id for row in fetch(At(url), told)] == [row.id for row in before]
    assert faults_of(url) == []
