"""Settings that cannot work stop the start with a sentence."""

import pytest
from pydantic import ValidationError

from yral_chat.core.config import Settings


@pytest.mark.parametrize("name", ["public_base_url", "gemini_base_url", "openai_base_url", "profile_url"])
@pytest.mark.parametrize("value", ["nourl", "ftp://host", "http://", "https://ho st/", "//host"])
def test_an_address_that_is_none_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValidationError, match="not an address"):
        Settings(_env_file=None, openai_models=("m",), **{name: value})  # type: ignore[arg-type]


def test_addresses_are_kept_as_they_are() -> None:
    settings = Settings(
        _env_file=None, profile_url="http://127.0.0.1:9/people/", public_base_url="https://chat.example/"
    )
    assert settings.profile_url == "http://127.0.0.1:9/people/"
    assert settings.base_url == "https://chat.example"


def test_webhooks_need_a_secret_where_they_count() -> None:
    given = {
        "environment": "production", "auth_issuers": ({"issuer": "i", "public_keys": ["k"], "algorithms": ["RS256"]},),
        "media_signing_key": "m" * 32, "allow_offline_model": True, "push_url": "https://example.com/push",
    }  # fmt: skip
    with pytest.raises(ValidationError, match="PUSH_SECRET"):
        Settings(_env_file=None, **given)  # type: ignore[arg-type]
    assert Settings(_env_file=None, push_secret="a-secret", **given).push_secret is not None  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["backup_url", "media_backup_url"])
@pytest.mark.parametrize(
    "value", ["s3://KEY:SECRET@media/x", "s3://KEY:SEC/RET@media", "s3://media/a#b", "s3://media/a?b", "file:///a#b"]
)
def test_a_place_for_backups_with_more_than_its_path_is_refused_and_not_repeated(name: str, value: str) -> None:
    with pytest.raises(ValidationError, match="has to look like") as caught:
        Settings(_env_file=None, **{name: value})  # type: ignore[arg-type]
    assert "SEC" not in caught.value.errors()[0]["msg"]


def test_a_place_for_backups_may_have_any_character_that_is_escaped() -> None:
    assert Settings(_env_file=None, backup_url="file:///a%23b@c").backup_url == "file:///a%23b@c"
