"""Litestream, the program that copies the SQLite database to a bucket or a folder as it is written.

https://litestream.io, 0.5: https://litestream.io/reference/config/ for the file that `Litestream.write_config` writes;
its control socket speaks HTTP. Credentials reach it by its environment, never by a file or a command line.
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

import msgspec
import orjson

from yral_chat.clients.backup_store import Target
from yral_chat.clients.litestream_orphans import end_orphan, lock_to_inherit
from yral_chat.clients.litestream_socket import SOCKET_SECONDS, SocketFailed, ask
from yral_chat.clients.programs import NOTHING, PIPE, Program
from yral_chat.core.clock import from_text

# What a last synchronisation may take at the end; afterwards it is cut, and goes on at the next start.
SHUTDOWN_SECONDS: Final = 10.0
# What the end of one that was killed may take. One that waits for a disk ends once that answers, and we do without.
KILLED_SECONDS: Final = 2.0
# How long each change can be reached by itself. Later it is one of those of the half minute around it.
FINE_RETENTION: Final = "1h"
LEVELS: Final = ("30s", "5m", "1h")
SNAPSHOT_HOURS: Final = 24
CHECKPOINT_PAGES: Final = 1000
TRUNCATE_PAGES: Final = 8192  # 64 MiB: a log that a long read let grow that far is cut
MAX_ERROR_CHARACTERS: Final = 300
# Of our environment. Not AWS_CA_BUNDLE, which breaks the S3 client of 0.5.
PASSED: Final = ("PATH", "HOME", "TMPDIR", "SSL_CERT_FILE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
SOCKET: Final = "litestream.sock"
OLDEST: Final = (0, 5, 9)  # the first whose socket synchronises
VERSION_SECONDS: Final = 10.0
# https://man7.org/linux/man-pages/man7/unix.7.html: with the zero at its end 108; macOS has 104.
MAX_SOCKET_BYTES: Final = 103 if sys.platform == "darwin" else 107
# Of Go: collect garbage when the heap has grown by a twentieth, on one core, where less of it is in the making.
# Measured with 1.02 GB in two whole objects: 52 MB at most (for the third of a second in which their indexes are read;
# 17 before) in 11 to 14 s; with a tenth and both cores 54 MB in 20 to 24 s.
FRUGAL: Final = {"GOGC": "5", "GOMAXPROCS": "1"}
DISK_FULL: Final = (b"no space left on device", b"disk quota exceeded")  # Go's words for ENOSPC and EDQUOT


_VERSION: Final = re.compile(rb"(\d+)\.(\d+)\.(\d+)")


class LitestreamError(Exception):
    """It is not there, does not answer, or said no; the text is its own, without addresses or keys."""


class DiskFull(LitestreamError):
    """There is no more room for what it writes; that says nothing of what it reads."""


class Position(msgspec.Struct, frozen=True):
    """Numbers of transactions as Litestream counts them: of the database, and of what has arrived."""

    txid: int
    replicated_txid: int


class Restored(msgspec.Struct, frozen=True):
    """What a restore has written."""

    txid: str
    duration_ms: int


class LtxFile(msgspec.Struct, frozen=True):
    """One object of a replica. Level 9 is a snapshot, 0 one second of changes, those between are compacted.

    `at` is when its last change was read, in microseconds since the epoch: Litestream says the second in which it was,
    but goes by the exact time when it restores the state of one.
    """

    level: int
    min_txid: str
    max_txid: str
    size: int
    at: int


def find_litestream(path: Path | None) -> str:
    """The program: `path`, else the one beside this interpreter or on PATH. Raises LitestreamError."""
    beside = str(Path(sys.executable).parent)
    named = (
        [shutil.which(path)]
        if path is not None
        else [shutil.which("litestream", path=where) for where in (beside, None)]
    )
    found = next(filter(None, named), None)
    if found is None:
        raise LitestreamError(
            f"{path or 'litestream'} is not there. Install it: pip install 'yral-chat[litestream]', or "
            "https://litestream.io/install, and set LITESTREAM_PATH where it is not on PATH."
        )
    _check_version(found)
    return found


def _check_version(program: str) -> None:
    """A build that does not say its version is let through."""
    try:
        done = subprocess.run(  # noqa: S603 - the operator has named it
            [program, "version"], capture_output=True, timeout=VERSION_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    found = _VERSION.search(done.stdout)
    if found is not None and tuple(map(int, found.groups())) < OLDEST:
        raise LitestreamError(
            f"{program} is Litestream {found[0].decode()}, which cannot be asked where it is. "
            f"Install {'.'.join(map(str, OLDEST))} or newer: https://litestream.io/install"
        )


def check_socket_path(folder: Path) -> None:
    """Raises LitestreamError where the system has no room for the name of the socket of a `folder`."""
    path = folder / SOCKET
    if len(os.fsencode(path)) > MAX_SOCKET_BYTES:
        raise LitestreamError(
            f"{path} is too long for a socket, which may have {MAX_SOCKET_BYTES} bytes. "
            "Set DATA_DIR to a folder with a shorter path."
        )


class Litestream:
    """One database and one place in the target, `prefix`. `folder` keeps its socket and configuration."""

    def __init__(
        self, program: str, database: Path, target: Target, prefix: str, folder: Path, *, retention_days: int = 30
    ) -> None:
        self._program = program
        self.database = database
        self._target = target
        self._prefix = prefix
        self._folder = folder
        self._retention_days = retention_days
        self._process: Program | None = None

    @property
    def socket_path(self) -> Path:
        return self._folder / SOCKET

    @property
    def state_path(self) -> Path:
        return state_folder(self.database)

    def config(self) -> dict[str, Any]:
        """The whole configuration, without a secret in it."""
        return {
            "socket": {"enabled": True, "path": str(self.socket_path), "permissions": 0o600},
            "logging": {"level": "warn", "type": "json", "stderr": True},
            "levels": [{"interval": interval} for interval in LEVELS],
            "snapshot": {"interval": f"{SNAPSHOT_HOURS}h", "retention": f"{self._retention_days * 24}h"},
            "l0-retention": FINE_RETENTION,
            "shutdown-sync-timeout": f"{SHUTDOWN_SECONDS:.0f}s",
            "dbs": [
                {
                    "path": str(self.database),
                    "min-checkpoint-page-count": CHECKPOINT_PAGES,
                    "truncate-page-n": TRUNCATE_PAGES,
                    "replica": {"sync-interval": "1s", **self._replica()},
                }
            ],
        }

    def _replica(self) -> dict[str, Any]:
        target = self._target
        if target.bucket is None:
            return {"type": "file", "path": str(Path(target.path) / self._prefix)}
        path = f"{target.path}/{self._prefix}".strip("/")
        replica: dict[str, Any] = {"type": "s3", "bucket": target.bucket, "path": path, "region": target.region}
        if target.endpoint is not None:
            replica |= {"endpoint": target.endpoint, "force-path-style": True}
        return replica

    # --- replicating

    async def start(self) -> AsyncIterator[dict[str, Any]]:
        """Starts replicating; the lines of its log until it has ended. Raises LitestreamError."""
        await wait_for_orphan(self._folder)
        arguments = ("replicate", "-no-expand-env", "-config", str(await asyncio.to_thread(self._write_config)))
        try:
            with lock_to_inherit(self._folder) as lock:
                # Should we be killed, it sends what is left and ends; without setpriv, our next start ends it.
                self._process = await self._run(*arguments, prefix=_dying_with_us("TERM"), pass_fds=(lock,))
                with suppress(OSError):  # a disk that has become full: it is not known by its number then
                    os.write(lock, str(self._process.pid).encode())
        except OSError as error:
            raise LitestreamError(f"its lock in {self._folder} cannot be taken ({error.strerror})") from error
        return _log_lines(self._process)

    async def stop(self) -> None:
        """Lets it send what is left, within bounds, and ends it."""
        if (process := self._process) is None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(SHUTDOWN_SECONDS + 5):
                await process.wait()
        except TimeoutError:
            await _kill(process)
        self._process = None

    async def position(self, seconds: float = SOCKET_SECONDS) -> Position:
        """Reads what was committed until now into its own files, and says how far it is.

        Milliseconds; while Litestream makes a whole snapshot, as long as that. Raises LitestreamError after `seconds`.
        """
        answer = await self._ask("POST", "/sync", {"path": str(self.database)}, seconds=seconds)
        return Position(answer["txid"], answer["replicated_txid"])

    async def wait_replicated(self, seconds: float) -> Position:
        """Returns once everything committed until now has arrived. Raises LitestreamError after `seconds`."""
        body = {"path": str(self.database), "wait": True, "timeout": int(seconds)}
        answer = await self._ask("POST", "/sync", body, seconds=seconds + SOCKET_SECONDS)
        return Position(answer["txid"], answer["replicated_txid"])

    @asynccontextmanager
    async def standing_still(self) -> AsyncIterator[None]:
        """While the block runs it has let go of the database; afterwards it sends a whole snapshot if that changed."""
        body = {"path": str(self.database), "timeout": int(SOCKET_SECONDS)}
        await self._ask("POST", "/stop", body, seconds=2 * SOCKET_SECONDS)
        try:
            yield
        finally:
            await self._ask("POST", "/start", body, seconds=2 * SOCKET_SECONDS)

    async def _ask(
        self, method: str, target: str, body: dict[str, Any] | None = None, *, seconds: float = SOCKET_SECONDS
    ) -> dict[str, Any]:
        try:
            return await ask(self.socket_path, method, target, body, seconds=seconds)
        except SocketFailed as error:
            raise LitestreamError(_words(str(error))) from error

    # --- what is in the replica

    async def restore(
        self, to: Path, *, txid: str | None = None, at: str | None = None, is_frugal: bool = False
    ) -> Restored:
        """Writes the newest state, the one after `txid`, or that of a time (RFC 3339), into the new file `to`.

        `is_frugal` takes one core and as little memory as it can. Raises LitestreamError; then nothing is left.
        """
        which = ["-txid", txid] if txid else ["-timestamp", at] if at else []
        # Its configuration knows the database by its path, which need not exist.
        arguments = ("restore", "-no-expand-env", "-json", "-o", str(to), *which)
        try:
            answer = msgspec.json.decode(await self._call(*arguments, more=FRUGAL if is_frugal else None), type=dict)
        except BaseException:
            await asyncio.to_thread(_remove, to)
            raise
        return Restored(answer["txid"], answer["duration_ms"])

    def key(self, file: LtxFile) -> str:
        """Where it lies, below the prefix."""
        folder = f"ltx/{file.level}" if self._target.bucket is None else f"{file.level:04x}"
        return f"{folder}/{file.min_txid}-{file.max_txid}.ltx"

    async def files(self) -> list[LtxFile]:
        """What the replica has, oldest first within each level."""
        answer = await self._call("ltx", "-no-expand-env", "-json", "-level", "all")
        rows = msgspec.json.decode(answer, type=list[dict[str, Any]] | None) or []
        return [_file(row) for row in rows]

    async def plan(self, txid: str) -> list[LtxFile]:
        """What a restore of that state reads."""
        out = self._folder / "nowhere.db"
        answer = await self._call("restore", "-no-expand-env", "-json", "-dry-run", "-o", str(out), "-txid", txid)
        return [_file(row) for row in msgspec.json.decode(answer)["files"]]

    async def _call(self, *arguments: str, more: dict[str, str] | None = None) -> bytes:
        """Runs one command to its end, with `more` in its environment; returns what it prints."""
        command, *rest = arguments
        # A file of its own: what replicates beside it may be at another place of the target.
        with NamedTemporaryFile(prefix="litestream-", suffix=".yml") as config:
            config.write(orjson.dumps(self.config()))
            config.flush()
            process = await self._run(
                command,
                "-config",
                config.name,
                *rest,
                str(self.database),
                prefix=_dying_with_us("KILL"),
                stdout=PIPE,
                more=more,
            )
            try:
                out, errors = await process.communicate()
            except BaseException:
                await _kill(process)
                raise
            finally:
                process.close()
        if process.returncode != 0:
            is_full = any(words in errors for words in DISK_FULL)
            raise (DiskFull if is_full else LitestreamError)(_last_error(errors))
        return out

    async def _run(
        self,
        *arguments: str,
        prefix: tuple[str, ...] = (),
        stdout: int = NOTHING,
        more: dict[str, str] | None = None,
        pass_fds: tuple[int, ...] = (),
    ) -> Program:
        try:
            return await Program.start(
                *prefix,
                self._program,
                *arguments,
                stdout=stdout,
                stderr=PIPE,
                env=self._environment() | (more or {}),
                # Ctrl-C in the terminal is for the service, which ends it once its last change is written.
                start_new_session=True,
                pass_fds=pass_fds,
            )
        except OSError as error:
            raise LitestreamError(f"{self._program} cannot be run ({error.strerror})") from error

    def _environment(self) -> dict[str, str]:
        """Ours without what is not its business, and the keys."""
        kept = {name: value for name in PASSED if (value := os.environ.get(name))}
        target = self._target
        if target.bucket is not None:
            kept |= {
                "LITESTREAM_ACCESS_KEY_ID": target.access_key_id,
                "LITESTREAM_SECRET_ACCESS_KEY": target.secret_access_key,
            }
        return kept

    def _write_config(self) -> Path:
        """As JSON, which is YAML. Whoever wonders what it does finds it beside the database."""
        path = self._folder / "litestream.yml"
        try:
            path.write_bytes(orjson.dumps(self.config(), option=orjson.OPT_INDENT_2))
        except OSError as error:  # a full disk may have room again
            raise LitestreamError(f"{path.name} cannot be written ({error.strerror})") from error
        return path


async def wait_for_orphan(folder: Path) -> None:
    """Returns once no Litestream that a killed service has left has the database of this folder open. It may send what
    is left first, within bounds. Raises LitestreamError.
    """
    try:
        has_ended = await end_orphan(folder, seconds=SHUTDOWN_SECONDS + 2, is_ending=bool(_dying_with_us("TERM")))
    except OSError as error:
        raise LitestreamError(f"its lock in {folder} cannot be read ({error.strerror})") from error
    if not has_ended:
        raise LitestreamError(f"another Litestream replicates the database of {folder} and does not end: end it")


async def _kill(process: Program) -> None:
    process.kill()
    with suppress(TimeoutError):
        async with asyncio.timeout(KILLED_SECONDS):
            await process.wait()


def _dying_with_us(signal_name: str) -> tuple[str, ...]:
    """What a command begins with so that it gets this signal when we are killed; nothing where that cannot be had."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", signal_name, "--") if setpriv else ()


