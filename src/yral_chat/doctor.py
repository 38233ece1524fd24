"""`yral-chat doctor`: looks at everything the service needs, changes nothing, and says what to do."""

import asyncio
import difflib
import ipaddress
import os
import resource
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec
from dotenv import dotenv_values
from pydantic import SecretStr

from yral_chat.clients.chat_api import ChatApi
from yral_chat.clients.identity import TokenVerifier
from yral_chat.clients.model_probe import Probe, probe_gemini, probe_openai
from yral_chat.clients.storage import StorageService, load_signing_key
from yral_chat.clients.vendor_http import VendorHttp
from yral_chat.core.config import Issuer, Settings
from yral_chat.core.sizes import MEBIBYTE
from yral_chat.db.failures import DatabaseUnusable, NotSQLite
from yral_chat.db.files import load_driver
from yral_chat.db.inspection import Inspection, inspect_database
from yral_chat.db.migrations import HEAD
from yral_chat.db.sqlite import is_corrupting
from yral_chat.db.urls import database_path
from yral_chat.services.backups.examining import examine_backup
from yral_chat.serving import bind, reachable_host

# Below the first the next burst of messages may fill the disk; below the second somebody should know.
BAD_FREE_BYTES = 100 * MEBIBYTE
LOW_FREE_BYTES = 1024 * MEBIBYTE
# SQLite's log is emptied about every 8 MB; one that is much larger is held open by a forgotten reader.
LARGE_WAL_BYTES = 256 * MEBIBYTE
# Every stream and every socket holds one file; beside them some fifty are open.
FEW_FILES_LOCALLY, FEW_FILES = 256, 4096
SHORT_SECRET = 16
# A start that finds the same says so, too (backed_up.py).
RESTORE = "Stop the service, and run `yral-chat restore --latest`, which keeps the file aside"
# How alike a variable's name must be to a setting's to be taken for a slip of the pen.
ALIKE = 0.86

