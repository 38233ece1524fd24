"""No secret in what is printed of settings, and none in the messages of those that cannot work."""

import ast
import copy
import re
import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from yral_chat.core.config import Settings

SOURCE = Path(__file__).parents[2] / "src" / "yral_chat"
SECRETS = sorted(
    name
    for name, field in Settings.model_fields.items()
    if SecretStr in getattr(field.annotation, "__args__", (field.annotation,))
)
# Whoever knows the address of a webhook can often write to it.
ADDRESSES = ["push_url", "operator_webhook_url"]
MARK = "hunter2-hunter2-hunter2-hunter2-hunter2"


def given() -> dict[str, Any]:
    """Every secret set, to something that is easy to find."""
    secrets = {name: f"{MARK}-{name}" for name in SECRETS if name not in ("redis_url", "broker_url")}
    return {
        **secrets,
        "openai_models": ("m",),
        "database_url": f"postgresql://ada:{MARK}@127.0.0.1:1/chat",
        "sentry_dsn": f"https://{MARK}@127.0.0.1:1/1",
        **dict.fromkeys(ADDRESSES, f"https://hooks.example/{MARK}"),
    }


def test_all_that_is_secret_is_declared_so() -> None:
    named = {
        name for name in Settings.model_fields if re.search(r"(key|secret|token|password|dsn)$|_access_key_id", name)
    }
    assert named <= set(SECRETS)
    assert {"database_url", "redis_url", "broker_url"} <= set(SECRETS)


def test_settings_are_printed_without_their_secrets() -> None:
    settings = Settings(_env_file=None, **given())
    shown = [repr(settings), str(settings), f"{settings!r:>5}", repr(copy.copy(settings)), repr(settings.model_copy())]
    shown += [str(settings.model_dump(exclude=set(ADDRESSES))), settings.model_dump_json(exclude=set(ADDRESSES))]
    assert [text for text in shown if MARK in text] == []
    assert settings.gemini_api_key is not None
    assert MARK in settings.gemini_api_key.get_secret_value(), "it is there, though"


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": "http"},
        {"environment": "production"},
        {"auth_dev_secret": "short-hunter2"},
        {"gemini_api_key": f"{MARK}\n"},
        {"redis_url": f"redis://:{MARK}@127.0.0.1"},
        {"push_url": f"ftp://hooks.example/{MARK}"},
        {"media_signing_key": "short-hunter2"},
        {"admin_api_key": {"a": MARK}},
        {"metrics_token": [MARK]},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_settings_that_cannot_work_are_refused_without_their_values(wrong: dict[str, Any]) -> None:
    """Also where nobody catches the error: a server that is started with the factory shows its traceback."""
    with pytest.raises(ValidationError) as refusal:
        Settings(_env_file=None, **{**given(), **wrong})
    shown = [str(refusal.value), repr(refusal.value), "".join(traceback.format_exception_only(refusal.value))]
    assert [text for text in shown if "hunter2" in text] == []


def test_no_secret_is_compared_in_a_time_that_tells_something() -> None:
    """`==` ends at the first byte that differs; hmac.compare_digest does not."""
    found = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq | ast.In) for op in node.ops):
                names = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
                names |= {name.attr for name in ast.walk(node) if isinstance(name, ast.Attribute)}
                if any(
                    re.search(r"secret_value|signature|admin_api_key|metrics_token|(^|_)sig$|digest", name)
                    for name in names
                ):
                    found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    assert found == []


def test_every_exception_from_a_security_rule_has_its_reason() -> None:
    bare = [
        f"{path.name}:{number}"
        for path in SOURCE.rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"# noqa: (?:\w+, ?)*S\d+[\w, ]*$", line)
    ]
    assert bare == []
