"""Fails when the migrations make other tables than yral_chat.db.tables declares.

Two comparisons: Alembic's, which asks what a new migration would have to do, and the definitions that the database
itself gives, migrated against created straight from the tables (defaults, order and condition of indexes, checks,
actions of foreign keys, all of which Alembic compares loosely or not). SQLite always; PostgreSQL where it is installed.

Fails also when there is a migration that no database of the revision before it is kept for.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from loguru import logger
from sqlalchemy import Connection, Engine

from tests.programs import PrivatePostgres, postgres_binaries
from yral_chat.db import migrations
from yral_chat.db.tables import metadata

DUMPS = Path(__file__).parent.parent / "tests/upgrades/data"

# Each row describes one thing in full, in the database's own words.
DEFINITIONS = {
    "sqlite": {
        "column": """
            SELECT t.name, c.name, c.type, c."notnull", c.dflt_value, c.pk, c.hidden
            FROM sqlite_schema t, pragma_table_xinfo(t.name) c WHERE t.type = 'table'
        """,
        "index": "SELECT tbl_name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL",
        "unique or primary key": """
            SELECT t.name, i.origin, group_concat(c.name)
            FROM sqlite_schema t, pragma_index_list(t.name) i, pragma_index_info(i.name) c
            WHERE t.type = 'table' AND i.origin <> 'c' GROUP BY t.name, i.name, i.origin
        """,
        "foreign key": """
            SELECT t.name, f."from", f."table", f."to", f.on_update, f.on_delete
            FROM sqlite_schema t, pragma_foreign_key_list(t.name) f WHERE t.type = 'table'
        """,
        "trigger or view": "SELECT tbl_name, sql FROM sqlite_schema WHERE type IN ('trigger', 'view')",
    },
    "postgresql": {
        "column": """
            SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity, collation_name
            FROM information_schema.columns WHERE table_schema = 'public'
        """,
        "index": "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public'",
        "constraint": """
            SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
            FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        """,
        "trigger": "SELECT tgrelid::regclass::text, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
    },
}


def definitions(connection: Connection) -> set[str]:
    """Everything in the database but Alembic's own table, one line each."""
    found: set[str] = set()
    for kind, query in DEFINITIONS[connection.dialect.name].items():
        for table, *rest in connection.exec_driver_sql(query):
            if table != "alembic_version":
                found.add(f"{kind} of {table}: {' '.join(' '.join(map(str, rest)).split())}")
    return found


def _is_for_alembic(_item: object, _name: str | None, kind: str, *_: object) -> bool:
    # On SQLite it takes every index with a DESC column for a changed one; the definitions compare indexes exactly.
    return kind != "index"


def differences(migrated: Connection, created: Connection) -> list[str]:
    """What the migrated database and the declared tables do not have in common; `created` must be empty."""
    metadata.create_all(created)
    context = MigrationContext.configure(migrated, opts={"compare_type": True, "include_object": _is_for_alembic})
    found = [f"Alembic: {difference}" for difference in compare_metadata(context, metadata)]
    before, after = definitions(migrated), definitions(created)
    found += [f"only in the migrations: {line}" for line in sorted(before - after)]
    found += [f"only in tables.py: {line}" for line in sorted(after - before)]
    return found


def compare(migrated_url: str, created_url: str) -> list[str]:
    """Migrates the first of two empty databases, creates the second from tables.py, and compares them."""
    migrations.migrate(migrated_url)
    with opened(migrated_url) as migrated, opened(created_url) as created:
        found = differences(migrated.connect(), created.connect())
    return found


@contextmanager
def opened(url: str) -> Iterator[Engine]:
    engine = migrations.open_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def check_sqlite() -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        return compare(*(f"sqlite:///{Path(folder) / name}.db" for name in ("migrated", "created")))


def check_postgres(binaries: Path) -> list[str]:
    with PrivatePostgres(binaries) as server:
        return compare(server.create_database(), server.create_database())


def check_head() -> list[str]:
    """`migrations.HEAD` is written down so that a start need not read the scripts: it must name the newest."""
    heads = ScriptDirectory(str(Path(migrations.__file__).parent)).get_heads()
    return [] if heads == [migrations.HEAD] else [f"HEAD is {migrations.HEAD}, the newest of the scripts: {heads}"]


def dumps_missing(head: str, folder: Path) -> list[str]:
    """Revisions before `head` of which `folder` keeps no database: upgrades from them are not tested."""
    earlier = [f"{number:04d}" for number in range(1, int(head))]
    return [revision for revision in earlier if not (folder / revision / "database.sql.gz").exists()]


def check_dumps() -> list[str]:
    return [
        f"no database of revision {revision} is kept in tests/upgrades/data: name the last commit that had it in"
        f" tests/upgrades/versions.py, and run python -m tests.upgrades.make {revision}"
        for revision in dumps_missing(migrations.HEAD, DUMPS)
    ]


def main() -> int:
    logger.remove()
    found = check_head() + check_dumps() + [f"sqlite: {line}" for line in check_sqlite()]
    binaries = postgres_binaries()
    if binaries is not None:
        found += [f"postgresql: {line}" for line in check_postgres(binaries)]
    elif os.environ.get("REQUIRE_SERVICES") == "1":
        found.append("PostgreSQL server not installed, and REQUIRE_SERVICES=1 forbids skipping")
    on = "SQLite and PostgreSQL" if binaries else "SQLite (PostgreSQL server not installed: not compared)"
    print("\n".join(found) or f"the migrations make what tables.py declares, on {on}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
