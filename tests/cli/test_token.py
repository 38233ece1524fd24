"""yral-chat token."""

import stat

import httpx2
import pytest

from tests.cli.commands import Cli
from tests.service import Service

PRODUCTION = {
    "ENVIRONMENT": "production",
    "AUTH_ISSUERS": '[{"issuer": "https://issuer.example", "jwks_url": "https://issuer.example/jwks.json"}]',
    "ALLOW_OFFLINE_MODEL": "true",
    "MEDIA_SIGNING_KEY": "a-key-for-media-of-more-than-32-bytes",
}


def me(server: Service, token: str) -> dict[str, object]:
    answer = httpx2.get(f"{server.url}/api/v1/auth/me", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def test_a_token_lets_its_user_in(server: Service, guest: Cli) -> None:
    done = guest.run("token", "ada")
    assert (done.status, done.err) == (0, "")
    assert me(server, done.out.strip()) == {"user_id": "ada", "is_anonymous": False, "owned_bot_ids": []}


def test_a_token_can_be_anonymous_and_is_for_me_by_default(server: Service, guest: Cli) -> None:
    token = guest.run("token", "--anonymous").out.strip()
    assert me(server, token) == {"user_id": "me", "is_anonymous": True, "owned_bot_ids": []}


def test_the_first_token_makes_a_secret_that_only_its_owner_can_read(cli: Cli) -> None:
    assert cli.run("token").status == 0
    assert stat.S_IMODE((cli.data / "dev-secret").stat().st_mode) == 0o600


def test_there_is_none_in_production(cli: Cli) -> None:
    done = cli.run("token", **PRODUCTION)
    assert (done.status, done.out) == (1, "")
    assert "In production tokens come from AUTH_ISSUERS" in done.err
    assert not cli.data.exists()


@pytest.mark.parametrize(
    "arguments", [("",), ("x" * 256,), ("ada", "--ttl-seconds", "0"), ("ada", "--ttl-seconds", "86401")]
)
def test_what_no_token_can_say_is_refused(cli: Cli, arguments: tuple[str, ...]) -> None:
    done = cli.run("token", *arguments)
    assert done.status in (1, 2)
    assert done.out == ""