def _file(row: dict[str, Any]) -> LtxFile:
    return LtxFile(row["level"], row["min_txid"], row["max_txid"], row["size"], from_text(row["timestamp"]))


def _remove(path: Path) -> None:
    """A restore that was cut, with what it and SQLite put beside it."""
    for suffix in ("", "-wal", "-shm", ".tmp", ".tmp-wal", ".tmp-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


async def _log_lines(process: Program) -> AsyncIterator[dict[str, Any]]:
    assert process.stderr is not None  # noqa: S101 - `_run` has asked for it
    while True:
        try:
            line = await process.stderr.readline()
        except ValueError:  # a line of more than 64 KiB: what there is of it is thrown away
            continue
        if not line:
            break
        try:
            yield orjson.loads(line)
        except orjson.JSONDecodeError:
            yield {"level": "ERROR", "msg": _words(line.decode(errors="replace"))}
    await process.wait()
    process.close()


def _last_error(errors: bytes) -> str:
    """What it said last: its commands log text, `… error="…"`, before they end."""
    lines = [line for line in errors.decode(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    _, found, text = last.partition("error=")
    return _words(text.strip('"') if found else last)


def _words(text: str) -> str:
    """A bounded line, without the addresses that S3 clients put into their errors."""
    return " ".join(word for word in text.split() if "://" not in word)[:MAX_ERROR_CHARACTERS]


def state_folder(database: Path) -> Path:
    """Where it keeps what is not uploaded yet. Without this folder it begins with a snapshot."""
    return database.with_name(f".{database.name}-litestream")


def txid_text(txid: int) -> str:
    """As its commands want it."""
    return f"{txid:016x}"


def newest(files: Sequence[LtxFile]) -> LtxFile | None:
    """The one that ends last."""
    return max(files, key=lambda file: (file.max_txid, -file.level), default=None)
