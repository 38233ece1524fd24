"""Each dependency breaks and comes back, and the service is seen from outside: contract section 6.

How often the dependency was asked is compared with what the circuit says of itself: so many calls as open it, and one
for each time that it was half-open. That holds however slow the machine is.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from tests.api import people
from tests.api.conftest import MakeUser
from tests.api.expecting import open_fresh
from tests.client import Api, Json, messages
from tests.fakes.switched import SwitchedServer
from tests.files import recording, upload, uploaded
from tests.service import FakeModel, Service
from tests.waiting import there, until

FAILURES = 3
OPEN_SECONDS = 0.3
MODEL = "gemini-2.5-flash"

Use = Callable[[], Awaitable[object]]


class Dependency:
    """One of them from both sides: what makes the service ask it, and what it was asked."""

    def __init__(
        self,
        name: str,
        circuit: str,
        settings: dict[str, str],
        count: Callable[[], int],
        switch: Callable[[bool], None],
        prepare: Callable[[Service, MakeUser], Awaitable[Use]],
        *,
        asked_each_time: int = 1,
    ) -> None:
        self.name = name  # in /health
        self.circuit = circuit  # in the metrics
        self.settings = settings
        self.count = count
        self.switch = switch
        self.prepare = prepare
        self.asked_each_time = asked_each_time  # a call that the circuit admits may try more than once


def asked(model: FakeModel, path: str) -> Callable[[], int]:
    return lambda: sum(path in request["target"] for request in model.requests())


@asynccontextmanager
async def language_model(model: FakeModel) -> AsyncIterator[Dependency]:
    async def prepare(service: Service, user_of: MakeUser) -> Use:
        api = user_of(service)

        async def use() -> None:
            conversation = await open_fresh(api, service)
            await api.send(conversation["id"], "Hello")

        return use

    def switch(is_good: bool) -> None:
        model.tell(models={MODEL: {"echo": True} if is_good else {"status": 503}})

    settings = {"GEMINI_MODELS": MODEL}
    yield Dependency("llm_gemini", f"llm_gemini:{MODEL}", settings, asked(model, MODEL), switch, prepare)


@asynccontextmanager
async def pictures(model: FakeModel) -> AsyncIterator[Dependency]:
    async def prepare(service: Service, user_of: MakeUser) -> Use:
        api = user_of(service)

        async def use() -> None:
            conversation = await open_fresh(api, service)
            path = f"/api/v1/chat/conversations/{conversation['id']}/images"
            await api.post(path, {"prompt": "a boat"})

        return use

    def switch(is_good: bool) -> None:
        model.tell(kinds={"picture": {} if is_good else {"status": 503}})

    settings = {**model.picture_settings, "IMAGE_MODELS": "some/model"}
    count = asked(model, "/models/some/model/predictions")
    yield Dependency("images", "images:some/model", settings, count, switch, prepare)


@asynccontextmanager
async def transcription(model: FakeModel) -> AsyncIterator[Dependency]:
    async def prepare(service: Service, user_of: MakeUser) -> Use:
        api = user_of(service)
        voice = await uploaded(api, "audio", recording(1))

        async def use() -> None:
            conversation = await open_fresh(api, service)
            body = {"message_type": "audio", "audio_url": voice["storage_key"], "audio_duration_seconds": 1}
            await api.post(messages(conversation["id"]), body)

        return use

    def switch(is_good: bool) -> None:
        model.tell(kinds={"transcription": {} if is_good else {"status": 503}})

    settings = {
        "OPENAI_BASE_URL": model.base_url_openai, "OPENAI_API_KEY": "key", "OPENAI_MODELS": "spare",
        "OPENAI_TRANSCRIPTION_MODEL": "ears",
    }  # fmt: skip
    yield Dependency(
        "transcription", "transcription:ears", settings, asked(model, "/audio/transcriptions"), switch, prepare
    )


@asynccontextmanager
async def storage(_: FakeModel) -> AsyncIterator[Dependency]:
    async def take(_: web.Request) -> web.Response:
        return web.Response()

    async def prepare(service: Service, user_of: MakeUser) -> Use:
        api = user_of(service)
        return lambda: upload(api, "audio", recording(1))

    async with SwitchedServer(take) as server:
        settings = {
            "MEDIA_BACKEND": "s3", "S3_ENDPOINT_URL": server.url, "S3_BUCKET": "media",
            "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        }  # fmt: skip
        yield Dependency(
            "storage", "storage", settings, lambda: server.count, switch_of(server), prepare, asked_each_time=3
        )


@asynccontextmanager
async def profiles(_: FakeModel) -> AsyncIterator[Dependency]:
    async def name(_: web.Request) -> web.Response:
        return web.json_response({"username": "ravi"})

    async def prepare(service: Service, user_of: MakeUser) -> Use:
        api = user_of(service)
        for _ in range(FAILURES):  # an inbox page asks for all of them at the same time
            await people.open_with(api, user_of(service))
        return lambda: people.inbox(api)

    async with SwitchedServer(name) as server:
        settings = {"PROFILE_URL": server.url, "CACHE_TTL_SECONDS": "0.001"}
        yield Dependency("profiles", "profiles", settings, lambda: server.count, switch_of(server), prepare)


def switch_of(server: SwitchedServer) -> Callable[[bool], None]:
    def switch(is_good: bool) -> None:
        server.is_good = is_good

    return switch


def changes(service: Service, circuit: str) -> list[Json]:
    """What the log says of this circuit."""
    lines = [json.loads(line) for line in service.process.lines if '"circuit.' in line]
    return [line for line in lines if line["service"] == circuit]


async def transitions(api: Api, circuit: str, to: str) -> int:
    text = (await api.get("/metrics")).text
    found = re.search(
        rf'^circuit_breaker_transitions_total{{service="{re.escape(circuit)}",to="{to}"}} (\S+)$', text, re.M
    )
    assert found is not None, f"no series for {circuit}"
    return int(float(found[1]))


LONG = pytest.mark.long


@pytest.mark.parametrize(
    "dependency",
    [
        profiles,
        pytest.param(language_model, marks=LONG),
        pytest.param(pictures, marks=LONG),
        pytest.param(transcription, marks=LONG),
        pytest.param(storage, marks=LONG),
    ],
)
async def test_a_dependency_that_fails_is_left_alone_probed_and_found_again(
    own_service: Service,
    user_of: MakeUser,
    model: FakeModel,
    dependency: Callable[[FakeModel], AbstractAsyncContextManager[Dependency]],
) -> None:
    async with dependency(model) as it:
        own_service.settings |= it.settings | {
            "BREAKER_FAILURES": str(FAILURES),
            "BREAKER_OPEN_SECONDS": str(OPEN_SECONDS),
            "LOG_LEVEL": "INFO",
            "LOG_FORMAT": "json",
        }
        own_service.start()
        api = user_of(own_service)
        use = await it.prepare(own_service, user_of)
        await use()
        assert await state_of(api, it.name) == ("up", "closed", None)
        it.switch(False)
        before = it.count()
        while await transitions(api, it.circuit, "open") == 0:
            await use()
        status, circuit, error = await state_of(api, it.name)
        assert (status, circuit) in [("down", "open"), ("degraded", "half_open")]
        assert re.fullmatch(
            r"the [a-z ]+ fails?: overloaded, since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000000Z", error or ""
        )

        async def failed_twice_more() -> bool:
            await asyncio.gather(use(), use())
            return await transitions(api, it.circuit, "open") >= 3

        await until(failed_twice_more, what="two probes to fail")
        probes = await transitions(api, it.circuit, "half_open")
        assert it.count() - before == it.asked_each_time * (FAILURES + probes), "somebody was let through besides"
        it.switch(True)

        async def is_closed() -> bool:
            await asyncio.gather(use(), use())
            return await state_of(api, it.name) == ("up", "closed", None)

        await until(is_closed, what="the circuit to close")

        def is_told() -> bool:  # the log comes through a pipe, after the answer
            return bool(changes(own_service, it.circuit)[-1]["event"] == "circuit.closed")

        await until(there(is_told), what="the log to say so")
        told = changes(own_service, it.circuit)
        opened = [line["open_seconds"] for line in told if line["event"] == "circuit.opened"]
        assert opened[:3] == [
            OPEN_SECONDS,
            pytest.approx(2 * OPEN_SECONDS, rel=0.2),
            pytest.approx(4 * OPEN_SECONDS, rel=0.2),
        ]
        events = [line["event"] for line in told]
        assert events[:3] == ["circuit.opened", "circuit.half_opened", "circuit.opened"]
        assert events[-2:] == ["circuit.half_opened", "circuit.closed"]
        assert told[0]["reason"] == "overloaded"


async def state_of(api: Api, name: str) -> tuple[str, str | None, str | None]:
    service = (await api.get("/health")).json()["services"][name]
    return service["status"], service["circuit"], service["error"]


@pytest.mark.long
async def test_an_issuer_that_fails_is_shown_and_its_keys_are_found_when_it_is_back(
    own_service: Service, user_of: MakeUser
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    claims = {"iss": "https://issuer.example", "sub": "somebody", "exp": int(time.time()) + 600}
    headers = {"Authorization": f"Bearer {jwt.encode(claims, key, algorithm='ES256')}"}

    async def keys(_: web.Request) -> web.Response:
        entry = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        return web.json_response({"keys": [{**entry, "key_ops": ["verify"]}]})

    async with SwitchedServer(keys) as server:
        server.is_good = False
        issuer = {"issuer": claims["iss"], "jwks_url": f"{server.url}/jwks.json", "algorithms": ["ES256"]}
        own_service.settings |= {
            "AUTH_ISSUERS": json.dumps([issuer]),
            "BREAKER_FAILURES": "1",
            "BREAKER_OPEN_SECONDS": "0.1",
        }
        api = user_of(own_service.start())
        assert await state_of(api, "identity") == ("up", "closed", None)

        async def ask() -> int:
            return (await api.http.get("/api/v1/auth/me", headers=headers)).status_code

        assert await ask() == 503
        status, circuit, error = await state_of(api, "identity")
        assert (status, circuit) in [("down", "open"), ("degraded", "half_open")]
        assert re.match(r"the keys of an issuer cannot be fetched: overloaded, since \d", error or "")
        assert await transitions(api, "identity:https://issuer.example", "open") == 1
        assert (await api.get("/api/v1/auth/me")).status_code == 200, "another issuer's tokens are as good as ever"
        server.is_good = True

        async def is_let_in() -> bool:
            return await ask() == 200

        await until(is_let_in, what="the keys to be fetched")
        assert server.count == 2
        assert await state_of(api, "identity") == ("up", "closed", None)
