"""yral-chat log-level: what the log shows is changed while the service runs."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.service import Service
from tests.waiting import there, until
from yral_chat.core.config import Settings
from yral_chat.log_commands import LogCommandFailed, ask_log_level

KEY = "the-key-of-the-operator"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("levels")
    with Service(folder, ADMIN_API_KEY=KEY, LOG_FORMAT="json", LOG_LEVEL="WARNING") as running:
        yield running


def settings_of(service: Service, **changes: object) -> Settings:
    given = {"admin_api_key": KEY, "data_dir": service.folder / "data", **changes}
    return Settings(environment="test", **given)  # type: ignore[arg-type]


def is_shown(service: Service, path: str) -> bool:
    """Whether a request for this probe is in the log."""
    return any("request.finished" in line and path in line for line in service.process.lines)


async def test_a_level_holds_for_a_while_and_then_goes_back(service: Service) -> None:
    settings = settings_of(service)
    assert await ask_log_level(settings, None, None) == "WARNING"
    httpx2.get(f"{service.url}/health/live")
    assert await ask_log_level(settings, "debug", "5s") == "DEBUG"
    httpx2.get(f"{service.url}/health/ready")
    await until(there(lambda: is_shown(service, "/health/ready")), what="a line of level DEBUG")
    assert not is_shown(service, "/health/live")

    async def usual() -> bool:
        return await ask_log_level(settings, None, None) == "WARNING"

    await until(usual, what="the level of the settings")

    def changes() -> int:
        return sum("log.level_changed" in line for line in service.process.lines)

    await until(there(lambda: changes() >= 2), what="both changes to be told")
    assert changes() == 2


async def test_a_level_without_a_time_stays_until_it_is_reset(service: Service) -> None:
    settings = settings_of(service)
    assert await ask_log_level(settings, "TRACE", "1h") == "TRACE"
    assert await ask_log_level(settings, "ERROR", None) == "ERROR"
    assert await ask_log_level(settings, None, None) == "ERROR"
    assert await ask_log_level(settings, "RESET", None) == "WARNING"


@pytest.mark.parametrize(
    ("level", "duration", "reason"),
    [
        ("LOUD", None, "LOUD is no level"),
        ("DEBUG", "soon", "looks like 90s"),
        ("DEBUG", "0m", "looks like 90s"),
        ("DEBUG", "999h", "up to a week"),
        (None, "10m", "belongs to a level"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    service: Service, level: str | None, duration: str | None, reason: str
) -> None:
    with pytest.raises(LogCommandFailed, match=reason):
        await ask_log_level(settings_of(service), level, duration)


async def test_only_the_operator_may_change_it(service: Service, tmp_path: Path) -> None:
    with pytest.raises(LogCommandFailed, match="ADMIN_API_KEY"):
        await ask_log_level(settings_of(service, admin_api_key=None), "DEBUG", None)
    with pytest.raises(LogCommandFailed, match="The server refuses: Invalid admin key"):
        await ask_log_level(settings_of(service, admin_api_key="another"), "DEBUG", None)
    with pytest.raises(LogCommandFailed, match="does not answer"):
        await ask_log_level(settings_of(service, port=1, data_dir=tmp_path), "DEBUG", None)
    assert httpx2.post(f"{service.url}/api/v1/admin/log-level", json={"level": "DEBUG"}).status_code == 401
