"""What belongs together says so: in the answer, in every call to the outside, and in the log."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.api.people import open_with, wrote
from tests.fakes.recorder import Received, Recorder
from tests.files import uploaded
from tests.observing.conftest import MakeUser
from tests.service import FakeModel, Process, Service
from tests.waiting import there, until
from yral_chat.clients.public_files import PublicFiles
from yral_chat.core.logging import correlation_id

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
KEYS = {"iss": "https://issuer.example", "sub": "somebody", "exp": 4_000_000_000}


@pytest.fixture(scope="module")
def outside() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


@pytest.fixture(scope="module")
def connected(
    tmp_path_factory: pytest.TempPathFactory, model_process: FakeModel, outside: Recorder
) -> Iterator[Service]:
    """A service with everything outside that it can have."""
    issuer = {"issuer": KEYS["iss"], "jwks_url": f"{outside.url}/keys"}
    with Service(
        tmp_path_factory.mktemp("connected"),
        **model_process.settings,
        **model_process.picture_settings,
        LOG_LEVEL="DEBUG",
        LOG_FORMAT="json",
        MEMORIES_ENABLED="true",
        BREAKER_FAILURES="1000",
        AUTH_ISSUERS=json.dumps([issuer]),
        PROFILE_URL=f"{outside.url}/profiles",
        PUSH_URL=f"{outside.url}/push",
        OPERATOR_WEBHOOK_URL=f"{outside.url}/operator",
        MEDIA_BACKEND="s3",
        S3_BUCKET="media",
        S3_ENDPOINT_URL=f"{outside.url}/s3",
        AWS_ACCESS_KEY_ID="access-key",
        AWS_SECRET_ACCESS_KEY="secret-key",
        ADMIN_API_KEY="the-key",
    ) as service:
        yield service


def caused_by(number: str) -> dict[str, str]:
    return {
        "X-Correlation-ID": f"request-{number}",
        "traceparent": f"00-{TRACE}-{PARENT}-01",
        "tracestate": "vendor=1",
    }


def check(headers: dict[str, str], number: str, *, has_state: bool = True) -> None:
    """The same trace under a new parent, and the id of the request."""
    assert headers["x-correlation-id"] == f"request-{number}"
    version, trace_id, parent_id, flags = headers["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", TRACE, "01")
    assert parent_id != PARENT
    assert headers.get("tracestate") == ("vendor=1" if has_state else None)


def lines_of(process: Process, event: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in process.lines if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


async def came(outside: Recorder, path: str, number: str) -> Received:
    def look() -> bool:
        return any(found.headers.get("x-correlation-id") == f"request-{number}" for found in outside.of(path))

    await until(there(look), what=f"a call to {path} for request-{number}")
    return next(found for found in outside.of(path) if found.headers.get("x-correlation-id") == f"request-{number}")


async def test_a_send_its_model_and_its_jobs_bear_its_ids(
    connected: Service, user_of: MakeUser, model: FakeModel, outside: Recorder
) -> None:
    api = user_of(connected)
    conversation = await api.open()
    body = {"message_type": "text", "content": "I live in Pune and I love climbing."}
    path = f"/api/v1/chat/conversations/{conversation['id']}/messages"
    sent = await api.request("POST", path, json=body, headers=caused_by("send"))
    assert sent.headers["x-correlation-id"] == "request-send"
    # One call for the reply, and later one by the job that draws memories from it, which leaves tracestate behind.
    await until(there(lambda: len(model.requests()) == 2), what="the reply and the memories")
    for number, request in enumerate(model.requests()):
        check(request["headers"], "send", has_state=number == 0)
    process = connected.process
    for event in ("turn.accepted", "turn.started", "turn.first_token", "turn.finished", "request.finished"):

        def found(event: str = event) -> list[dict[str, object]]:
            return [line for line in lines_of(process, event) if line["correlation_id"] == "request-send"]

        await until(there(lambda found=found: bool(found())), what=event)  # type: ignore[misc]
        [line] = found()
        assert line["trace_id"] == TRACE, event
    [end] = [line for line in lines_of(process, "turn.finished") if line["correlation_id"] == "request-send"]
    assert (end["outcome"], end["provider"], end["calls"], end["level"]) == ("completed", "gemini", 1, "INFO")
    assert isinstance(end["prompt_tokens"], int)
    assert end["prompt_tokens"] > 0


async def test_media_and_pictures_bear_the_ids(
    connected: Service, user_of: MakeUser, model: FakeModel, outside: Recorder
) -> None:
    api = user_of(connected)
    api.http.headers.update(caused_by("media"))
    await uploaded(api, "image")
    check((await came(outside, "/s3/", "media")).headers, "media")
    model.reset()
    conversation = await api.open()
    made = await api.post(f"/api/v1/chat/conversations/{conversation['id']}/images", {"prompt": "a harbour"})
    assert made.status_code == 201, made.text
    asked = [request for request in model.requests() if request["wire"] == "replicate"]
    assert asked
    for request in asked:
        check(request["headers"], "media")


async def test_people_and_webhooks_bear_the_ids(connected: Service, user_of: MakeUser, outside: Recorder) -> None:
    writer, reader = user_of(connected, None, caused_by("human")), user_of(connected)
    chat = await open_with(writer, reader)
    await wrote(writer, chat["id"], "hello")
    check((await came(outside, "/push", "human")).headers, "human", has_state=False)
    check((await came(outside, "/profiles/", "human")).headers, "human")
    somebody = (await writer.influencers())[-1]["id"]
    banned = await writer.request(
        "POST",
        f"/api/v1/admin/influencers/{somebody}/ban",
        json={"reason": "Spam"},
        headers={"X-Admin-Key": "the-key", **caused_by("ban")},
    )
    assert banned.status_code == 200, banned.text
    check((await came(outside, "/operator", "ban")).headers, "ban", has_state=False)


async def test_key_sets_are_fetched_for_the_request_that_needs_them(connected: Service, outside: Recorder) -> None:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "RS256"}, KEYS)]
    bearer = b".".join([*parts, b"c2lnbmF0dXJl"]).decode()
    async with httpx2.AsyncClient(base_url=connected.url) as client:
        headers = {"Authorization": f"Bearer {bearer}", **caused_by("keys")}
        assert (await client.get("/api/v1/auth/me", headers=headers)).status_code == 503
    check((await came(outside, "/keys", "keys")).headers, "keys")


async def test_files_of_others_are_fetched_with_the_id(outside: Recorder) -> None:
    files = PublicFiles(is_allowed=lambda _: True)
    token = correlation_id.set("request-files")
    await files.get(f"{outside.url}/file", max_bytes=10)
    correlation_id.reset(token)
    await files.close()
    assert (await came(outside, "/file", "files")).headers["x-correlation-id"] == "request-files"


async def test_a_malformed_traceparent_is_ignored(connected: Service, user_of: MakeUser, model: FakeModel) -> None:
    api = user_of(connected)
    conversation = await api.open()
    api.http.headers.update({**caused_by("odd"), "traceparent": f"00-{'0' * 32}-{PARENT}-01"})
    await api.said(conversation["id"], "hello")
    headers = model.requests()[0]["headers"]
    assert headers["x-correlation-id"] == "request-odd"
    assert not headers.keys() & {"traceparent", "tracestate"}


@pytest.mark.long
async def test_a_turn_that_is_taken_over_says_under_which_id(
    tmp_path: Path, user_of: MakeUser, model: FakeModel
) -> None:
    model.tell(default={"echo": True, "first_byte_delay": 30.0})
    service = Service(tmp_path, LOG_LEVEL="INFO", LOG_FORMAT="json", SEND_TIMEOUT_SECONDS="0.2", **model.settings)
    with service:
        api = user_of(service)
        conversation = await api.open()
        assert (await api.send(conversation["id"], "hello")).status_code == 504
        service.kill()
        model.reset()
        service.start()
        process = service.process
        await until(there(lambda: bool(lines_of(process, "turn.finished"))), what="the end of the next attempt")
        [taken], [ended] = lines_of(process, "turn.taken_over"), lines_of(process, "turn.finished")
        assert taken["new_correlation_id"] == ended["correlation_id"]
        assert (taken["turn_id"], ended["attempt"]) == (ended["turn_id"], 2)
