"""yral-chat jobs: beside a running server and without one."""

import pytest
from sqlalchemy import insert, select

from tests.cli.commands import Cli
from tests.rows import execute, fetch
from tests.service import Service
from yral_chat.core.clock import now
from yral_chat.core.config import Settings
from yral_chat.db.migrations import migrate
from yral_chat.db.tables import jobs
from yral_chat.job_commands import JobCommandFailed, change_jobs, list_jobs

KEY = "the-key-of-the-operator"


@pytest.fixture
def service(own_service: Service) -> Service:
    own_service.settings["ADMIN_API_KEY"] = KEY
    return own_service


def bury(service: Service, *job_ids: str) -> None:
    """Jobs that were tried too often, and of which nobody knows how they are done."""
    for job_id in job_ids:
        row = {
            "id": job_id, "name": "push.send", "payload": "{}", "attempts": 8, "run_at": now(),
            "last_error": "WebhookFailed: status 500", "is_dead": True, "created_at": now(),
        }  # fmt: skip
        execute(service, insert(jobs).values(row))


def dead(service: Service) -> set[str]:
    return {row.id for row in fetch(service, select(jobs.c.id).where(jobs.c.is_dead))}


def settings_of(service: Service, admin_api_key: str | None = KEY) -> Settings:
    """Those of a command beside this server, which listens on a port of the system's choice."""
    given = {name.lower(): value for name, value in service.settings.items() if name == "DATABASE_URL"}
    key = {} if admin_api_key is None else {"admin_api_key": admin_api_key}
    return Settings(environment="test", data_dir=service.folder / "data", **given, **key)  # type: ignore[arg-type]


async def test_dead_jobs_are_listed_retried_and_purged_beside_a_server(service: Service) -> None:
    service.start()
    bury(service, "one", "two", "three")
    settings = settings_of(service)
    lines = list(list_jobs(settings, is_dead=True))
    assert [line.split()[0] for line in lines] == ["id", "one", "two", "three", "0"]
    assert lines[1].split()[1:4] == ["push.send", "8", "dead"]
    assert lines[1].endswith("WebhookFailed: status 500")
    assert lines[-1] == "0 waiting, 3 dead"

    with pytest.raises(JobCommandFailed, match="ADMIN_API_KEY"):
        await change_jobs(settings_of(service, None), "retry")
    with pytest.raises(JobCommandFailed, match="The server refuses: Invalid admin key"):
        await change_jobs(settings_of(service, "another"), "retry")
    assert dead(service) == {"one", "two", "three"}

    assert await change_jobs(settings, "retry", "two") == 1
    assert await change_jobs(settings, "retry", "nobody") == 0
    assert await change_jobs(settings, "purge") == 2
    assert dead(service) <= {"two"}


async def test_the_address_is_told_as_long_as_somebody_listens_there(service: Service) -> None:
    service.start()
    path = service.folder / "data" / "server.address"
    assert path.read_text().strip() == service.url
    service.kill()
    service.start()
    assert path.read_text().strip() == service.url
    service.stop()
    assert not path.exists()


async def test_without_a_server_the_command_does_it_itself(service: Service) -> None:
    settings = settings_of(service, None)
    migrate(settings.resolved_database_url)
    bury(service, "one", "two")
    assert list(list_jobs(settings, is_dead=False))[-1] == "0 waiting, 2 dead"
    assert await change_jobs(settings, "retry", "one") == 1
    assert dead(service) == {"two"}
    assert await change_jobs(settings, "purge") == 1
    assert dead(service) == set()


def test_what_is_not_said_is_not_done(cli: Cli) -> None:
    nothing = cli.run("jobs", "list")
    assert (nothing.status, nothing.out) == (1, "")
    assert "There is no database" in nothing.err
    assert "--all" in cli.run("jobs", "retry").err
    assert "--dead" in cli.run("jobs", "purge").err
