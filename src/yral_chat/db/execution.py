"""Core statements, compiled once and run on the driver's own cursor.

SQLAlchemy's `Connection.execute` costs 20 to 60 µs beside the 2 to 10 µs that SQLite takes, and a turn has twenty
statements. Here a statement is declared in Core, compiled at its first use, and from then on costs one dictionary.
What has no fixed text (`IN` with a list) goes through `Connection.execute` as ever.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, Executable, Select, Table, bindparam, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.compiler import SQLCompiler

Row = tuple[Any, ...]
Parameters = Mapping[str, Any]

# Both drivers take parameters by name, so that one dictionary serves both.
_DIALECTS: dict[str, Dialect] = {
    "sqlite": sqlite.dialect(paramstyle="named"),
    "postgresql": postgresql.psycopg.dialect(),  # type: ignore[no-untyped-call]
}


class Statement:
    """One Core statement for both databases; a mapping where they need different ones.

    Booleans come back as SQLite stores them, 0 and 1: whoever builds an object out of a row says `bool`.
    """

    __slots__ = ("_columns", "_compiled", "_source")

    def __init__(
        self, source: Executable | Mapping[str, Executable], *, columns: tuple[str, ...] | None = None
    ) -> None:
        """`columns` are those that an insert fills; None: all of the table."""
        self._source = source
        self._columns = columns
        self._compiled: dict[str, tuple[str, dict[str, Any]]] = {}

    def on(self, dialect: str) -> tuple[str, dict[str, Any]]:
        """(text, the values of its constants) for this database."""
        found = self._compiled.get(dialect)
        if found is None:  # by two threads at once, perhaps: each finds nothing or all of it
            found = self._compiled[dialect] = self._compile(dialect)
        return found

    def _compile(self, dialect: str) -> tuple[str, dict[str, Any]]:
        source = self._source if isinstance(self._source, Executable) else self._source[dialect]
        compiled: SQLCompiler = source.compile(  # type: ignore[attr-defined]
            dialect=_DIALECTS[dialect],
            column_keys=self._columns,
        )
        wanted = {name for bind, name in compiled.bind_names.items() if bind.required}
        constants = dict(compiled.construct_params(dict.fromkeys(wanted)))
        for name in wanted:
            del constants[name]
        return str(compiled), constants


class PageStatement(Statement):
    """A SELECT of many rows, which SQLite gives as one row of JSON.

    Python's driver lets go of the interpreter's lock for each row and waits to get it back: under load the fifty rows
    of a page cost more in that than in everything else. The rows keep the order of the statement, which needs its own
    LIMIT for that (https://sqlite.org/optoverview.html#omit_order_by_on_subqueries_if_they_are_not_needed).
    Columns are numbers and texts only.
    """

    __slots__ = ()

    def _compile(self, dialect: str) -> tuple[str, dict[str, Any]]:
        text, constants = super()._compile(dialect)
        if dialect == "sqlite":
            assert isinstance(self._source, Select)  # noqa: S101 - whoever declares one says SELECT
            names = ", ".join(f"c{number}" for number in range(len(self._source.selected_columns)))
            rows = f"SELECT json_group_array(json_array({names})) FROM page"  # noqa: S608 - numbers that we counted
            text = f"WITH page({names}) AS ({text}) {rows}"
        return text, constants


class UpdateById:
    """`UPDATE table SET … WHERE id = :row`, one statement for each set of columns that is ever asked for."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._statements: dict[tuple[str, ...], Statement] = {}

    def of(self, columns: tuple[str, ...]) -> Statement:
        found = self._statements.get(columns)
        if found is None:
            values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in columns}
            statement = update(self._table).where(self._table.c.id == bindparam("row")).values(values)
            found = self._statements[columns] = Statement(statement)
        return found


class Executor:
    """Runs statements on one connection, inside whatever transaction is open there."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.dialect = connection.dialect.name

    def _execute(self, statement: Statement, parameters: Parameters) -> Any:
        text, constants = statement.on(self.dialect)
        cursor = self.connection.connection.cursor()
        cursor.execute(text, {**constants, **parameters} if constants else parameters)
        return cursor

    def one(self, statement: Statement, parameters: Parameters) -> Row | None:
        """The first row."""
        cursor = self._execute(statement, parameters)
        row: Row | None = cursor.fetchone()
        cursor.close()  # a cursor that is not read to its end would keep SQLite's statement open
        return row

    def all(self, statement: Statement, parameters: Parameters) -> list[Row]:
        if type(statement) is PageStatement and self.dialect == "sqlite":
            page: list[Row] = orjson.loads(self.text(statement, parameters) or b"[]")
            return page
        rows: list[Row] = self._execute(statement, parameters).fetchall()
        return rows

    def text(self, statement: Statement, parameters: Parameters) -> str | None:
        """The text in the first column of the first row."""
        row = self.one(statement, parameters)
        return None if row is None else row[0]

    def number(self, statement: Statement, parameters: Parameters) -> int | None:
        """The number in the first column of the first row."""
        row = self.one(statement, parameters)
        return None if row is None else row[0]

    def count(self, statement: Statement, parameters: Parameters) -> int:
        """As `number`; 0 where there is none."""
        return self.number(statement, parameters) or 0

    def run(self, statement: Statement, parameters: Parameters) -> int:
        """How many rows it concerned."""
        cursor = self._execute(statement, parameters)
        count: int = cursor.rowcount
        cursor.close()
        return count

    def run_many(self, statement: Statement, rows: Sequence[Parameters]) -> None:
        """The same statement for each of `rows`."""
        text, constants = statement.on(self.dialect)
        cursor = self.connection.connection.cursor()
        cursor.executemany(text, [{**constants, **row} for row in rows] if constants else rows)
        cursor.close()

    def update(self, updates: UpdateById, row_id: str, values: Parameters) -> None:
        """Sets these columns of one row."""
        parameters = {f"new_{name}": value for name, value in values.items()}
        parameters["row"] = row_id
        self.run(updates.of(tuple(values)), parameters)
