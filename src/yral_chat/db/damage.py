"""Whether a SQLite file is still a whole database: looked at before anything opens it to write.

One that was not closed as it should be is read once from end to end; one that was, as far as one gets in a second.
"""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from loguru import logger
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from yral_chat.db.failures import DatabaseDamaged
from yral_chat.db.files import HEADER, INTERRUPT, check_file, check_log, error_code, lock_path
from yral_chat.db.inspection import reading_all
from yral_chat.db.sqlite import find_damage

# A start does not wait longer for it: what a large file has behind that, the next drill looks at. 1 GB takes 4 s.
CHECK_SECONDS = 30.0
CLOSED_SECONDS = 1.0  # where nobody has died
STEPS = 1000  # of SQLite, or pages, between two looks at the clock

CORRUPT, NOT_A_DATABASE, SHORT_READ = 11, 26, 522  # https://www.sqlite.org/rescode.html


def was_closed(path: Path) -> bool:
    """False when whoever served this database has died: see `SQLiteDatabase.open`."""
    with suppress(OSError):
        return lock_path(path).read_bytes() == b""
    return True


def check_at_start(path: Path) -> None:
    """`check_damage`, for as long as a start may take for it."""
    check_damage(path, seconds=CLOSED_SECONDS if was_closed(path) else CHECK_SECONDS)


def check_damage(path: Path, *, seconds: float = CHECK_SECONDS) -> None:
    """Reads the header and the schema, and then everything, for so many seconds at most.

    Raises DatabaseDamaged; changes nothing. What cannot be read for another reason is left to whoever opens it.
    """
    check_log(path)
    if not path.is_file() or not path.stat().st_size:
        return
    with suppress(OSError), path.open("rb") as file:
        if file.read(len(HEADER)) != HEADER:
            raise DatabaseDamaged(path, "it does not begin as a SQLite database does")
    check_file(path)
    try:
        with reading_all(path) as connection:
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema")
            _read_all(connection, path, seconds)
    except DBAPIError as error:
        if error_code(error) & 0xFF in (CORRUPT, NOT_A_DATABASE) or error_code(error) == SHORT_READ:
            raise DatabaseDamaged(path, str(error.orig)) from error


def _read_all(connection: Connection, path: Path, seconds: float) -> None:
    driver: Any = connection.connection.dbapi_connection
    started = time.monotonic()
    driver.set_progress_handler(lambda: time.monotonic() - started > seconds, STEPS)
    try:
        damage = find_damage(connection)
    except DBAPIError as error:
        if error_code(error) != INTERRUPT:
            raise
        logger.info("database.check_cut", seconds=seconds, bytes=path.stat().st_size)
        return
    finally:
        driver.set_progress_handler(None, 0)
    if damage:
        raise DatabaseDamaged(path, damage)
    # Of interest where somebody waits for it.
    level = "INFO" if seconds > CLOSED_SECONDS else "DEBUG"
    logger.log(level, "database.checked", seconds=round(time.monotonic() - started, 1))
