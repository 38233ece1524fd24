"""Finds the real programs that some tests need, and runs private instances of them.

Every instance listens on loopback only, keeps its files in a temporary directory, and ends with the test run, also
when the run is killed.
"""

import contextlib
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import psycopg
import pytest
from psycopg import sql

from tests.ports import HeldPort

T = TypeVar("T")

START_SECONDS = 60
STOP_SECONDS = 20
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM_ON_MACOS = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")

# Waits until its input ends, which happens when this process dies in whatever way, then stops the server with pid $1
# and removes its files in $2. The pid file proves that the pid still is that server.
GUARDIAN = """
read -r _
[ "$(head -n 1 "$2/data/postmaster.pid" 2>/dev/null)" != "$1" ] || kill -QUIT "$1"
tries=0
while kill -0 "$1" 2>/dev/null && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
rm -rf "$2"
"""


def require(name: str, found: T | None) -> T:
    """Gives `found` back; without it skips the test, or fails it where REQUIRE_SERVICES=1 says that all must run."""
    if found is not None:
        return found
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(f"{name} not installed, and REQUIRE_SERVICES=1 forbids skipping", pytrace=False)
    pytest.skip(f"{name} not installed")


def chromium_binary() -> str | None:
    """Path of a Chromium or Chrome."""
    found = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    return found or (str(CHROMIUM_ON_MACOS) if CHROMIUM_ON_MACOS.exists() else None)


def nginx_binary() -> str | None:
    """Path of nginx, which Debian keeps where only root's PATH looks."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def promtool_binary() -> str | None:
    """Path of Prometheus' own checker, which its Debian package brings."""
    return shutil.which("promtool")


def postgres_binaries() -> Path | None:
    """The folder with `initdb` and `postgres`: on PATH, or the newest where Debian and Ubuntu hide it from PATH."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version_number, reverse=True)
    return next(
        (folder for folder in folders if all((folder / name).exists() for name in ("initdb", "postgres"))), None
    )


def _version_number(binaries: Path) -> int:
    name = binaries.parent.name
    return int(name) if name.isdigit() else 0


def unprivileged_user() -> pwd.struct_passwd | None:
    """Whom a program that refuses root runs as: None (ourselves) unless we are root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return next(user for user in pwd.getpwall() if user.pw_uid != 0)


def _temporary_folders() -> Iterator[Path]:
    yield Path(tempfile.gettempdir())
    yield Path("/tmp")
    yield Path("/var/tmp")


def folder_for(user: pwd.struct_passwd | None) -> Path:
    """A new private folder that `user` owns and can reach: root's TMPDIR may lie where nobody else may enter."""
    if user is None:
        return Path(tempfile.mkdtemp(prefix="yral-"))
    for parent in _temporary_folders():
        if all(folder.stat().st_mode & 0o001 for folder in (parent, *parent.parents)):
            folder = Path(tempfile.mkdtemp(prefix="yral-", dir=parent))
            os.chown(folder, user.pw_uid, user.pw_gid)
            return folder
    raise RuntimeError(f"no temporary folder that {user.pw_name} can reach; set TMPDIR")


