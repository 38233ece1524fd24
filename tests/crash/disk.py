"""A small disk of our own: it can be filled to the last byte, and nobody else notices.

It is a tmpfs in a mount namespace that only a sleeping process holds. The service enters that namespace; from outside
the disk is reached through /proc. Works as root, and as any user where user namespaces are allowed.
"""

import os
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.service import START_SECONDS, Process, Service

MOUNT = 'mount -t tmpfs -o size="$1",mode=700 tmpfs "$2" && echo mounted && exec sleep infinity'
BLOCK = 4096


def own_namespace() -> list[str]:
    """The command that starts another with mounts of its own."""
    return ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]


@cache
def can_mount() -> bool | None:
    """True where a private tmpfs can be mounted, else None."""
    try:
        tried = subprocess.run(
            [*own_namespace(), "sh", "-c", "mount -t tmpfs tmpfs /mnt"], capture_output=True, check=False
        )
    except FileNotFoundError:
        return None
    return True if tried.returncode == 0 else None


class SmallDisk:
    """`size` bytes, mounted at `folder` for those who are in the namespace."""

    def __init__(self, folder: Path, size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._size = size

    def __enter__(self) -> Self:
        self._keeper = subprocess.Popen(
            [*own_namespace(), "sh", "-c", MOUNT, "sh", str(self._size), str(self._folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == "mounted\n", "no disk"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._keeper.kill()
        self._keeper.wait(10)
        if self._keeper.stdout is not None:
            self._keeper.stdout.close()

    @property
    def enter(self) -> list[str]:
        """What stands before the command of whoever is to see the disk."""
        rights = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self._keeper.pid), *rights, "--mount"]

    @property
    def inside(self) -> Path:
        """The disk as it is reached from outside."""
        return Path(f"/proc/{self._keeper.pid}/root{self._folder}")

    @property
    def _ballast(self) -> Path:
        return self.inside / "ballast"

    def fill(self) -> None:
        """Until not one more byte fits."""
        with self._ballast.open("ab", buffering=0) as file:
            for piece in (64 * BLOCK, BLOCK):
                with suppress(OSError):
                    while True:
                        file.write(bytes(piece))

    def empty(self) -> None:
        """Space returns."""
        self._ballast.unlink()


class ServiceOnDisk(Service):
    """A service that has its data on such a disk."""

    def __init__(self, folder: Path, disk: SmallDisk, **settings: str | None) -> None:
        super().__init__(folder, **settings)
        self._disk = disk

    def start(self) -> Self:
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        given = {name: value for name, value in self.settings.items() if value is not None}
        command = [*self._disk.enter, sys.executable, "-m", "yral_chat.cli", "serve"]
        self.running = Process(command, kept | given, "open    http", self.folder)
        self.url = self.running.wait_for_marker(START_SECONDS).split()[-1]
        return self
