"""Ports that stay ours: a server that is started again listens where it did, however many tests run beside this one."""

import os
import socket
import sys
import weakref


class HeldPort:
    """A TCP port of loopback, until nobody has this object any more.

    Its socket is bound and does not listen: whoever connects is refused, until a server that shares the address
    (SO_REUSEADDR, as servers do) listens there; and again when that is gone. Meanwhile the kernel gives the port to
    nobody who binds to port 0 or connects. Only Linux shares so; elsewhere the port was free a moment ago.
    """

    def __init__(self) -> None:
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        self.number: int = holder.getsockname()[1]
        if sys.platform == "linux":
            weakref.finalize(self, os.close, holder.detach())
        else:
            holder.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.number}"
