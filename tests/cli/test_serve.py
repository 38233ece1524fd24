"""yral-chat serve: what it says, how it ends, and how it refuses to start."""

import signal
import socket
from pathlib import Path

import httpx2
import pytest

from tests.cli.commands import Cli
from tests.service import Service

NOT_A_DATABASE = b"Dear diary, " * 100


@pytest.fixture
def own(tmp_path: Path) -> Service:
    return Service(tmp_path, ENVIRONMENT="development", AUTH_DEV_SECRET=None)


def test_serve_says_where_it_is_and_ctrl_c_ends_it_well(own: Service) -> None:
    with own:
        assert httpx2.get(f"{own.url}/health/ready").json()["status"] == "ready"
        assert own.process.end(signal.SIGINT) == 0
        assert f"open    {own.url}" in own.process.output
        assert "model   offline demo persona. For real replies set GEMINI_API_KEY" in own.process.output
        assert f"data    {own.folder.resolve()}/data" in own.process.output


@pytest.mark.long
def test_a_second_start_reuses_everything(own: Service) -> None:
    with own:
        token = httpx2.post(f"{own.url}/api/v1/auth/dev-token", json={"user_id": "ada"}).json()["token"]
        headers = {"Authorization": f"Bearer {token}"}
        path = "/api/v1/chat/conversations"
        first = httpx2.post(f"{own.url}{path}", json={"influencer_id": "persona-leela"}, headers=headers)
        assert first.status_code == 201
        files = sorted(path.name for path in (own.folder / "data").iterdir())
        own.stop()
    with own:
        listed = httpx2.get(f"{own.url}{path}", headers=headers).json()
        assert [found["id"] for found in listed["conversations"]] == [first.json()["id"]]
        assert sorted(path.name for path in (own.folder / "data").iterdir()) == files
        assert "migrated" not in own.process.output
        assert "seeded" not in own.process.output


def test_a_taken_port_is_said(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = cli.run("serve", PORT=str(port))
    assert (done.status, done.out) == (1, "")
    assert done.err == f"Cannot listen on 127.0.0.1:{port} (Address already in use). Choose another with PORT=….\n"
    assert not cli.data.exists()


def test_a_second_server_on_the_same_data_is_refused(server: Service, guest: Cli) -> None:
    done = guest.run("serve", "--port", "0")
    assert done.status == 1
    assert "yral_chat.db is served by another process. Stop it first" in done.err
    assert httpx2.get(f"{server.url}/health/live").status_code == 200


def test_a_settings_file_that_is_no_text_is_said(cli: Cli) -> None:
    (cli.folder / ".env").write_bytes("PORT=0\n".encode("utf-16"))  # what some editors on Windows save
    done = cli.run("serve")
    assert (done.status, done.out) == (2, "")
    assert done.err == "The file .env cannot be read: it is not UTF-8. Save it as UTF-8 text.\n"
    assert not cli.data.exists()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("PORT", "http", "valid integer"),
        ("ENVIRONMENT", "prod", "'production'"),
        ("ENVIRONMENT", "production", "AUTH_ISSUERS"),
        ("AUTH_ISSUERS", "https://issuer.example", "not valid JSON"),
        ("AUTH_ISSUERS", '[{"issuer": "x"}]', "exactly one of"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:1/v1", "OPENAI_MODELS"),
        ("GEMINI_API_KEY", "a-key\r", "line break"),
        ("REDIS_URL", "redis://127.0.0.1", "not supported yet"),
    ],
)
def test_settings_that_cannot_work_stop_the_start_by_name(cli: Cli, name: str, value: str, reason: str) -> None:
    done = cli.run("serve", **{name: value})
    assert (done.status, done.out) == (2, "")
    assert name in done.err or name == "ENVIRONMENT"
    assert reason in done.err
    assert "Traceback" not in done.err
    assert not cli.data.exists()


@pytest.mark.parametrize("value", ["mysql://127.0.0.1/x", "yral.db", "sqlite://"])
def test_a_database_url_that_names_none_is_refused(cli: Cli, value: str) -> None:
    done = cli.run("serve", DATABASE_URL=value, PORT="0")
    assert done.status == 1
    assert done.err.startswith("DATABASE_URL ")
    assert done.err.count("\n") == 1


def test_a_file_that_is_no_database_is_left_alone(cli: Cli) -> None:
    cli.data.mkdir()
    (cli.data / "yral_chat.db").write_bytes(NOT_A_DATABASE)
    done = cli.run("serve", PORT="0")
    assert done.status == 1
    assert "does not begin as a SQLite database does) and was left as it is" in done.err
    assert (cli.data / "yral_chat.db").read_bytes() == NOT_A_DATABASE


def test_a_data_folder_that_cannot_be_made_is_said(cli: Cli) -> None:
    (cli.folder / "data").write_text("a file")
    done = cli.run("serve", PORT="0")
    assert (done.status, done.err) == (1, f"{cli.folder}/data: File exists\n")
