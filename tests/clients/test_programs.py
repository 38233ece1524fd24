"""Programs beside the service, on the event loop that it has and on Python's own."""

import asyncio
import gc
import io
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import uvloop

from tests.service import children_of
from tests.waiting import there, until
from yral_chat.clients.programs import PIPE, Program

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(params=["uvloop", "asyncio"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if request.param == "uvloop" else None) as runner:
        yield runner


def test_no_python_runs_in_the_child() -> None:
    """There it may wait for a lock of a thread that was not forked: here for one that is never free."""
    script = """
import asyncio, os, threading, uvloop
from tests.waiting import there, until
from yral_chat.clients.programs import PIPE, Program

lock = threading.Lock()
os.register_at_fork(after_in_child=lock.acquire)

async def main():
    lock.acquire()
    program = await Program.start("echo", "hello", stdout=PIPE, stderr=PIPE)
    print(await program.communicate())

uvloop.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "(b'hello\\n', b'')\n"


def test_nothing_is_started_by_the_event_loop() -> None:
    found = [path.name for path in SOURCE.rglob("*.py") if re.search(r"create_subprocess_\w+\(", path.read_text())]
    assert found == []


def test_much_goes_in_and_comes_out(runner: asyncio.Runner) -> None:
    async def echo(data: bytes) -> tuple[bytes, int]:
        program = await Program.start("cat", stdin=PIPE, stdout=PIPE)
        assert program.stdin is not None
        assert program.stdout is not None

        async def give() -> None:
            assert program.stdin is not None
            for start in range(0, len(data), 100_000):
                program.stdin.write(data[start : start + 100_000])
                await program.stdin.drain()
            program.stdin.close()

        giving = asyncio.create_task(give())
        came = await program.stdout.read()
        await giving
        status = await program.wait()
        program.close()
        return came, status

    data = bytes(range(256)) * 20_000
    assert runner.run(echo(data)) == (data, 0)


def test_one_that_ends_before_it_has_read_all_breaks_the_pipe(runner: asyncio.Runner) -> None:
    async def give(program: Program) -> None:
        assert program.stdin is not None
        while True:
            program.stdin.write(bytes(100_000))
            await program.stdin.drain()

    async def give_to_one_that_ends() -> int:
        program = await Program.start("true", stdin=PIPE)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(give(program), 20)
        program.close()
        return await program.wait()

    assert runner.run(give_to_one_that_ends()) == 0


def test_signals_reach_it_and_its_end_is_told(runner: asyncio.Runner) -> None:
    async def end() -> list[int | None]:
        program = await Program.start("sleep", "60")
        before = program.returncode
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(program.wait(), 0.05)
        program.terminate()
        status = await program.wait()
        program.kill()  # too late, which is nobody's fault
        return [before, status, program.returncode, await program.wait()]

    assert runner.run(end()) == [None, -15, -15, -15]


def test_what_it_leaves_behind_does_not_keep_its_pipes_open_here(runner: asyncio.Runner) -> None:
    async def leave() -> bytes:
        program = await Program.start("sh", "-c", "sleep 60 & echo $!", stdout=PIPE)
        assert program.stdout is not None
        left = await program.stdout.readline()
        assert await program.wait() == 0
        program.close()
        await asyncio.sleep(0)
        return left + await asyncio.wait_for(program.stdout.read(), 10)

    left = runner.run(leave())
    subprocess.run(["kill", left.decode().strip()], check=True)


def test_a_program_that_is_not_there_is_said(runner: asyncio.Runner) -> None:
    with pytest.raises(FileNotFoundError):
        runner.run(Program.start("/nowhere/program"))


def open_files() -> set[int]:
    return {id(one) for one in gc.get_objects() if isinstance(one, io.FileIO) and not one.closed}


def test_uvloop_alone_has_the_pipes() -> None:
    """It closes their numbers. A file of the same number would close it again, when it may be another thread's."""

    async def start() -> tuple[set[int], bytes]:
        before = open_files()
        program = await Program.start("cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        more = open_files() - before
        assert program.stdin is not None
        program.stdin.write(b"all the same")
        program.stdin.close()
        out, _ = await program.communicate()
        program.close()
        return more, out

    assert uvloop.run(start()) == (set(), b"all the same")


def descriptors() -> int:
    return psutil.Process().num_fds()


def cats() -> list[psutil.Process]:
    return children_of(os.getpid(), "cat")


def test_nothing_is_left_of_many_also_where_a_start_is_given_up(runner: asyncio.Runner) -> None:
    async def many() -> None:
        for number in range(60):
            starting = asyncio.create_task(Program.start("cat", stdin=PIPE, stdout=PIPE, stderr=PIPE))
            if number % 2:
                await asyncio.sleep(0)
                starting.cancel()
            await asyncio.wait([starting])
            if not starting.cancelled():
                program = await starting
                program.kill()
                await program.communicate()
                program.close()
        await until(there(lambda: cats() == []), what="all of them to be gone")

    runner.run(many())  # what the loop opens once for itself
    before = descriptors()
    runner.run(many())
    gc.collect()
    assert descriptors() <= before
    assert cats() == []


def test_without_a_thread_for_it_nothing_is_started(runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a limit of processes: an error of the system like the others."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(BlockingIOError):
        runner.run(Program.start("sleep", "60", stdout=PIPE))
    assert children_of(os.getpid(), "sleep") == []


def test_a_failure_is_one_also_where_the_ends_of_children_were_ignored() -> None:
    script = """
import asyncio, yral_chat.cli
from yral_chat.clients.programs import Program

async def main():
    print(await (await Program.start("sh", "-c", "exit 3")).wait())

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    assert done.stdout == "3\n"