Level = Literal["good", "warning", "bad"]
_MARKS: dict[Level, str] = {"good": "✓", "warning": "!", "bad": "✗"}


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at. `advice` says what to do, where there is something to do."""

    level: Level
    area: str
    text: str
    advice: str = ""

    def render(self) -> str:
        line = f"{_MARKS[self.level]} {self.area:<9} {self.text}"
        return f"{line}\n            → {self.advice}" if self.advice else line


def good(area: str, text: str) -> Finding:
    return Finding("good", area, text)


def warning(area: str, text: str, advice: str) -> Finding:
    return Finding("warning", area, text, advice)


def bad(area: str, text: str, advice: str) -> Finding:
    return Finding("bad", area, text, advice)


def examine(settings: Settings) -> list[Finding]:
    """Everything, in the order in which a start needs it. Opens databases for reading only."""
    return [
        *_settings(settings),
        *_slips(),
        *_storage(settings),
        *_files(settings),
        *_database(settings),
        *asyncio.run(_outside(settings)),
    ]


async def _outside(settings: Settings) -> list[Finding]:
    """What is asked over the network, all at once."""
    http = VendorHttp()
    try:
        parts = await asyncio.gather(
            _address(settings), _bucket(settings), _backup(settings), _identity(settings), _models(settings, http)
        )
    finally:
        await http.close()
    return [finding for part in parts for finding in part]


def _two(message: str) -> tuple[str, str]:
    """A sentence of ours that ends with what to do, as (fact, advice)."""
    fact, _, advice = message.partition(". ")
    return fact.rstrip("."), advice.rstrip(".")


# --- settings


def _settings(settings: Settings) -> Iterator[Finding]:
    yield good("settings", f"{settings.environment}, at {settings.base_url}")
    if settings.is_local:
        if not _is_loopback(settings.host):
            yield warning(
                "settings",
                f"{settings.environment} hands out tokens for any user, and HOST={settings.host} lets others reach it",
                "Keep HOST=127.0.0.1, or run with ENVIRONMENT=production and AUTH_ISSUERS",
            )
        return
    if settings.metrics_token is None and settings.admin_api_key is None:
        yield warning("settings", "nobody can read /metrics and /status", "Set METRICS_TOKEN to a long random text")
    for name, secret in (("METRICS_TOKEN", settings.metrics_token), ("ADMIN_API_KEY", settings.admin_api_key)):
        if secret is not None and len(secret.get_secret_value()) < SHORT_SECRET:
            yield warning("settings", f"{name} is short enough to be guessed", "Make one with: openssl rand -hex 32")
    yield from _weak_addresses(settings)


def _weak_addresses(settings: Settings) -> Iterator[Finding]:
    if settings.public_base_url is None:
        yield warning(
            "settings",
            f"clients are given picture addresses that begin with {settings.base_url}",
            "Set PUBLIC_BASE_URL to the address that clients use, such as https://chat.example.org",
        )
    elif urlsplit(settings.public_base_url).scheme != "https":
        yield warning(
            "settings",
            f"PUBLIC_BASE_URL={settings.public_base_url}: tokens travel unencrypted",
            "Put a proxy with a certificate in front, and use its https address",
        )
    if "*" in settings.resolved_cors_origins:
        yield warning(
            "settings", "CORS_ORIGINS allows every web page to call the service", "Name the origins of your own pages"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _slips() -> Iterator[Finding]:
    """Variables that nobody reads, because their name is almost that of a setting."""
    names = [name.upper() for name in Settings.model_fields]
    for variable in sorted({*dotenv_values(".env"), *os.environ}):
        if variable.upper() in names:
            continue
        if similar := difflib.get_close_matches(variable.upper(), names, 1, ALIKE):
            yield warning("settings", f"{variable} is not a setting and is ignored", f"Did you mean {similar[0]}?")


# --- files


def _storage(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir.resolve()
    nearest = _nearest(folder)
    if not nearest.is_dir():
        yield bad("storage", f"{nearest} is not a folder", "Set DATA_DIR to a folder")
        return
    if not os.access(nearest, os.W_OK | os.X_OK):
        yield bad("storage", f"{nearest} cannot be written by this user", "Change its owner, or set DATA_DIR")
    elif folder.exists():
        yield good("storage", f"{folder} can be written")
    else:
        yield good("storage", f"{folder} is made at the first start")
    secret = folder / "dev-secret"
    if secret.exists() and secret.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield warning("storage", f"{secret} can be read by others, who can then be anybody", f"chmod 600 {secret}")
    database = _nearest(_database_folder(settings) or folder)
    yield _free_space(database)
    media = folder / "media"
    if settings.media_backend == "local" and media.exists():
        yield from _media_folder(media, is_elsewhere=media.stat().st_dev != database.stat().st_dev)


def _media_folder(media: Path, *, is_elsewhere: bool) -> Iterator[Finding]:
    """A folder that may be a disk of its own."""
    if not media.is_dir() or not os.access(media, os.W_OK | os.X_OK):
        yield bad(
            "storage", f"{media} is no folder that this user can write to", "Change its owner, or how it is mounted"
        )
    if is_elsewhere:
        yield _free_space(media)


def _nearest(folder: Path) -> Path:
    """The folder itself, or the one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _database_folder(settings: Settings) -> Path | None:
    url = settings.resolved_database_url
    try:
        return database_path(url).resolve().parent if url.startswith("sqlite") else None
    except DatabaseUnusable:
        return None  # the database's own check says so


