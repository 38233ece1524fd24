"""What the program says when something is wrong has no secret in it."""

import pytest

from tests.cli.commands import Cli
from yral_chat.core.config import Settings

# Each starts the program.
pytestmark = pytest.mark.long

MARK = "hunter2-hunter2-hunter2-hunter2-hunter2"
SECRETS = {
    "GEMINI_API_KEY": MARK,
    "GEMINI_BASE_URL": "http://127.0.0.1:1",
    "OPENAI_API_KEY": MARK,
    "OPENAI_BASE_URL": "http://127.0.0.1:1/v1",
    "OPENAI_MODELS": "m",
    "REPLICATE_API_TOKEN": MARK,
    "REPLICATE_BASE_URL": "http://127.0.0.1:1",
    "ADMIN_API_KEY": MARK,
    "METRICS_TOKEN": MARK,
    "AUTH_DEV_SECRET": MARK,
    "PUSH_SECRET": MARK,
    "PUSH_URL": f"http://127.0.0.1:1/{MARK}",
    "OPERATOR_WEBHOOK_URL": f"http://127.0.0.1:1/{MARK}",
    "PROFILE_URL": "http://127.0.0.1:1",
    "MEDIA_SIGNING_KEY": MARK,
    "MEDIA_BACKEND": "s3",
    "S3_BUCKET": "b",
    "S3_ENDPOINT_URL": "http://127.0.0.1:1",
    "AWS_ACCESS_KEY_ID": MARK,
    "AWS_SECRET_ACCESS_KEY": MARK,
    "SENTRY_DSN": f"http://{MARK}@127.0.0.1:1/1",
    "PORT": "0",
}


def test_these_are_settings() -> None:
    assert {name.lower() for name in SECRETS} <= Settings.model_fields.keys()


@pytest.mark.parametrize("command", [("doctor",), ("serve",), ("migrate",), ("jobs", "list")])
def test_a_database_that_is_not_there_is_named_without_its_password(cli: Cli, command: tuple[str, ...]) -> None:
    address = f"postgresql://ada:{MARK}@127.0.0.1:1/chat"
    for given in ({"DATABASE_URL": address}, {**SECRETS, "DATABASE_URL": address}):
        done = cli.run(*command, **given)
        assert done.status != 0
        assert done.out + done.err
        assert "hunter2" not in done.out + done.err


@pytest.mark.parametrize(
    "wrong",
    [
        {"DATABASE_URL": f"postgresql://ada:{MARK}@[::1/chat"},
        {"DATABASE_URL": f"mysql://ada:{MARK}@127.0.0.1/chat"},
        {"DATABASE_URL": f"postgresql://ada:{MARK}@127.0.0.1:port/chat"},
        {"AUTH_ISSUERS": f'[{{"issuer": "{MARK}", "secret": "{MARK}"}}]'},
        {"AUTH_DEV_SECRET": "hunter2"},
        {"ENVIRONMENT": "production"},
        {"REDIS_URL": f"redis://:{MARK}@127.0.0.1"},
        {"PUSH_URL": f"{MARK}://"},
        {"PORT": "http"},
    ],
    ids=lambda wrong: "{}".format(*wrong),
)
def test_a_setting_that_cannot_work_is_named_without_its_value(cli: Cli, wrong: dict[str, str]) -> None:
    for command in ("serve", "doctor"):
        done = cli.run(command, **{**SECRETS, **wrong})
        assert done.status != 0
        said = (done.out + done.err).replace(f"issuer {MARK}", "")  # an issuer's name is no secret
        assert "hunter2" not in said


def test_doctor_names_no_secret(cli: Cli) -> None:
    done = cli.run("doctor", **SECRETS)
    assert "model" in done.out
    assert "hunter2" not in done.out + done.err
