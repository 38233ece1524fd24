"""Nothing that people write, and no secret, is written anywhere but into the database.

Every planted mark begins with the same letters, so that one look at everything the service has written finds any.
"""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError
from sqlalchemy import update

from tests.api.creating import persona
from tests.api.people import open_with, write
from tests.api.sockets import address, socket_at
from tests.client import Api, messages
from tests.files import recording, upload, uploaded
from tests.observing.conftest import MakeUser
from tests.rows import execute
from tests.service import FakeModel, Service, token
from tests.waiting import there, until
from yral_chat.core.config import Settings
from yral_chat.db.tables import influencers

MARK = "zqmark"
SECRETS = {
    name: f"{MARK}-{name.lower().replace('_', '-')}-with-more-than-32-bytes"
    for name in (
        "AUTH_DEV_SECRET", "GEMINI_API_KEY", "OPENAI_API_KEY", "REPLICATE_API_TOKEN", "ADMIN_API_KEY", "METRICS_TOKEN",
        "MEDIA_SIGNING_KEY", "PUSH_SECRET", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
    )
}  # fmt: skip
ADDRESSES = {
    "PUSH_URL": f"http://127.0.0.1:1/{MARK}-push?key={MARK}",
    "OPERATOR_WEBHOOK_URL": f"http://127.0.0.1:1/{MARK}-operator",
    "SENTRY_DSN": f"http://{MARK}@127.0.0.1:1/1",
}
SAID = f"{MARK}-text I live in {MARK}ville"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, model_process: FakeModel) -> Iterator[Service]:
    """A service that logs all it can."""
    vendors = {**model_process.settings, **model_process.picture_settings}
    settings = {**vendors, **SECRETS, **ADDRESSES, "OPENAI_MODELS": "a-model", "OPENAI_BASE_URL": "http://127.0.0.1:1"}
    with Service(
        tmp_path_factory.mktemp("watched"),
        **settings,
        LOG_LEVEL="TRACE",
        LOG_FORMAT="json",
        MEMORIES_ENABLED="true",
        BREAKER_FAILURES="1000",
        PROFILE_URL="http://127.0.0.1:1/profiles",
    ) as service:
        yield service


@pytest.fixture
def api(watched: Service, user_of: MakeUser, model: FakeModel) -> Api:
    return person(watched, user_of, "ada")


def person(watched: Service, user_of: MakeUser, name: str) -> Api:
    user_id = f"{MARK}-{name}"
    bearer = token(user_id, secret=SECRETS["AUTH_DEV_SECRET"])
    return user_of(watched, user_id, {"Authorization": f"Bearer {bearer}"})


async def converse(api: Api, model: FakeModel) -> None:
    conversation = await api.open()
    await api.said(conversation["id"], SAID)
    events = await api.stream(conversation["id"], SAID)
    reply = events[-1].data["assistant_message"]
    await api.post(f"{messages(conversation['id'])}/{reply['id']}/regenerate")
    await api.history(conversation["id"])
    await api.get(f"/api/v1/chat/conversations/{conversation['id']}/memories")
    model.tell(default={"status": 400})
    assert (await api.send(conversation["id"], f"{SAID} again")).status_code >= 500
    model.tell(default={"cut_after_bytes": 40, "chunks": 5, "chunk_text": MARK})
    assert (await api.send(conversation["id"], f"{SAID} still")).status_code >= 500
    model.reset()
    await api.request(
        "POST",
        "/v1/chat/completions",
        json={"model": conversation["influencer_id"], "messages": [{"role": "user", "content": SAID}]},
    )


async def show(api: Api) -> None:
    """Files, good and bad, and their signed addresses."""
    conversation = await api.open()
    stored = await uploaded(api, "image")
    assert (await api.http.get(stored["url"])).status_code == 200
    assert (await api.http.get(stored["url"] + MARK)).status_code >= 400
    heard = await upload(api, "audio", recording(), f"{MARK}.wav")
    await upload(api, "image", MARK.encode() * 100, f"{MARK}.jpg")
    await api.post(
        messages(conversation["id"]), {"message_type": "audio", "content": "", "audio_url": heard.json()["storage_key"]}
    )
    await api.post(f"/api/v1/chat/conversations/{conversation['id']}/images", {"prompt": SAID})


