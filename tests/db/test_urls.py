"""What a DATABASE_URL names is read as SQLAlchemy reads it, without loading it."""

from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.urls import backend_of, database_path, file_url


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///data/yral_chat.db",
        "sqlite:////var/lib/yral chat/a%20b%3Fc%25.db",
        "sqlite+pysqlite:///x?mode=ro&cache=shared",
        "sqlite:///a#b/c:d@e.db",
        "sqlite:///äö/ü%C3%A4.db",
        "sqlite://:p/w@h/x.db",
        "sqlite+a+b:///x",
        "sqlite://C/x?a=/b",
    ],
)
def test_the_file_of_a_url_is_the_one_that_sqlalchemy_would_open(url: str) -> None:
    assert backend_of(url) == make_url(url).get_backend_name()
    assert str(database_path(url)) == make_url(url).database


@pytest.mark.parametrize("name", ["a b", "100%", "what?", "#1", "a+b&c=d", "ä", "%41"])
def test_a_file_is_found_by_its_url_whatever_its_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name / "chat.db"
    assert database_path(file_url(path)) == Path(make_url(file_url(path)).database or "") == path.resolve()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://h?x=/y/z"])
def test_a_database_without_a_file_is_refused(url: str) -> None:
    assert backend_of(url) == "sqlite"
    with pytest.raises(DatabaseUnusable, match="needs a file"):
        database_path(url)


@pytest.mark.parametrize(
    "url",
    ["", "data/chat.db", "sqlite", "sqlite:data", "sqlite3:///a", "sqlite://C:/x", "mysql://h/d", "postgres://h/d"],
)
def test_what_is_no_url_of_ours_is_refused(url: str) -> None:
    with pytest.raises(DatabaseUnusable, match="DATABASE_URL"):
        backend_of(url)


def test_a_server_is_named() -> None:
    assert backend_of("postgresql+psycopg://me:word@host:5432/chat") == "postgresql"
