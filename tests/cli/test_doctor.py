"""yral-chat doctor: what it finds, what it advises, and that it changes nothing."""

import asyncio
import hashlib
import http.server
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr
from sqlalchemy import text

from tests.cli.commands import Cli
from tests.object_stores import Rclone, s3_settings
from tests.ports import HeldPort
from tests.programs import PrivatePostgres, folder_for, unprivileged_user
from tests.service import FakeModel, Service
from tests.waiting import until
from yral_chat.core.config import Settings
from yral_chat.db import verification
from yral_chat.db.migrations import HEAD, migrate, open_engine
from yral_chat.doctor import Finding, examine

# Every test starts the command as a process, and many a server or a vendor beside it.
pytestmark = pytest.mark.long

PRODUCTION: dict[str, Any] = {
    "environment": "production",
    "allow_offline_model": True,
    "media_signing_key": "a-key-for-media-of-more-than-32-bytes",
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no `.env` of a developer lies."""
    monkeypatch.chdir(tmp_path)


def settings(tmp_path: Path, **changes: Any) -> Settings:
    return Settings(_env_file=None, **{"data_dir": tmp_path / "data", "port": 0, **changes})


def findings(area: str, given: Settings) -> list[Finding]:
    return [finding for finding in examine(given) if finding.area == area]


def only(area: str, given: Settings) -> Finding:
    found = findings(area, given)
    assert len(found) == 1, [finding.render() for finding in found]
    return found[0]


def state_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file with its content and time of change."""
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- the command


def test_a_finding_is_a_line_and_its_advice_another() -> None:
    assert Finding("good", "disk", "all is well").render() == "✓ disk      all is well"
    assert Finding("bad", "disk", "no room", "Make room").render() == "✗ disk      no room\n            → Make room"


def test_on_a_fresh_checkout_all_is_well_and_nothing_is_made(cli: Cli) -> None:
    done = cli.run("doctor", PORT="0")
    assert (done.status, done.err) == (0, "")
    assert "! model     no model is configured: the offline demo persona answers\n            → Set GEMINI" in done.out
    assert f"✓ database  {cli.data}/yral_chat.db is made at the first start\n" in done.out
    assert "✗" not in done.out
    assert list(cli.folder.iterdir()) == []


def test_something_bad_is_an_exit_status_of_one(cli: Cli) -> None:
    (cli.folder / "data").write_text("a file")
    done = cli.run("doctor", PORT="0")
    assert done.status == 1
    assert f"✗ storage   {cli.folder}/data is not a folder\n            → Set DATA_DIR to a folder\n" in done.out


def test_settings_that_cannot_work_are_named(cli: Cli) -> None:
    done = cli.run("doctor", PORT="http")
    assert done.status == 2
    assert done.err.startswith("PORT: ")


def test_with_a_server_and_a_model_all_is_well(server: Service, guest: Cli, model: FakeModel) -> None:
    done = guest.run("doctor", **model.settings)
    assert done.status == 0, done.out
    assert all(line.startswith("✓") for line in done.out.splitlines()), done.out
    assert f"address   the service answers at {server.url}" in done.out
    assert "served now" in done.out
    assert "model     gemini gemini-2.5-flash is there" in done.out


def test_few_open_files_are_a_warning(cli: Cli) -> None:
    limited = ["sh", "-c", 'ulimit -n 200; exec "$@"', "sh", *cli.command("doctor")]
    done = subprocess.run(
        limited, cwd=cli.folder, env=cli.environment(PORT="0"), capture_output=True, text=True, check=False
    )
    assert "! files     only 200 may be open" in done.stdout


# --- settings


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"host": "0.0.0.0"}, "hands out tokens for any user"),  # noqa: S104
        ({**PRODUCTION}, "nobody can read /metrics and /status"),
        ({**PRODUCTION, "metrics_token": "hunter2"}, "METRICS_TOKEN is short enough to be guessed"),
        ({**PRODUCTION, "admin_api_key": "hunter2"}, "ADMIN_API_KEY is short enough to be guessed"),
        ({**PRODUCTION}, "clients are given picture addresses that begin with http://127.0.0.1:0"),
        ({**PRODUCTION, "public_base_url": "http://chat.example.org"}, "tokens travel unencrypted"),
        ({**PRODUCTION, "cors_origins": ("*",)}, "allows every web page"),
    ],
)
def test_weak_settings_are_warned_about(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    if "environment" in changes:
        changes = {**changes, "auth_issuers": [{"issuer": "x", "public_keys": [public_key()]}]}
    found = findings("settings", settings(tmp_path, **changes))
    assert [finding.level for finding in found if expected in finding.text] == ["warning"]
    assert not any("hunter2" in finding.render() for finding in found)


def test_strong_settings_are_not_warned_about(tmp_path: Path) -> None:
    strong = settings(
        tmp_path,
        **PRODUCTION,
        auth_issuers=[{"issuer": "x", "public_keys": [public_key()]}],
        metrics_token="b5f0" * 8,
        public_base_url="https://chat.example.org",
    )
    assert only("settings", strong) == Finding("good", "settings", "production, at https://chat.example.org")


def test_a_slip_of_the_pen_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KY", "a-key")
    (tmp_path / ".env").write_text("OPENAI_BASEURL=http://127.0.0.1:1\nPOSTGRES_PASSWORD=x\n")
    found = [finding for finding in findings("settings", settings(tmp_path)) if finding.level == "warning"]
    assert [(finding.text.split()[0], finding.advice) for finding in found] == [
        ("GEMINI_API_KY", "Did you mean GEMINI_API_KEY?"),
        ("OPENAI_BASEURL", "Did you mean OPENAI_BASE_URL?"),
    ]


def test_a_taken_port_is_bad(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        found = only("address", settings(tmp_path, port=other.getsockname()[1]))
    assert found.level == "bad"
    assert "Address already in use" in found.text
    assert "PORT=" in found.advice


def test_a_free_port_stays_free(tmp_path: Path) -> None:
    held = HeldPort()
    assert only("address", settings(tmp_path, port=held.number)).level == "good"
    socket.create_server(("127.0.0.1", held.number)).close()


# --- files


def test_a_secret_that_others_can_read_is_warned_about(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    secret = tmp_path / "data" / "dev-secret"
    secret.write_text("x" * 64)
    secret.chmod(0o640)
    assert [finding.level for finding in findings("storage", settings(tmp_path))] == ["good", "warning"]
    secret.chmod(0o600)
    assert [finding.level for finding in findings("storage", settings(tmp_path))] == ["good"]


# Once as we are, to load everything; then as somebody who may not write, since root may write everywhere.
AS_SOMEBODY_ELSE = """
import os, sys
from yral_chat.core.config import Settings
from yral_chat.doctor import examine

settings = Settings(_env_file=None, data_dir=sys.argv[1], port=0)
examine(settings)
if len(sys.argv) > 2:
    os.setgroups([])
    os.setuid(int(sys.argv[2]))
print(*(finding.render() for finding in examine(settings)), sep="\\n")
"""


def test_a_folder_that_cannot_be_written_is_bad(cli: Cli) -> None:
    user = unprivileged_user()
    folder = folder_for(user)
    (folder / "locked").mkdir()
    (folder / "locked").chmod(0o555)
    try:
        done = subprocess.run(
            [sys.executable, "-c", AS_SOMEBODY_ELSE, str(folder / "locked"), *([str(user.pw_uid)] if user else [])],
            env=cli.environment(DATA_DIR=None),
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        shutil.rmtree(folder)
    assert f"✗ storage   {folder}/locked cannot be written by this user" in done.stdout, done.stderr


def test_a_media_folder_that_is_none_is_bad(tmp_path: Path) -> None:
    media = tmp_path / "data" / "media"
    media.parent.mkdir()
    media.touch()
    assert [finding.level for finding in findings("storage", settings(tmp_path))] == ["good", "bad"]
    media.unlink()
    media.mkdir()
    assert [finding.level for finding in findings("storage", settings(tmp_path))] == ["good"]


@pytest.mark.parametrize(
    ("changes", "level", "expected"),
    [
        ({}, "good", "bucket media at"),
        ({"s3_bucket": "another"}, "bad", "cannot be read (404 NoSuchBucket)"),
        ({"aws_secret_access_key": SecretStr("another")}, "bad", "cannot be read (403 SignatureDoesNotMatch)"),
        ({"s3_endpoint_url": "http://127.0.0.1:9"}, "bad", "cannot be read (ClientConnectorError)"),
    ],
)
def test_the_bucket_is_asked_for(tmp_path: Path, changes: dict[str, Any], level: str, expected: str) -> None:
    with Rclone(tmp_path) as server:
        found = findings("storage", s3_settings(tmp_path / "data", server.url, **{"port": 0, **changes}))
    assert [finding.level for finding in found] == ["good", level]
    assert expected in found[1].text


# --- the database


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """An up-to-date database that nobody has open."""
    migrate(settings(tmp_path).resolved_database_url)
    return tmp_path / "data" / "yral_chat.db"


def change(path: Path, statement: str) -> None:
    engine = open_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_a_good_database_is_read_without_a_trace(tmp_path: Path, database: Path) -> None:
    before = state_of(database.parent)
    found = only("database", settings(tmp_path))
    assert found.level == "good"
    assert f"{database}: revision {HEAD}" in found.text
    assert found.text.endswith("checked, not served now")
    assert state_of(database.parent) == before


def test_a_database_whose_server_died_is_read_without_a_trace(tmp_path: Path) -> None:
    service = Service(tmp_path)
    with service:
        service.kill()
    before = state_of(tmp_path / "data")
    assert any(name.endswith("-wal") for name in before)
    found = only("database", settings(tmp_path))
    assert (found.level, found.text.split(": ")[1][:13]) == ("good", f"revision {HEAD}")
    assert found.text.endswith("not served now")
    assert state_of(tmp_path / "data") == before


def test_a_database_whose_server_died_as_it_began_its_log_is_read(tmp_path: Path) -> None:
    """Between the header of an empty log and the first change in it."""
    service = Service(tmp_path)
    with service:
        service.kill()
    database = tmp_path / "data" / "yral_chat.db"
    log, index = Path(f"{database}-wal"), Path(f"{database}-shm")
    header, entries = log.read_bytes()[:32], index.read_bytes()
    change(database, "CREATE TABLE another (id)")
    assert not log.exists(), "the last that closes it takes both along"
    log.write_bytes(header)
    index.write_bytes(entries)
    before = state_of(tmp_path / "data")
    found = only("database", settings(tmp_path))
    assert (found.level, found.text.split(": ")[1][:13]) == ("good", f"revision {HEAD}")
    assert verification.examine(service.database_url).faults == []
    assert state_of(tmp_path / "data") == before


def test_a_log_without_its_index_is_not_looked_into(tmp_path: Path, database: Path) -> None:
    Path(f"{database}-wal").write_bytes(b"x" * 5000)
    before = state_of(database.parent)
    found = only("database", settings(tmp_path))
    assert found.level == "warning"
    assert "a log of 5.0 kB without its index" in found.text
    assert state_of(database.parent) == before


def test_a_damaged_database_is_bad(tmp_path: Path, database: Path) -> None:
    with database.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 4096)
    found = only("database", settings(tmp_path))
    assert found.level == "bad"
    assert "is damaged" in found.text
    assert "restore a backup" in found.advice


def test_a_file_that_is_no_database_is_bad(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "yral_chat.db").write_text("Dear diary, ...")
    found = only("database", settings(tmp_path))
    assert found.level == "bad"
    assert "is not a SQLite database" in found.text
    assert found.advice.startswith("Move it away")


@pytest.mark.parametrize("start", [0, 3 * 4096], ids=["header", "page"])
def test_with_a_backup_it_says_how_a_damaged_database_comes_back(tmp_path: Path, database: Path, start: int) -> None:
    with database.open("r+b") as file:
        file.seek(start)
        file.write(b"\xff" * 4096)
    found = only("database", settings(tmp_path, backup_url=f"file://{tmp_path}/backups"))
    assert (found.level, found.advice) == (
        "bad",
        "Stop the service, and run `yral-chat restore --latest`, which keeps the file aside",
    )


def test_a_newer_database_is_bad(tmp_path: Path, database: Path) -> None:
    change(database, "UPDATE alembic_version SET version_num = '9999'")
    found = only("database", settings(tmp_path))
    assert found.level == "bad"
    assert "belongs to a newer version" in found.text
    assert found.advice.startswith("Start the newer version")


def test_tables_of_something_else_are_bad(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    change(tmp_path / "data" / "yral_chat.db", "CREATE TABLE recipes (id integer)")
    found = only("database", settings(tmp_path))
    assert found.level == "bad"
    assert "holds tables of something else" in found.text


def test_an_empty_database_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "yral_chat.db").touch()
    found = only("database", settings(tmp_path))
    assert (found.level, found.advice) == (
        "warning",
        f"The next start brings it to {HEAD}; or do it now: yral-chat migrate",
    )
    assert found.text.endswith("revision none, 0 bytes, 0 bytes in its log, checked, not served now")


@pytest.mark.parametrize("is_there", [True, False], ids=["empty", "missing"])
@pytest.mark.parametrize("has_index", [True, False])
def test_a_log_without_its_database_is_damage(tmp_path: Path, is_there: bool, has_index: bool) -> None:
    database = tmp_path / "data" / "yral_chat.db"
    database.parent.mkdir()
    if is_there:
        database.touch()
    Path(f"{database}-wal").write_bytes(b"x" * 5000)
    if has_index:
        Path(f"{database}-shm").write_bytes(bytes(32768))
    before = state_of(database.parent)
    found = only("database", settings(tmp_path, backup_url=f"file://{tmp_path}/backups"))
    assert found.level == "bad"
    assert f"{database} is damaged" in found.text
    assert found.advice.startswith("Stop the service, and run `yral-chat restore --latest`")
    assert state_of(database.parent) == before


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://ada:hunter2@127.0.0.1:1/chat", "PostgreSQL at 127.0.0.1:1 cannot be reached"),
        ("mysql://127.0.0.1/chat", "unknown database: mysql"),
        ("chat.db", "is not a URL"),
    ],
)
def test_a_database_url_that_leads_nowhere_is_bad(tmp_path: Path, url: str, expected: str) -> None:
    found = only("database", settings(tmp_path, database_url=url))
    assert found.level == "bad"
    assert expected in found.text
    assert "hunter2" not in found.render()


@pytest.mark.postgres
def test_postgres_is_read_and_its_server_seen(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = request.getfixturevalue("postgres").create_database()
    given = settings(tmp_path, database_url=url)
    empty = only("database", given)
    assert empty.level == "warning"
    assert "revision none" in empty.text
    with Service(tmp_path, DATABASE_URL=url):
        served = only("database", given)
    assert served.level == "good"
    assert f"revision {HEAD}, PostgreSQL 1" in served.text
    assert served.text.endswith(", served now")

    async def is_left() -> bool:  # PostgreSQL needs a moment to see that its client was killed
        return "not served now" in (await asyncio.to_thread(only, "database", given)).text

    asyncio.run(until(is_left, what="the end of the server"))
    assert findings("sqlite", given) == []


# --- identity


def public_key() -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def key_set() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return json.dumps({"keys": [json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key))]}).encode()