async def create(api: Api, watched: Service) -> None:
    made = await api.post("/api/v1/influencers/create", persona(display_name=MARK, system_instructions=f"Say {MARK}!"))
    assert made.status_code == 201, made.text
    await api.post("/api/v1/influencers/generate-prompt", {"prompt": SAID})
    await api.request("POST", "/api/v1/influencers/import", files={"file": (f"{MARK}.json", b'{"zqmark')})
    conversation = await api.open(made.json()["id"])
    await api.send(conversation["id"], SAID)


async def misbehave(api: Api) -> None:
    """Bodies, tokens and paths of which nothing is right."""
    for path in ("/api/v1/chat/conversations", "/api/v1/influencers/create", "/api/v1/users/me/settings"):
        for body in (f'{{"influencer_id": "{MARK}', f'{{"influencer_id": ["{MARK}"], "name": "{MARK}"}}'):
            headers = {"Content-Type": "application/json"}
            assert (await api.http.request("POST", path, content=body, headers=headers)).status_code >= 400
    for bad in (f"{MARK}.{MARK}.{MARK}", MARK, token(MARK, secret="another-secret-with-more-than-32-bytes")):
        answer = await api.http.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {bad}"})
        assert answer.status_code == 401
    forged = '%0a{"level":"ERROR","event":"forged"}'
    await api.http.get(f"/{MARK}{forged}?{MARK}={forged}", headers={"User-Agent": f"{MARK} \x1b[31m", "Cookie": MARK})
    await api.http.get("/health", headers={"X-Correlation-ID": f'{MARK}"{{', "X-Admin-Key": MARK, "traceparent": MARK})


async def listen(api: Api, watched: Service, other: Api) -> None:
    bearer = token(api.user_id, secret=SECRETS["AUTH_DEV_SECRET"])
    where = f"{watched.url.replace('http', 'ws', 1)}/api/v1/chat/ws/inbox/{api.user_id}?token={bearer}"
    async with socket_at(where) as socket:
        chat = await open_with(other, api)
        await write(other, chat["id"], SAID)
        assert MARK in str(await socket.recv())
        await socket.send(MARK)
    async with httpx2.AsyncClient(base_url=watched.url) as client:
        await client.get(address("", api.user_id, token=MARK))


async def crash(api: Api, watched: Service) -> None:
    """A row that nobody could have written makes a handler fail with an error of somebody else."""
    execute(watched, update(influencers).values(suggested_messages=f'["{MARK}'))
    found = await api.http.get("/api/v1/influencers?limit=7")
    assert found.status_code == 500


async def test_no_mark_is_in_anything_that_the_service_writes(
    watched: Service, api: Api, user_of: MakeUser, model: FakeModel
) -> None:
    await converse(api, model)
    await show(api)
    await create(api, watched)
    await misbehave(api)
    await listen(api, watched, person(watched, user_of, "bob"))
    await crash(api, watched)
    process = watched.process
    await until(there(lambda: any("job.failed" in line for line in process.lines)), what="a webhook that fails")
    process.end(signal.SIGTERM)
    written = process.lines
    lines = [json.loads(line) for line in written if line.startswith("{")]
    events = {line["event"] for line in lines}
    assert {"turn.first_token", "turn.finished", "websocket.finished", "request.failed", "job.failed"} <= events
    assert [line for line in written if re.search(f"{MARK}|eyJ", line)] == []
    # Whatever stands around the lines is the greeting of the start.
    assert len(written) - len(lines) < 10
    assert "forged" not in " ".join(written)


def test_settings_show_no_secret(tmp_path: Path) -> None:
    given: dict[str, Any] = {name.lower(): value for name, value in {**SECRETS, **ADDRESSES}.items()}
    settings = Settings(
        _env_file=None, environment="test", data_dir=tmp_path, openai_models=("m",), **given,
        database_url=f"postgresql://chat:{MARK}@db/chat",
    )  # fmt: skip
    assert MARK not in f"{settings} {settings!r}"


def test_a_refused_value_is_not_in_the_error() -> None:
    with pytest.raises(ValidationError) as raised:
        Settings(_env_file=None, environment="test", gemini_api_key=f"{MARK}\n", port=MARK, auth_dev_secret=MARK)
    assert MARK not in f"{raised.value} {raised.value!r}"