def _free_space(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    text = f"{_size(free)} free where {folder} lies"
    if free < BAD_FREE_BYTES:
        return bad("disk", text, "Make room: with a full disk messages are refused (503 storage_full)")
    if free < LOW_FREE_BYTES:
        return warning("disk", text, "Make room before it is full")
    return good("disk", text)


def _files(settings: Settings) -> Iterator[Finding]:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    enough = FEW_FILES_LOCALLY if settings.is_local else FEW_FILES
    if limit == resource.RLIM_INFINITY:
        yield good("files", "any number may be open")
    elif limit < enough:
        yield warning(
            "files",
            f"only {limit} may be open, and every connection is one",
            "Raise it: ulimit -n 65536, or LimitNOFILE=65536 in the systemd unit",
        )
    else:
        yield good("files", f"{limit} may be open")


def _size(count: float) -> str:
    if count < 1000:
        return f"{count:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"


# --- database


def _database(settings: Settings) -> Iterator[Finding]:
    url = settings.resolved_database_url
    has_backup = settings.backup_url is not None
    try:
        found = inspect_database(url)
    except NotSQLite as error:
        fact, advice = _two(str(error))
        yield bad("database", fact, RESTORE if has_backup else advice)
        return
    except DatabaseUnusable as error:
        yield bad("database", *_two(str(error)))
        return
    if not found.is_there:
        yield good("database", f"{found.place} is made at the first start")
    elif not found.is_open_to_view:
        yield warning(
            "database",
            f"{found.place} has a log of {_size(found.wal_size)} without its index, and looking would change it",
            "Start the service once, which takes the log in, and run doctor again",
        )
    else:
        yield from _tables(found, is_sqlite=url.startswith("sqlite"), has_backup=has_backup)
    if url.startswith("sqlite"):
        yield _sqlite_library()


def _tables(found: Inspection, *, is_sqlite: bool, has_backup: bool) -> Iterator[Finding]:
    if found.damage:
        advice = RESTORE if has_backup else "Stop the service, keep a copy of the file, and restore a backup"
        yield bad("database", f"{found.place} is damaged: {found.damage}", advice)
        return
    parts = [f"{found.place}: revision {found.revision or 'none'}"]
    if is_sqlite:
        parts.append(f"{_size(found.size)}, {_size(found.wal_size)} in its log, checked")
    else:
        parts.append(f"PostgreSQL {found.version}")
    parts.append("served now" if found.is_served else "not served now")
    text = ", ".join(parts)
    if found.revision == HEAD:
        yield good("database", text)
    else:
        yield warning("database", text, f"The next start brings it to {HEAD}; or do it now: yral-chat migrate")
    if found.wal_size > LARGE_WAL_BYTES:
        yield warning(
            "database",
            f"its log has grown to {_size(found.wal_size)}",
            "Look for a program that keeps the database open for reading, then restart the service",
        )


def _sqlite_library() -> Finding:
    driver = load_driver()
    text = f"SQLite {driver.sqlite_version} ({driver.__name__.split('.')[0]})"
    if is_corrupting(driver.sqlite_version_info):
        return warning(
            "sqlite",
            f"{text} can corrupt a database that a second process, such as a backup, writes at the same time",
            "Use a Python with SQLite 3.51.3 or newer, or a platform with the pysqlite3 wheel "
            "(docs/decisions/0002-sqlite-library.md)",
        )
    return good("sqlite", text)


# --- the network


async def _address(settings: Settings) -> list[Finding]:
    if settings.port == 0:
        return []
    address = f"http://{reachable_host(settings.host)}:{settings.port}"
    async with ChatApi(address) as api:
        if await api.is_there():
            return [good("address", f"the service answers at {address}")]
    try:
        bind(settings)[0].close()
    except OSError as error:
        advice = "Stop what listens there, or choose another address: PORT=8001"
        return [bad("address", f"cannot listen on {settings.host}:{settings.port} ({error.strerror})", advice)]
    return [good("address", f"{settings.host}:{settings.port} is free")]


async def _bucket(settings: Settings) -> list[Finding]:
    if settings.media_backend != "s3":
        return []
    storage = StorageService(settings, load_signing_key(settings))
    try:
        fault = await storage.find_fault()
    finally:
        await storage.close()
    where = f"bucket {settings.s3_bucket} at {settings.s3_endpoint_url or 'AWS'}"
    if fault is None:
        return [good("storage", f"{where} can be read")]
    advice = "Check the S3_… settings, the access key and the network: until then uploads are refused with 503"
    return [bad("storage", f"{where} cannot be read ({fault})", advice)]


async def _backup(settings: Settings) -> list[Finding]:
    return [
        good("backup", advice.text)
        if not advice.to_do
        else (bad if advice.is_bad else warning)("backup", advice.text, advice.to_do)
        for advice in await examine_backup(settings)
    ]


async def _identity(settings: Settings) -> list[Finding]:
    if not settings.auth_issuers:
        return [good("identity", f"development issuer {settings.auth_dev_issuer}, for everybody who can reach it")]
    return list(await asyncio.gather(*(_issuer(settings, issuer) for issuer in settings.auth_issuers)))


async def _issuer(settings: Settings, issuer: Issuer) -> Finding:
    source = issuer.jwks_url or issuer.jwks_file or "the settings"
    try:
        verifier = TokenVerifier(settings.model_copy(update={"auth_issuers": (issuer,)}))
    except ValueError as error:
        return bad("identity", str(error), "Correct AUTH_ISSUERS (docs/configuration.md)")
    try:
        count = await verifier.count_keys(issuer.issuer)
    except ValueError as error:
        advice = "Until its keys can be had, tokens of this issuer are refused with 503"
        return bad("identity", f"{issuer.issuer}: no keys from {source} ({error})", advice)
    finally:
        await verifier.close()
    return good("identity", f"{issuer.issuer}: {count} key{'s' * (count != 1)} from {source}")


# --- models


async def _models(settings: Settings, http: VendorHttp) -> list[Finding]:
    if not settings.has_model_provider:
        advice = "Set GEMINI_API_KEY, or OPENAI_BASE_URL and OPENAI_MODELS, for real replies"
        return [warning("model", "no model is configured: the offline demo persona answers", advice)]
    gemini, openai = await asyncio.gather(_gemini(settings, http), _openai(settings, http))
    findings = [*gemini, *openai]
    if not findings:
        findings.append(bad("model", "there is a provider but no model to ask", "Name one: OPENAI_MODELS=…"))
    return findings + _nsfw_provider(settings, has_gemini=bool(gemini), has_openai=bool(openai))


async def _gemini(settings: Settings, http: VendorHttp) -> list[Finding]:
    if settings.gemini_api_key is None:
        return []
    key, base_url = _secret(settings.gemini_api_key), settings.gemini_base_url
    probes = await asyncio.gather(
        *(probe_gemini(http, api_key=key, base_url=base_url, model=model) for model in settings.gemini_models)
    )
    found = [
        _judge(f"gemini {model}", probe, base_url, "GEMINI")
        for model, probe in zip(settings.gemini_models, probes, strict=True)
    ]
    return found + _unencrypted("GEMINI_BASE_URL", base_url)


async def _openai(settings: Settings, http: VendorHttp) -> list[Finding]:
    if settings.openai_base_url is None and settings.openai_api_key is None:
        return []
    base_url, models = settings.openai_base_url, settings.openai_models
    probes = await probe_openai(http, api_key=_secret(settings.openai_api_key), base_url=base_url, models=models)
    where = base_url or "api.openai.com"
    found = [_judge(f"openai {model}", probe, where, "OPENAI") for model, probe in zip(models, probes, strict=True)]
    return found + (_unencrypted("OPENAI_BASE_URL", base_url) if base_url and settings.openai_api_key else [])


def _judge(name: str, probe: Probe, where: str, prefix: str) -> Finding:
    match probe.verdict:
        case "good":
            return good("model", f"{name} is there, at {where}")
        case "key_refused":
            return bad("model", f"{name}: the key is refused ({probe.reason})", f"Correct {prefix}_API_KEY")
        case "unknown_model":
            offered = difflib.get_close_matches(name.split(" ", 1)[1], probe.offered, 3, 0.4)
            hint = f": there is {', '.join(offered)}" if offered else ""
            return bad("model", f"{name} is not known at {where} ({probe.reason})", f"Correct {prefix}_MODELS{hint}")
        case "not_listed":
            text = f"{name}: {where} answers, but does not list its models ({probe.reason})"
            return warning("model", text, "Send a message to see whether it works: yral-chat chat")
        case "busy":
            return warning("model", f"{name}: {where} is busy or out of quota ({probe.reason})", "Try again later")
        case "unreachable":
            advice = f"Check {prefix}_BASE_URL, the network and the firewall"
            return bad("model", f"{name}: {where} cannot be reached ({probe.reason})", advice)


def _unencrypted(name: str, url: str) -> list[Finding]:
    parts = urlsplit(url)
    if parts.scheme == "https" or _is_loopback(parts.hostname or ""):
        return []
    return [
        warning("model", f"{name} is not https: the key and every message travel readably", "Use its https address")
    ]


def _nsfw_provider(settings: Settings, *, has_gemini: bool, has_openai: bool) -> list[Finding]:
    wanted = settings.nsfw_provider
    if wanted is None or {"gemini": has_gemini, "openai": has_openai}[wanted]:
        return []
    text = f"NSFW_PROVIDER={wanted} is not configured, so the other one answers for all personas"
    return [warning("model", text, f"Configure {wanted}, or unset NSFW_PROVIDER")]


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value is not None else ""
