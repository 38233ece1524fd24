"""The advisory lock that makes one process the only one that serves a PostgreSQL database."""

import threading
from collections.abc import Callable
from typing import Literal

from loguru import logger
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from yral_chat.core.ids import new_id
from yral_chat.db.failures import DatabaseInUse, DatabaseUnusable
from yral_chat.db.sessions import Session

# The key of the lock that says "this database is served": "yralchat" in hexadecimal.
SERVE_LOCK = 0x7972616C63686174
# The lock goes with its connection, which a restart of the server ends: so often is looked whether it is still there.
LOCK_SECONDS = 2.0

# The sessions of one process have a name of their own, by which it finds those that it has lost: also one that got the
# lock and whose answer was lost.
_TAKE = text("SELECT pg_try_advisory_lock(:key)")
_FREE = text("SELECT pg_advisory_unlock(:key)")
_END_OWN = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity JOIN pg_locks USING (pid)"
    " WHERE application_name = :name AND pid <> pg_backend_pid() AND locktype = 'advisory' AND granted"
)


def session_name() -> str:
    """The `application_name` for all sessions of one ServeLock, and of no other."""
    return f"yral-chat serve {new_id()}"


class ServeLock:
    """`take` before anything else, `keep` while serving. `connect` makes sessions of this `name`, and raises
    DatabaseUnusable."""

    def __init__(self, connect: Callable[[], Connection], name: str) -> None:
        self.session = Session()
        self.is_displaced = False  # another process has the lock now
        self._connect = connect
        self._name = name
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None

    def take(self) -> None:
        """Raises DatabaseInUse, DatabaseUnusable."""
        if self._try() != "taken":
            raise DatabaseInUse("This PostgreSQL database is served by another process. Stop it first.")

    def keep(self) -> None:
        """From now on a thread takes it anew when its connection was lost. Nothing where it was never taken."""
        if self.session.connection is not None:
            self._keeper = threading.Thread(target=self._keep, name="db-lock", daemon=True)
            self._keeper.start()

    def close(self) -> None:
        """Frees it. Takes as long as the server's last answer, which `session` can cut short."""
        self._closing.set()
        if self._keeper is not None:
            self._keeper.join()
        self._free()
        self._drop()

    def _keep(self) -> None:
        while not self._closing.wait(LOCK_SECONDS):
            if self._is_alive():
                continue
            self._drop()
            try:
                outcome = self._try()
            except DatabaseUnusable:
                continue  # the server is away; so are our other connections
            if outcome == "others":
                self.is_displaced = True
                logger.critical("postgres.served_by_another_process")
                return
            if outcome == "taken":
                logger.warning("postgres.lock_taken_again")

    def _try(self) -> Literal["taken", "mine", "others"]:
        """`mine`: a session of our own has it, whose end the server has not noticed yet, and is being ended."""
        connection = self.session.use(self._connect().execution_options(isolation_level="AUTOCOMMIT"))
        self.session.begin()
        try:
            if connection.execute(_TAKE, {"key": SERVE_LOCK}).scalar():
                return "taken"
            is_mine = connection.execute(_END_OWN, {"name": self._name}).first() is not None
        except DBAPIError as error:
            self._drop()
            raise DatabaseUnusable("PostgreSQL does not answer. Look at its log.") from error
        finally:
            self.session.end()
        self._drop()
        return "mine" if is_mine else "others"

    def _is_alive(self) -> bool:
        if self.session.connection is None:
            return False
        self.session.begin()
        try:
            self.session.connection.execute(text("SELECT 1"))
        except DBAPIError:
            return False
        finally:
            self.session.end()
        return True

    def _free(self) -> None:
        """The server notices the end of a connection only later: until then the next process would be refused."""
        if self.session.connection is None:
            return
        self.session.begin()
        try:
            self.session.connection.execute(_FREE, {"key": SERVE_LOCK})
        except DBAPIError:
            logger.info("postgres.lock_left_to_the_server")
        finally:
            self.session.end()

    def _drop(self) -> None:
        if self.session.connection is not None:
            engine = self.session.connection.engine
            self.session.drop()
            engine.dispose()
