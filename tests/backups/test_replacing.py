"""What is noted in a data folder while another file takes the place of its database."""

from pathlib import Path

import pytest

from yral_chat.clients.litestream import state_folder
from yral_chat.db.failures import DatabaseInUse
from yral_chat.services.backups.local import load_state, replacing, save_state
from yral_chat.services.backups.restoring import last_local_txid
from yral_chat.services.backups.starting import End, LocalState

SERVED = LocalState("s3://bucket", "database", "generation")
RESTORED = LocalState("s3://bucket", "another", None, End("newest", 12))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Litestream has read it up to transaction 31."""
    path = tmp_path / "yral_chat.db"
    files = state_folder(path) / "ltx" / "0"
    files.mkdir(parents=True)
    (files / "000000000000001f-000000000000001f.ltx").touch()
    save_state(tmp_path, SERVED)
    return path


@pytest.mark.parametrize(
    ("state", "expected"),
    [(None, LocalState("s3://bucket", "database", None, End("generation", 31))), (RESTORED, RESTORED)],
)
def test_the_next_start_knows_what_was_replaced(database: Path, state: LocalState | None, expected: LocalState) -> None:
    with replacing(database.parent, database, state):
        # What a kill leaves now is refused: as the state of before without Litestream's own.
        assert load_state(database.parent) == SERVED
        assert last_local_txid(database) is None
    assert load_state(database.parent) == expected
    with replacing(database.parent, database):
        pass
    assert load_state(database.parent) == expected, "it was still not served"
    assert [path.name for path in database.parent.iterdir()] == ["backup.json"]


def test_what_was_not_replaced_goes_on(database: Path) -> None:
    with pytest.raises(DatabaseInUse), replacing(database.parent, database):
        raise DatabaseInUse
    assert (load_state(database.parent), last_local_txid(database)) == (SERVED, 31)