@pytest.fixture
def key_server() -> Iterator[str]:
    """Serves a key set at /good, something else at /bad, and nothing elsewhere."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = {"/good": key_set(), "/bad": b"<html>"}.get(self.path)
            self.send_response(200 if body else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_issuers_are_asked_for_their_keys(tmp_path: Path, key_server: str) -> None:
    (tmp_path / "keys.json").write_bytes(key_set())
    sources: list[dict[str, Any]] = [
        {"jwks_url": f"{key_server}/good"},
        {"jwks_file": str(tmp_path / "keys.json")},
        {"public_keys": [public_key(), public_key()]},
        {"jwks_url": f"{key_server}/bad"},
        {"jwks_url": f"{key_server}/nothing"},
        {"jwks_url": "http://127.0.0.1:1/keys"},
        {"jwks_file": str(tmp_path / "none.json")},
        {"public_keys": ["not a key"]},
    ]
    issuers = [{"issuer": f"issuer-{number}", **source} for number, source in enumerate(sources)]
    found = findings("identity", settings(tmp_path, auth_issuers=issuers))
    assert [finding.level for finding in found] == ["good"] * 3 + ["bad"] * 5
    assert found[0].text == f"issuer-0: 1 key from {key_server}/good"
    assert found[2].text == "issuer-2: 2 keys from the settings"
    assert "status 404" in found[4].text
    assert all(finding.advice for finding in found[3:])


def test_the_development_issuer_is_good_enough_in_development(tmp_path: Path) -> None:
    assert only("identity", settings(tmp_path)).level == "good"


# --- models


@pytest.fixture
def vendor(model: FakeModel) -> dict[str, Any]:
    return {
        "gemini_api_key": "a-key",
        "gemini_base_url": model.base_url_gemini,
        "gemini_models": ("first", "second"),
        "openai_base_url": model.base_url_openai,
        "openai_models": ("llama", "mistral"),
    }


def test_each_model_is_asked_for(tmp_path: Path, model: FakeModel, vendor: dict[str, Any]) -> None:
    model.tell(models={"second": {"status": 404}, "llama:latest": {}, "mistral-large": {}})
    found = findings("model", settings(tmp_path, **vendor))
    assert [(finding.level, finding.text.split()[1]) for finding in found] == [
        ("good", "first"),
        ("bad", "second"),
        ("good", "llama"),
        ("bad", "mistral"),
    ]
    assert found[1].advice == "Correct GEMINI_MODELS"
    assert found[3].advice == "Correct OPENAI_MODELS: there is mistral-large"
    assert model.requests() == [], "nothing was generated"


@pytest.mark.parametrize(
    ("status", "level", "expected"),
    [
        (400, "bad", "the key is refused (HTTP 400)"),
        (401, "bad", "the key is refused (HTTP 401)"),
        (403, "bad", "the key is refused (HTTP 403)"),
        (429, "warning", "is busy or out of quota (HTTP 429)"),
        (503, "warning", "is busy or out of quota (HTTP 503)"),
        (302, "bad", "it answers with HTTP 302"),
    ],
)
def test_what_gemini_refuses_is_told_apart(
    tmp_path: Path, model: FakeModel, vendor: dict[str, Any], status: int, level: str, expected: str
) -> None:
    model.tell(default={"status": status})
    only_gemini = {**vendor, "gemini_models": ("first",), "openai_base_url": None, "openai_models": ()}
    found = only("model", settings(tmp_path, **only_gemini))
    assert found.level == level
    assert expected in found.text
    assert "a-key" not in found.render()


@pytest.mark.parametrize(
    ("status", "level", "expected"),
    [
        (401, "bad", "the key is refused (HTTP 401)"),
        (404, "warning", "does not list its models"),
        (429, "warning", "is busy or out of quota"),
    ],
)
def test_what_an_openai_server_refuses_is_told_apart(
    tmp_path: Path, model: FakeModel, vendor: dict[str, Any], status: int, level: str, expected: str
) -> None:
    model.tell(default={"status": status})
    only_openai = {**vendor, "gemini_api_key": None, "openai_models": ("llama",)}
    found = only("model", settings(tmp_path, **only_openai))
    assert (found.level, expected in found.text) == (level, True), found.text


def test_a_vendor_out_of_reach_is_bad(tmp_path: Path, vendor: dict[str, Any]) -> None:
    nowhere = {"gemini_base_url": "http://127.0.0.1:1", "openai_base_url": "http://nowhere.invalid/v1"}
    found = findings("model", settings(tmp_path, **(vendor | nowhere)))
    assert [finding.level for finding in found] == ["bad"] * 4
    assert "cannot be reached (Connection refused)" in found[0].text
    assert "cannot be reached (" in found[2].text
    assert "OPENAI_BASE_URL" in found[2].advice


def test_a_key_in_the_open_is_warned_about(tmp_path: Path) -> None:
    given = {"gemini_api_key": "a-key", "gemini_base_url": "http://nowhere.invalid", "gemini_models": ("first",)}
    assert "GEMINI_BASE_URL is not https" in findings("model", settings(tmp_path, **given))[-1].text


def test_a_route_to_nowhere_is_warned_about(tmp_path: Path, vendor: dict[str, Any]) -> None:
    without = {**vendor, "gemini_api_key": None, "nsfw_provider": "gemini", "openai_models": ("llama",)}
    assert "NSFW_PROVIDER=gemini is not configured" in findings("model", settings(tmp_path, **without))[-1].text


# --- the backup


BACKED_UP = {"backup_url": "s3://media/chat", "litestream_enabled": True}


@pytest.mark.parametrize(
    ("changes", "level", "expected"),
    [
        ({}, "good", "s3://media/chat, nothing yet"),
        ({"backup_url": "s3://another/chat"}, "bad", "there is no such bucket"),
        ({"aws_secret_access_key": SecretStr("another")}, "bad", "the keys are refused"),
        ({"s3_endpoint_url": "http://127.0.0.1:9"}, "bad", "it does not answer"),
    ],
)
def test_the_place_of_the_backup_is_asked_for(
    tmp_path: Path, changes: dict[str, Any], level: str, expected: str
) -> None:
    with Rclone(tmp_path) as server:
        given = {"port": 0, **BACKED_UP, **changes}
        found = findings("backup", s3_settings(tmp_path / "data", server.url, media_backend="local", **given))
    assert [finding.level for finding in found] == [level, "good"]
    assert expected in found[0].text


@pytest.mark.parametrize(("place", "is_inside"), [("data/backup", True), ("data", True), ("data-2/backup", False)])
def test_a_backup_that_is_lost_with_its_folder_is_warned_about(tmp_path: Path, place: str, is_inside: bool) -> None:
    for data_dir in (tmp_path / "data", Path("data")):  # as it is unless it is set
        given = settings(tmp_path, data_dir=data_dir, backup_url=(tmp_path / place).as_uri(), litestream_enabled=True)
        found = [finding for finding in findings("backup", given) if finding.level == "warning"]
        assert [(finding.text, finding.advice) for finding in found] == is_inside * [
            (
                f"{tmp_path / place} lies in DATA_DIR and is lost with it",
                "set BACKUP_URL to a bucket, or to a folder on another disk",
            )
        ]


def test_a_backup_of_media_that_is_lost_with_its_folder_is_warned_about(tmp_path: Path) -> None:
    place = tmp_path / "data" / "copies"
    found = findings("backup", settings(tmp_path, data_dir=tmp_path / "data", media_backup_url=place.as_uri()))
    assert [(finding.level, finding.text, finding.advice) for finding in found] == [
        (
            "warning",
            f"{place} lies in DATA_DIR and is lost with it",
            "set MEDIA_BACKUP_URL to a bucket, or to a folder on another disk",
        )
    ]


def test_without_a_backup_production_is_warned(tmp_path: Path) -> None:
    assert not findings("backup", settings(tmp_path))
    strong = {"environment": "production", "auth_issuers": [{"issuer": "i", "jwks_file": "nowhere"}],
              "media_signing_key": "k" * 32, "allow_offline_model": True}  # fmt: skip
    (found,) = findings("backup", settings(tmp_path, **strong))
    assert found.level == "warning"
    assert "on this machine alone" in found.text


def test_a_missing_litestream_is_bad_only_where_it_is_to_be_started(tmp_path: Path) -> None:
    given = {"backup_url": f"file://{tmp_path}/backups", "litestream_path": Path("/nowhere/litestream")}
    for is_enabled, level in ((True, "bad"), (False, "warning")):
        found = findings("backup", settings(tmp_path, litestream_enabled=is_enabled, **given))
        assert [finding.level for finding in found] == ["good", level]
        assert "pip install" in found[1].advice


def test_a_litestream_that_cannot_be_spoken_to_is_bad(tmp_path: Path) -> None:
    program = tmp_path / "litestream"
    program.write_text("#!/bin/sh\necho v0.5.8\n")
    program.chmod(0o700)
    given = {"backup_url": f"file://{tmp_path}/backups", "litestream_enabled": True}
    old = findings("backup", settings(tmp_path, **given, litestream_path=program))[1]
    assert (old.level, old.text) == ("bad", f"{program} is Litestream 0.5.8, which cannot be asked where it is")
    assert old.advice == "Install 0.5.9 or newer: https://litestream.io/install"
    far = findings("backup", settings(tmp_path, **given, data_dir=tmp_path / ("a" * 100)))[1]
    assert far.level == "bad"
    assert "is too long for a socket" in far.text
    assert "DATA_DIR" in far.advice


@pytest.mark.parametrize("library", ["lz4.block", "fastcrc.crc64"])
def test_a_library_without_which_nothing_is_proven_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    given = {"backup_url": f"file://{tmp_path}/backups", "litestream_enabled": True}
    found = findings("backup", settings(tmp_path, **given))[1]
    assert (found.level, found.text) == ("bad", f"{library} is not there")
    assert "pip install" in found.advice


@pytest.mark.postgres
def test_dumps_are_asked_for_and_their_programs(
    postgres: PrivatePostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"database_url": postgres.create_database(), "backup_url": f"file://{tmp_path}/dumps"}
    place, programs = findings("backup", settings(tmp_path, **given))
    assert (place.level, place.text) == ("good", f"{tmp_path}/dumps, no dump yet")
    assert "pg_dump" in programs.text
    monkeypatch.setenv("PATH", str(tmp_path))
    _, programs = findings("backup", settings(tmp_path, **given))
    assert (programs.level, programs.text) == ("bad", "pg_dump is not on PATH")
