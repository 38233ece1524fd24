"""The pages of a SQLite file: 8 KiB in a new one, and what they were in one that is there already."""

from contextlib import closing
from pathlib import Path

from sqlalchemy import func, insert, select

from yral_chat.db.files import load_driver
from yral_chat.db.migrations import migrate
from yral_chat.db.sqlite import create_sqlite_engine
from yral_chat.db.tables import counters


def page_size(path: Path) -> int:
    with closing(load_driver().connect(str(path))) as connection:
        (found,) = connection.execute("PRAGMA page_size").fetchone()
    return int(found)


def test_a_new_file_has_pages_of_8_kib(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    migrate(f"sqlite:///{path}")
    assert page_size(path) == 8192


def test_a_file_of_other_pages_keeps_them_and_is_used(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(load_driver().connect(str(path), isolation_level=None)) as connection:
        connection.execute("PRAGMA page_size=4096")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE somebody_elses (id INTEGER)")
        connection.execute("DROP TABLE somebody_elses")
    migrate(f"sqlite:///{path}")
    engine = create_sqlite_engine(path)
    with engine.connect() as connection:
        connection.execute(insert(counters).values(name="some", value=1))
        assert connection.scalar(select(func.count()).select_from(counters)) == 1
    engine.dispose()
    assert page_size(path) == 4096