class PrivatePostgres:
    """A PostgreSQL server of our own: `with PrivatePostgres(require("PostgreSQL server", postgres_binaries())) as it:`.

    It forgets everything on a power cut (fsync=off), which tests do not need and disks are slow at. Text sorts by the
    rules of a language, as on most real servers and unlike SQLite, so that code that leans on byte order is found.
    """

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._user = unprivileged_user()
        self._password = secrets.token_urlsafe(16)
        self._port = HeldPort()
        self._environment: dict[str, str] = {}  # more of it, for the server's own commands
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as closing:
            self._folder = folder_for(self._user)
            closing.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self._initialise()
            self._server = self._start()
            closing.callback(self._stop)
            self._guard(closing)
            self._closing = closing.pop_all()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.close()

    @property
    def pid(self) -> int:
        """The server's main process."""
        return self._server.pid

    def create_database(self, template: str | None = None) -> str:
        """Makes a database, empty or a copy of the one whose URL is `template` (to which nobody may be connected).

        Returns its URL, `postgresql://user:password@127.0.0.1:port/name`.
        """
        name = f"test_{secrets.token_hex(6)}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(template.rsplit("/", 1)[1] if template else "template0")
        )
        self._execute(statement)
        return self._url(name)

    def drop_database(self, url: str) -> None:
        """Removes a database, whoever is connected to it."""
        name = sql.Identifier(url.rsplit("/", 1)[1])
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))

    def _url(self, database: str) -> str:
        return f"postgresql://tester:{self._password}@{self._port.address}/{database}"

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def _popen(self, command: list[str | Path], output: Path) -> subprocess.Popen[bytes]:
        with output.open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A Ctrl-C in the terminal is for the tests; they then stop the server.
                start_new_session=True,
                env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self._folder), "LC_ALL": "C", "TZ": "UTC"}
                | self._environment,
                user=self._user.pw_uid if self._user else None,
                group=self._user.pw_gid if self._user else None,
                extra_groups=[] if self._user else None,
            )

    def _initialise(self) -> None:
        password_file = self._folder / "password"
        password_file.write_text(self._password)
        if self._user:
            os.chown(password_file, self._user.pw_uid, self._user.pw_gid)
        output = self._folder / "initdb.log"
        command: list[str | Path] = [
            *(self._binaries / "initdb", "--pgdata", self._folder / "data", "--username", "tester"),
            *("--pwfile", password_file, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
            *self._collation(),
        ]
        if self._popen(command, output).wait(START_SECONDS):
            raise RuntimeError(f"initdb failed:\n{output.read_text()}")

    def _collation(self) -> tuple[str, ...]:
        told = subprocess.run([self._binaries / "initdb", "--version"], check=True, capture_output=True, text=True)
        version = re.search(r"\) (\d+)", told.stdout)
        # ICU for a whole cluster came with 15; before it the collations would have to be installed in the system.
        is_icu_there = version is not None and int(version[1]) >= 15
        return ("--locale-provider", "icu", "--icu-locale", "en-US") if is_icu_there else ()

    def _start(self) -> subprocess.Popen[bytes]:
        server = self._popen(self._command(), self._folder / "postgres.log")
        try:
            if self._answers(server):
                return server
        except BaseException:
            server.kill()
            server.wait()
            raise
        raise RuntimeError(f"PostgreSQL does not start:\n{self._log()}")

    def _command(self) -> list[str | Path]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self._port.number,
            "unix_socket_directories": "",
            "max_connections": 600,
            "shared_buffers": "32MB",
            "fsync": "off",
            "full_page_writes": "off",
            "timezone": "UTC",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [self._binaries / "postgres", "-D", self._folder / "data", *options]

    def _answers(self, server: subprocess.Popen[bytes]) -> bool:
        """Waits until the server takes connections; False when it ended instead."""
        deadline = time.monotonic() + START_SECONDS
        while server.poll() is None:
            try:
                psycopg.connect(self._url("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return True
        return False

    def _log(self) -> str:
        return (self._folder / "postgres.log").read_text(errors="replace")

    def _guard(self, closing: contextlib.ExitStack) -> None:
        guardian = subprocess.Popen(
            ["/bin/sh", "-c", GUARDIAN, "sh", str(self._server.pid), str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        closing.callback(self._dismiss, guardian)

    @staticmethod
    def _dismiss(guardian: subprocess.Popen[bytes]) -> None:
        guardian.kill()
        guardian.communicate()

    def _stop(self) -> None:
        if self._server.poll() is None:
            # "Immediate" shutdown: no checkpoint, for nothing is kept. The server ends its own children.
            self._server.send_signal(signal.SIGQUIT)
        try:
            self._server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
