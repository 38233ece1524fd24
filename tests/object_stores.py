"""Real S3 servers on loopback: rclone, which checks signatures, and moto, which knows ranges and conditions."""

import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
from pydantic import SecretStr

from tests.client import PLAIN
from tests.ports import HeldPort
from tests.programs import require
from tests.service import START_SECONDS, Process
from yral_chat.clients.storage import StorageService
from yral_chat.core.config import Settings

BUCKET = "media"
# rclone knows no access key of fewer than three characters.
ACCESS_KEY = "access-key-of-the-tests"
SECRET_KEY = "secret-key-of-the-tests"
SIGNING_KEY = b"a signing key of the tests, with more than 32 bytes"


def program(name: str) -> str:
    """A program that came with the development environment. Without it the test is skipped, or fails."""
    return require(name, shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name))


class ObjectStore:
    """A server with one bucket, for as long as the `with`. A restarted one has its port again, and its files if any."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._port = HeldPort()
        self.url = f"http://{self._port.address}"

    def _command(self) -> tuple[list[str], str]:
        """What starts the server at `_port`, and what stands in the line that tells that it listens."""
        raise NotImplementedError

    def start(self) -> None:
        command, marker = self._command()
        self._process = Process(command, {}, marker)
        self._process.wait_for_marker(START_SECONDS)

    def stop(self) -> None:
        if self._process is not None:
            self._process.end(signal.SIGKILL)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class Rclone(ObjectStore):
    """Serves a folder; buckets are its folders.

    For its ETags it reads every object anew whenever one of them is listed, as no bucket does: where time is measured,
    it goes without them (`has_etags`).
    """

    def __init__(self, folder: Path, *, is_virtual: bool = False, has_etags: bool = True) -> None:
        super().__init__()
        self.bucket = folder / "buckets" / BUCKET
        self.bucket.mkdir(parents=True)
        self._folder = folder
        self._is_virtual = is_virtual
        self._has_etags = has_etags

    def _command(self) -> tuple[list[str], str]:
        options = {
            "--config": "",
            "--cache-dir": str(self._folder / "cache"),
            "--auth-key": f"{ACCESS_KEY},{SECRET_KEY}",
            "--addr": self._port.address,
            # Files that a test puts into the folder are seen at once. With 0 each folder has a timer without a pause.
            "--dir-cache-time": "1ms",
        }
        words = [word for option in options.items() for word in option]
        if self._is_virtual:
            words.append("--force-path-style=false")
        if not self._has_etags:
            words.append("--etag-hash=")
        return [program("rclone"), "serve", "s3", *words, str(self.bucket.parent)], "Starting s3 server on"


class Moto(ObjectStore):
    """Keeps everything in memory; checks no signatures."""

    def _command(self) -> tuple[list[str], str]:
        options = ["-H", "127.0.0.1", "-p", str(self._port.number)]
        return [sys.executable, "-m", "tests.moto_server", *options], "Running on http"

    def start(self) -> None:
        super().start()
        # With its first request it loads more.
        httpx2.put(f"{self.url}/{BUCKET}", verify=PLAIN, timeout=START_SECONDS).raise_for_status()


def settings_for(folder: Path, **more: Any) -> Settings:
    return Settings(_env_file=None, environment="test", data_dir=folder, public_base_url="http://chat.test", **more)


def s3_settings(folder: Path, url: str, **more: Any) -> Settings:
    """The settings that make a service keep its media at `url`."""
    given = {
        "media_backend": "s3",
        "s3_endpoint_url": url,
        "s3_bucket": BUCKET,
        "aws_access_key_id": SecretStr(ACCESS_KEY),
        "aws_secret_access_key": SecretStr(SECRET_KEY),
        **more,
    }
    return settings_for(folder, **given)


@asynccontextmanager
async def storage_at(
    url: str, folder: Path, *, silence_seconds: float = 5.0, **more: Any
) -> AsyncIterator[StorageService]:
    """A service that keeps its media at `url`."""
    storage = StorageService(s3_settings(folder, url, **more), SIGNING_KEY, silence_seconds=silence_seconds)
    try:
        yield storage
    finally:
        await storage.close()
