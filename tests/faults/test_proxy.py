"""The proxy fails as it was told to, and not otherwise."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from tests.faults.proxy import Fault, FaultProxy
from tests.waiting import there, until


@pytest.fixture
async def echo() -> AsyncIterator[str]:
    """A server that answers each line with the same in capitals; its `host:port`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def said(proxy: FaultProxy, *lines: bytes) -> bytes:
    """Everything that comes back, until the end. Raises ConnectionError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        for line in lines:
            writer.write(line)
            await writer.drain()
        with suppress(OSError):  # it was faster
            writer.write_eof()
        return await reader.read()
    finally:
        writer.close()


async def test_it_carries_both_ways_and_heals(echo: str) -> None:
    with FaultProxy(echo) as proxy:
        assert await said(proxy, b"one\n", b"two\n") == b"ONE\nTWO\n"
        proxy.fault = Fault("cut", after=2)
        assert await said(proxy, b"one\n") == b"ON"
        proxy.heal()
        assert await said(proxy, b"one\n") == b"ONE\n"


@pytest.mark.parametrize("side", ["client", "server"])
async def test_a_reset_is_a_reset(echo: str, side: str) -> None:
    with FaultProxy(echo) as proxy:
        proxy.fault = Fault("reset", side="server" if side == "server" else "client")
        with pytest.raises(ConnectionResetError):
            await said(proxy, b"one\n")
        assert proxy.struck == 1


async def test_a_word_can_be_what_strikes(echo: str) -> None:
    with FaultProxy(echo) as proxy:
        proxy.fault = Fault("cut", at=b"TWO")
        assert await said(proxy, b"one\ntwo\nthree\n") == b"ONE\n"
        proxy.fault = Fault("cut", at=b"TWO", passes=True)
        assert await said(proxy, b"one\ntwo\nthree\n") == b"ONE\nTWO"


async def test_a_word_can_strike_only_after_another(echo: str) -> None:
    with FaultProxy(echo) as proxy:
        proxy.fault = Fault("cut", "client", at=b"one", since=b"two")
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        for line in (b"one\n", b"two\n"):
            writer.write(line)
            assert await reader.readline() == line.upper()
        writer.write(b"one\n")
        assert await reader.read() == b""
        writer.close()


async def test_a_fault_ends_after_so_many_times(echo: str) -> None:
    with FaultProxy(echo) as proxy:
        proxy.fault = Fault("cut", times=2)
        assert [await said(proxy, b"one\n") for _ in range(3)] == [b"", b"", b"ONE\n"]


async def test_a_black_hole_stays_one_for_those_who_are_in_it(echo: str) -> None:
    with FaultProxy(echo) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"one\n")
        assert await reader.readline() == b"ONE\n"
        proxy.fault = Fault("silence", side="client")
        writer.write(b"two\n")
        await until(there(lambda: proxy.struck == 1), what="the fault")
        proxy.heal()
        writer.write(b"three\n")
        assert await said(proxy, b"four\n") == b"FOUR\n"
        assert not reader.at_eof()
        proxy.break_all()
        with pytest.raises(ConnectionResetError):
            await reader.readline()
        writer.close()


async def test_a_refused_connection_is_refused_and_accepted_later_at_the_same_port(echo: str) -> None:
    with FaultProxy(echo) as proxy:
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", proxy.port)):
            pass
        proxy.heal()
        assert await said(proxy, b"one\n") == b"ONE\n"


async def test_what_is_slow_arrives_whole(echo: str) -> None:
    with FaultProxy(echo) as proxy:
        proxy.delay_seconds, proxy.bytes_per_second = 0.01, 1000
        line = b"x" * 100 + b"\n"
        assert await said(proxy, line) == line.upper()
