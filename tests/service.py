"""The service as its users run it: a process of its own on loopback, which tests start, kill and start again."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
import jwt
import psutil

from tests.ports import HeldPort

START_SECONDS = 60.0
STOP_SECONDS = 60.0
ISSUER = "yral-ai-chat-dev"
SECRET = "a-secret-of-the-tests-with-more-than-32-bytes"
ROOT = Path(__file__).parent.parent


def children_of(pid: int, name: str) -> list[psutil.Process]:
    """What this process has started and has such a name. One may be gone between two looks at it."""
    found = []
    for child in psutil.Process(pid).children():
        with suppress(psutil.NoSuchProcess):
            if child.name() == name:
                found.append(child)
    return found


class Process:
    """A program of ours with the first line that tells where it listens."""

    def __init__(self, command: list[str], environment: dict[str, str], marker: str, folder: Path = ROOT) -> None:
        self.lines: list[str] = []
        self._found: queue.Queue[str] = queue.Queue()
        self._marker = marker
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if self._marker in line:
                self._found.put(line)
        self._found.put("")

    def wait_for_marker(self, seconds: float) -> str:
        """The line that has the marker. Raises AssertionError with the output when it does not come."""
        try:
            line = self._found.get(timeout=seconds)
        except queue.Empty:
            line = ""
        if not line:
            self.end(signal.SIGKILL)
            raise AssertionError("\n".join(["the program did not start:", *self.lines]))
        return line

    def end(self, number: signal.Signals, seconds: float = STOP_SECONDS) -> int:
        """Sends the signal and waits; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise
        self._reader.join(10)
        # What it has begun and left may hold the other end: to close it while somebody reads would wait as long.
        if self.process.stdout is not None and not self._reader.is_alive():
            self.process.stdout.close()
        return status

    @property
    def output(self) -> str:
        return "\n".join(self.lines)


class Service:
    """A service on one database. `settings` are environment variables; None takes one away."""

    def __init__(self, folder: Path, **settings: str | None) -> None:
        self.folder = folder
        self._port = HeldPort()  # the same after a restart, as a real server has it
        self.settings: dict[str, str | None] = {
            "ENVIRONMENT": "test",
            "HOST": "127.0.0.1",
            "DATA_DIR": str(folder / "data"),
            "AUTH_DEV_SECRET": SECRET,
            "LOG_LEVEL": "WARNING",
            "OFFLINE_WORDS_PER_SECOND": "0",
            # That a machine is busy with other tests is no overload; tests/overload sets its own.
            "OVERLOAD_SECONDS": "60",
            # Each turn would ask the vendor once more; tests/api/test_memories.py switches it on.
            "MEMORIES_ENABLED": "false",
            # Tests ask more often than people; tests/api/test_rate_limits.py switches it on.
            "RATE_LIMIT_ENABLED": "false",
            **settings,  # of another service, too, whose port is not ours
            "PORT": str(self._port.number),
        }
        self.command = [sys.executable, "-m", "yral_chat.cli", "serve"]
        self.running: Process | None = None
        self.url = ""

    def start(self) -> Self:
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH") or name.startswith("COVERAGE")
        }
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        environment |= {name: value for name, value in self.settings.items() if value is not None}
        # In a folder of its own, so that no .env of a developer has a say.
        self.running = Process(self.command, environment, "open    http", self.folder)
        line = self.running.wait_for_marker(START_SECONDS)
        # What it prints is where others reach it, which may be a proxy.
        self.url = line.split()[-1] if self.settings.get("PUBLIC_BASE_URL") is None else f"http://{self._listens_at()}"
        return self

    def _listens_at(self) -> str:
        (listening,) = (
            found for found in psutil.Process(self.pid).net_connections("tcp") if found.status == psutil.CONN_LISTEN
        )
        return "{}:{}".format(*listening.laddr)

    @property
    def process(self) -> Process:
        assert self.running is not None, "not started"
        return self.running

    @property
    def pid(self) -> int:
        return self.process.process.pid

    def kill(self) -> None:
        """As a power cut: no warning, nothing is finished."""
        self.process.end(signal.SIGKILL)

    def stop(self) -> int:
        """As a service manager does; returns the exit status."""
        return self.process.end(signal.SIGTERM)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.running is not None:
            if error is not None:
                print(self.running.output)  # noqa: T201 - what a failed test shows
            self.running.end(signal.SIGKILL)

    @property
    def database_url(self) -> str:
        return self.settings.get("DATABASE_URL") or f"sqlite:///{self.folder}/data/yral_chat.db"


def token(user_id: str, *, ttl_seconds: int = 3600, secret: str = SECRET, **claims: Any) -> str:
    """A token of the development issuer."""
    payload = {"iss": ISSUER, "sub": user_id, "exp": int(time.time()) + ttl_seconds, **claims}
    return jwt.encode(payload, secret, algorithm="HS256")


class FakeModel:
    """The fake vendor in a process of its own, for as long as a test run; tests tell it what to do."""

    def __init__(self) -> None:
        self._process = Process(
            [sys.executable, "-m", "tests.fakes.model_server", "--port", "0"], dict(os.environ), "{"
        )
        told = json.loads(self._process.wait_for_marker(START_SECONDS))
        self.base_url_gemini: str = told["base_url_gemini"]
        self.base_url_openai: str = told["base_url_openai"]
        self.base_url_replicate: str = told["base_url_replicate"]
        self._client = httpx2.Client(base_url=told["base_url"], timeout=10)

    def reset(self) -> None:
        """Healthy again; answers what it was told: `You said: …`."""
        self.tell(reset=True, default={"echo": True})

    def reset_but_invoice(self) -> None:
        """Healthy again; what is billed and what came in stays."""
        self.tell(calm=True, default={"echo": True})

    def tell(self, **wishes: Any) -> None:
        """`default`, `script` (one behaviour per coming call), `models` (by name), `kinds` (`chat`, `transcription`,
        `picture`), `release` (so many events of answers that are held): see fakes/model_server.py."""
        self._client.post("/control", json=wishes).raise_for_status()

    def state(self) -> dict[str, int]:
        """`requests`, `open_streams`, `peak_streams`, `disconnects`, `script` (behaviours left), `predictions` and
        `cancelled` (of Replicate)."""
        answer: dict[str, int] = self._client.get("/control").json()
        return answer

    def requests(self) -> list[dict[str, Any]]:
        """What came in since the last reset."""
        answer: list[dict[str, Any]] = self._client.get("/control/requests").json()
        return answer

    def invoice(self) -> list[dict[str, Any]]:
        """What this vendor bills since the last reset: see fakes/invoices.py."""
        answer: list[dict[str, Any]] = self._client.get("/control/invoice").json()
        return answer

    def close(self) -> None:
        self._client.close()
        self._process.end(signal.SIGTERM)

    @property
    def settings(self) -> dict[str, str]:
        """What makes a service ask this vendor."""
        return {"GEMINI_API_KEY": "a-key-of-the-tests", "GEMINI_BASE_URL": self.base_url_gemini}

    @property
    def picture_settings(self) -> dict[str, str]:
        """What makes a service have its pictures made by this vendor."""
        return {"REPLICATE_API_TOKEN": "a-token-of-the-tests", "REPLICATE_BASE_URL": self.base_url_replicate}
