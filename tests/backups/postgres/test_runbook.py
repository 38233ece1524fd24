"""The parts of docs/operations/postgres.md that are about dumps, and putting back a part out of one."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from tests.backups.postgres.test_archive import steps
from tests.cli.commands import Cli
from tests.client import PLAIN
from tests.programs import PrivatePostgres
from tests.service import Service, token
from yral_chat.core.clock import now, to_text
from yral_chat.db.verification import examine

pytestmark = pytest.mark.postgres
KEY = "the-key-of-the-operator"


class Operator:
    """Somebody with a shell, and the settings of the service."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder / "operator"
        self._cli = Cli(
            self.folder,
            DATABASE_URL=url,
            BACKUP_URL=(folder / "dumps").as_uri(),
            DATA_DIR=str(folder / "home" / "data"),
            ADMIN_API_KEY=KEY,
        )

    def follow(self, block: str, **more: str) -> str:
        environment = self._cli.environment(**more)
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        command = ["bash", "-euo", "pipefail", "-c", block]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def service(postgres: PrivatePostgres, tmp_path: Path) -> Iterator[Service]:
    (tmp_path / "home").mkdir()
    url = postgres.create_database()
    target = (tmp_path / "dumps").as_uri()
    with Service(tmp_path / "home", DATABASE_URL=url, BACKUP_URL=target, ADMIN_API_KEY=KEY) as running:
        yield running


@pytest.fixture
def operator(service: Service, tmp_path: Path) -> Operator:
    return Operator(tmp_path, service.settings["DATABASE_URL"] or "")


def talk(service: Service, *texts: str) -> tuple[httpx2.Client, str]:
    """Somebody who has said this, and the conversation."""
    headers = {"Authorization": f"Bearer {token('somebody')}"}
    client = httpx2.Client(base_url=service.url, headers=headers, verify=PLAIN, timeout=60)
    influencer = client.get("/api/v1/influencers").json()["influencers"][0]["id"]
    conversation = client.post("/api/v1/chat/conversations", json={"influencer_id": influencer}).json()["id"]
    for text in texts:
        body = {"message_type": "text", "content": text}
        client.post(f"/api/v1/chat/conversations/{conversation}/messages", json=body).raise_for_status()
    return client, conversation


def history(client: httpx2.Client, conversation: str) -> list[str]:
    path = f"/api/v1/chat/conversations/{conversation}/messages"
    messages = client.get(path, params={"limit": 100, "order": "asc"}).json().get("messages", [])
    return [message["content"] for message in messages if message["role"] == "user"]


def test_dumps_step_by_step(service: Service, operator: Operator, postgres: PrivatePostgres) -> None:
    client, conversation = talk(service, "the first words", "and more")
    client.close()
    runbook = steps()
    shown = operator.follow(runbook["Dumps"][0])
    assert re.search(r"^Dumped to .*^server      up$.*^dumps       1, .*^1 dump\. Sound\.$", shown, re.M | re.S), shown
    assert "Proven: " in operator.follow(runbook["Proof"][0])
    service.stop()
    by_command, by_hand = postgres.create_database(), postgres.create_database()
    latest, file = runbook["Bring a dump back"]
    assert "every row is there" in operator.follow(latest, DATABASE_URL=by_command)
    operator.follow(file, DATABASE_URL=by_hand)
    assert examine(by_command).tables == examine(by_hand).tables
    service.settings["DATABASE_URL"] = by_command
    service.start()
    headers = {"Authorization": f"Bearer {token('somebody')}"}
    with httpx2.Client(base_url=service.url, headers=headers, verify=PLAIN, timeout=60) as again:
        assert history(again, conversation) == ["the first words", "and more"]


def test_a_deleted_conversation_comes_back_out_of_a_dump_while_the_service_runs(
    service: Service, operator: Operator
) -> None:
    client, conversation = talk(service, "the first words", "and more")
    with closing(client):
        operator.follow("yral-chat backup dump")
        assert client.delete(f"/api/v1/chat/conversations/{conversation}").status_code == 200
        assert history(client, conversation) == []
        shown = operator.follow(f"yral-chat restore --latest --conversation {conversation}")
        assert re.search(r"^messages +\d+ in 1 conversation", shown, re.M), shown
        assert history(client, conversation) == ["the first words", "and more"]


def test_who_was_erased_does_not_come_back_by_a_machine_that_has_never_heard_of_it(
    service: Service, operator: Operator, tmp_path: Path
) -> None:
    client, conversation = talk(service, "the first words")
    with closing(client):
        operator.follow("yral-chat backup dump")
        before = to_text(now())
        assert client.delete("/api/v1/users/me").status_code == 200
    operator.follow("yral-chat backup dump")  # the list of the erased goes with it
    service.stop()
    (tmp_path / "new").mkdir()
    shown = operator.follow(
        f"yral-chat restore --at {before} --conversation {conversation} 2>&1 || true", DATA_DIR=str(tmp_path / "new")
    )
    assert "was erased after the copy was made" in shown, shown
    assert "Put back" not in shown
