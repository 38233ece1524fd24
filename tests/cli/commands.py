"""The command line as people use it: real processes, with a terminal where one is needed."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

SECONDS = 60.0
ROOT = Path(__file__).parents[2]
KEPT = ("PATH", "HOME", "LANG", "TMPDIR")
# Makes its standard input its controlling terminal, as a shell does, and becomes the program.
# Ctrl-C means something there, also when whoever runs the tests in the background ignores it.
IN_TERMINAL = (
    "import fcntl, os, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
)


class Finished(NamedTuple):
    status: int
    out: str
    err: str


class Cli:
    """`yral-chat` in one folder with one set of settings; None takes a setting away."""

    def __init__(self, folder: Path, **settings: str | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.settings: dict[str, str | None] = {
            "DATA_DIR": str(folder / "data"),
            "OFFLINE_WORDS_PER_SECOND": "0",
            **settings,
        }

    @property
    def data(self) -> Path:
        return Path(self.settings["DATA_DIR"] or self.folder / "data")

    def environment(self, **changes: str | None) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith("COVERAGE")}
        given = {name: value for name, value in (self.settings | changes).items() if value is not None}
        return {**kept, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT), **given}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "yral_chat.cli", *arguments]

    def run(self, *arguments: str, lines: str = "", **changes: str | None) -> Finished:
        """Runs to the end, with `lines` as its piped input."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(**changes),
            input=lines,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def in_terminal(self, *arguments: str) -> "Terminal":
        return Terminal(self, *arguments)


class Terminal:
    """A program in a terminal of 80 columns: what it shows, and somebody who types."""

    def __init__(self, cli: Cli, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", IN_TERMINAL, *cli.command(*arguments)],
            cwd=cli.folder,
            env=cli.environment() | {"TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._shown = ""
        self._seen = 0
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # Linux says so when the other side is closed
                data = b""
            with self._changed:
                self._shown += data.decode("utf-8", "replace")
                self._changed.notify_all()
            if not data:
                return

    @property
    def shown(self) -> str:
        return self._shown

    def expect(self, text: str, seconds: float = SECONDS) -> str:
        """Waits until `text` appears behind what was expected before; returns what came up to its end."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while (found := self._shown.find(text, self._seen)) < 0:
                if not self._changed.wait(deadline - time.monotonic()):
                    raise AssertionError(f"{text!r} did not come; the terminal shows:\n{self._shown}")
            before = self._shown[self._seen : found + len(text)]
            self._seen = found + len(text)
            return before

    def send(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def ctrl_c(self) -> None:
        self.send("\x03")

    def ctrl_d(self) -> None:
        self.send("\x04")

    def wait(self) -> int:
        """The exit status."""
        return self.process.wait(SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        os.close(self._ours)
