"""Programs that run beside us, and are spoken to by pipes, on every event loop.

Not asyncio.create_subprocess_exec: uvloop runs Python's own handlers in the forked child
(https://github.com/MagicStack/uvloop/issues/749). Where another thread held a lock of the interpreter just then, the
child waits for it for ever, and our event loop for the child (https://github.com/python/cpython/issues/112275). Once
in some hundred starts of Litestream that was so, and the service stood still. subprocess.Popen runs no Python there.
"""

import asyncio
import errno
import os
import signal
import subprocess
import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import IO, Final, Self

PIPE: Final = subprocess.PIPE
NOTHING: Final = subprocess.DEVNULL


class _Handed:
    """A pipe for uvloop, which closes the number and then the file: by then another thread may have that number."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._number = os.dup(pipe.fileno())

    def fileno(self) -> int:
        return self._number

    def close(self) -> None:
        """It is closed already."""


class Program:
    """A running one, as asyncio.subprocess.Process. `start` makes it; a stream that was not asked for is None.

    `close` it once it has ended: what it left behind may hold the other ends of its pipes for long.
    """

    stdin: asyncio.StreamWriter | None = None
    stdout: asyncio.StreamReader | None = None
    stderr: asyncio.StreamReader | None = None

    def __init__(self, popen: "subprocess.Popen[bytes]") -> None:
        self._popen = popen
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._transports: list[asyncio.BaseTransport] = []

    @classmethod
    async def start(
        cls,
        *command: str,
        stdin: int = NOTHING,
        stdout: int = NOTHING,
        stderr: int = NOTHING,
        env: Mapping[str, str] | None = None,
        start_new_session: bool = False,
        pass_fds: Collection[int] = (),
    ) -> Self:
        """Each of the three is PIPE or NOTHING. Raises OSError, ValueError."""
        # In this thread, which outlives it: for setpriv's --pdeathsig it is the thread that is the parent. It takes as
        # long as the kernel needs; asyncio's own loop does the same.
        popen = subprocess.Popen(  # noqa: ASYNC220, S603 - see above; whoever calls this has chosen the program
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=env,
            start_new_session=start_new_session,
            pass_fds=pass_fds,
            bufsize=0,
        )
        program = cls(popen)
        try:
            threading.Thread(target=program._wait, name=f"program-{popen.pid}", daemon=True).start()
        except RuntimeError as error:
            popen.kill()
            popen.wait()
            program._close_pipes()
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
        try:
            await program._connect()
        except BaseException:
            program.kill()
            program.close()
            program._close_pipes()
            raise
        return program

    async def _connect(self) -> None:
        if self._popen.stdin is not None:
            protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
            transport, _ = await self._loop.connect_write_pipe(lambda: protocol, self._hand_over(self._popen.stdin))
            self._transports.append(transport)
            self.stdin = asyncio.StreamWriter(transport, protocol, None, self._loop)
        if self._popen.stdout is not None:
            self.stdout = await self._read(self._popen.stdout)
        if self._popen.stderr is not None:
            self.stderr = await self._read(self._popen.stderr)

    async def _read(self, pipe: IO[bytes]) -> asyncio.StreamReader:
        reader = asyncio.StreamReader()
        handed = self._hand_over(pipe)
        transport, _ = await self._loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), handed)
        self._transports.append(transport)
        return reader

    def _hand_over(self, pipe: IO[bytes]) -> IO[bytes] | _Handed:
        """What the event loop owns, and closes, from now on."""
        if isinstance(self._loop, asyncio.SelectorEventLoop):
            return pipe
        with pipe:
            return _Handed(pipe)

    def _close_pipes(self) -> None:
        """Those that nobody else has closed, or will."""
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                pipe.close()

    def _wait(self) -> None:
        status = self._popen.wait()
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._tell, status)

    def _tell(self, status: int) -> None:
        if not self._ended.done():
            self._ended.set_result(status)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the number of the signal that has ended it."""
        return self._popen.returncode

    async def wait(self) -> int:
        """Its exit status."""
        return await asyncio.shield(self._ended)

    async def communicate(self) -> tuple[bytes, bytes]:
        """What it printed until its end, on both."""
        assert self.stdout is not None and self.stderr is not None  # noqa: S101, PT018 - they were asked for
        out, errors, _ = await asyncio.gather(self.stdout.read(), self.stderr.read(), self.wait())
        return out, errors

    def send_signal(self, number: int) -> None:
        """Nothing happens where it has ended."""
        self._popen.send_signal(number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Lets go of its pipes."""
        for transport in self._transports:
            transport.close()
