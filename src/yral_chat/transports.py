"""What the kernel knows of connections: what waits in it for a client, and how many there may be."""

import asyncio
import fcntl
import resource
import sys
import termios
from contextlib import suppress
from typing import Final

from yral_chat.core.logging import log

# A body may come so slowly, and an answer be taken, after the first SLOW_CLIENT_SECONDS: twice the 500 of Apache's
# mod_reqtimeout.
MIN_BYTES_PER_SECOND: Final = 1024
# Files beside the connections: the database, logs, uploads on their way.
RESERVED_FILES: Final = 64


class Untaken:
    """What waits for a client to take it, since `time`; nothing is added meanwhile."""

    def __init__(self, transport: asyncio.Transport, time: float) -> None:
        self._transport = transport
        self._since = time
        self._bytes = self._count()

    def is_for_too_long(self, time: float, seconds: float) -> bool:
        """Whether the client was slower than `seconds` and MIN_BYTES_PER_SECOND."""
        taken = max(0, self._bytes - self._count())
        return time - self._since > seconds + taken / MIN_BYTES_PER_SECOND

    def _count(self) -> int:
        """Ours, and the kernel's: it asks us for more only after a third of its own, which may be megabytes."""
        in_kernel = bytes(4)
        with suppress(OSError):  # not known of every kind of socket, nor everywhere
            in_kernel = fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, in_kernel)
        return int(self._transport.get_write_buffer_size()) + int.from_bytes(in_kernel, sys.byteorder)


def most_connections(wanted: int) -> int:
    """How many of `wanted` the limit of open files allows, which is raised as far as it may be.

    A stream needs two: the client's and the vendor's.
    """
    needed = 2 * wanted + RESERVED_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    most = max(1, (soft - RESERVED_FILES) // 2)
    log.warning("connections.fewer_than_set", most=most, max_connections=wanted, open_files=soft)
    return most
