"""What a part out of a dump is not taken from, and that it may be an older one."""

import hashlib
import subprocess
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select

from tests.backups.media.deployment import Deployment
from tests.backups.postgres.conftest import MakeSettings
from tests.programs import PrivatePostgres
from tests.rows import At, fetch
from tests.upgrades.conftest import EARLIER
from tests.upgrades.dumps import load
from yral_chat.db.backends import create_database
from yral_chat.db.migrations import migrate
from yral_chat.db.tables import conversations, messages
from yral_chat.db.verification import examine
from yral_chat.restore_part_commands import RestoreCommandFailed, Wanted, restore_part
from yral_chat.services import chat
from yral_chat.services.backups.dumps import Dumps

pytestmark = pytest.mark.postgres


def nothing(_: object) -> None:
    pass


def pg_dump(url: str) -> bytes:
    command = ["pg_dump", "--format=custom", "--no-owner", "--no-privileges", url]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout


async def test_nothing_is_put_back_out_of_a_dump_that_is_not_what_it_was(
    deployment: Deployment, tmp_path: Path
) -> None:
    made = await Dumps(deployment.settings).make(nothing)
    record = tmp_path / "dumps" / f"{made.name}.json"
    record.write_bytes(msgspec.json.encode(msgspec.structs.replace(made, sha256="0" * 64)))
    with pytest.raises(RestoreCommandFailed, match=r"is not what it was: It is damaged.* Nothing was put back\."):
        await restore_part(deployment.settings, None, None, Wanted(user_id="ada"), nothing)


async def test_a_dump_of_an_earlier_version_is_upgraded_first(
    postgres: PrivatePostgres, settings_of: MakeSettings, tmp_path: Path
) -> None:
    url = postgres.create_database()
    load(EARLIER[-1], url)
    settings = settings_of(url)
    settings.data_dir.mkdir()
    tables, data = examine(url).tables, pg_dump(url)
    migrate(url)
    made = await Dumps(settings).make(nothing)
    older = {"revision": EARLIER[-1], "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "tables": tables}
    (tmp_path / "dumps" / f"{made.name}.dump").write_bytes(data)
    (tmp_path / "dumps" / f"{made.name}.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(made, **older)))
    persona = conversations.c.influencer_id.is_not(None)
    query = select(conversations.c.id, conversations.c.user_id).where(persona).order_by(conversations.c.message_count)
    id_, user = fetch(At(url), query)[-1]
    told = select(messages.c.id).where(messages.c.conversation_id == id_).order_by(messages.c.seq)
    before = fetch(At(url), told)
    database = create_database(url)
    await database.open()
    await database.write(chat._delete, user, id_)
    await database.close()
    assert fetch(At(url), told) == []
    await restore_part(settings, None, None, Wanted(id_, is_forced=True), nothing)
    assert fetch(At(url), told) == before
