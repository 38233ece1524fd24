"""A database thread's connection to PostgreSQL, and the means to end its waiting from outside.

libpq waits for an answer as long as TCP keeps the connection: hours where packets vanish, for ever where the server
lives and says nothing (a stopped process, a disk that hangs, a pooler). The thread cannot be woken, but its socket can
be shut down: then it sees a lost connection, as after a cut.
"""

import os
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection


class Session:
    """`use`, `begin`, `end` and `drop` belong to the thread, `cut_if_late` to whoever watches."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.was_cut = False  # until the thread says otherwise
        self._since: float | None = None
        # A second name of the socket: libpq may close the first one, and its number may be another's by then.
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def use(self, connection: Connection) -> Connection:
        """From now on this session is `connection`."""
        driver_connection: Any = connection.connection.driver_connection
        self.connection = connection
        self._socket = socket.socket(fileno=os.dup(driver_connection.fileno()))
        return connection

    def begin(self) -> None:
        """The server is asked something."""
        self._since = time.monotonic()

    def end(self) -> None:
        """It has answered, or nobody waits any more."""
        self._since = None

    def cut_if_late(self, seconds: float) -> bool:
        """Ends a wait of more than `seconds`; returns whether there was one."""
        since = self._since
        if since is None or time.monotonic() - since < seconds:
            return False
        with self._lock:
            if self._socket is None:
                return False
            self.was_cut = True
            with suppress(OSError):  # it has ended in the meantime
                self._socket.shutdown(socket.SHUT_RDWR)
        return True

    def drop(self) -> None:
        """The connection is of no use any more. The next one is opened anew, not taken from a pool."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None
        if self.connection is not None:
            self.connection.invalidate()
            self.connection.close()
            self.connection = None
