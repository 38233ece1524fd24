"""Between the service and its model vendor: a turn is retried, or fails visibly and can be run again."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest

from tests.client import Api, Document, Event, text_of
from tests.faults.books import balanced
from tests.faults.proxy import Fault, FaultProxy, Kind, Side
from tests.service import FakeModel, Service
from tests.waiting import until

PIECES = ("One", " two", " three")
WHOLE = "".join(PIECES)
# After this a silent vendor has had its time; and three tries of it are less than a sender waits.
PATIENCE = {"MODEL_TIMEOUT_SECONDS": "3"}


@pytest.fixture(scope="module")
def vendor(model_process: FakeModel) -> Iterator[FaultProxy]:
    """The way to the vendor."""
    with FaultProxy(model_process.base_url_gemini) as proxy:
        yield proxy


def behind(vendor: FaultProxy, model: FakeModel) -> dict[str, str]:
    """The settings that lead a service through the proxy, to one model, so that nobody else answers for it."""
    url = vendor.in_place_of(model.base_url_gemini)
    return {**model.settings, "GEMINI_BASE_URL": url, "GEMINI_MODELS": "the-only-one", **PATIENCE}


@pytest.fixture(scope="module")
def asking(vendor: FaultProxy, model_process: FakeModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {**behind(vendor, model_process), "BREAKER_FAILURES": "1000"}
    with Service(tmp_path_factory.mktemp("asking"), **settings) as service:
        yield service
        vendor.heal()
        asyncio.run(balanced(service))


@pytest.fixture(scope="module")
def wire(asking: Service) -> Document:
    return Document.of(asking)


@pytest.fixture
async def person(asking: Service, wire: Document, vendor: FaultProxy, model: FakeModel) -> AsyncIterator[Api]:
    """Somebody with a healthy vendor that says PIECES."""
    vendor.heal()
    model.tell(default={"pieces": PIECES})
    api = Api(asking.url, wire)
    yield api
    vendor.heal()
    await api.close()


def failed(response: httpx2.Response, code: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two messages of a turn that failed visibly, and may be run again."""
    assert (response.status_code, response.json()["error"]) == (503, code), response.text
    assert int(response.headers["retry-after"]) >= 1
    user, reply = response.json()["details"]["user_message"], response.json()["details"]["assistant_message"]
    assert (reply["status"], reply["error"]["retryable"]) == ("failed", True)
    return user, reply


def ids(*found: dict[str, Any]) -> list[str]:
    return [message["id"] for message in found]


async def last_two(api: Api, conversation_id: str) -> list[dict[str, Any]]:
    return (await api.history(conversation_id, include="unfinished"))[-2:]


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("kind", ["cut", "reset", pytest.param("silence", marks=pytest.mark.long)])
async def test_what_breaks_before_the_first_word_is_tried_again(
    person: Api, vendor: FaultProxy, kind: Kind, side: Side
) -> None:
    conversation = await person.open()
    vendor.fault = Fault(kind, side, times=1)
    user, reply = await person.said(conversation["id"], "Hello")
    assert (reply["content"], reply["attempt"]) == (WHOLE, 1)
    assert ids(*await last_two(person, conversation["id"])) == ids(user, reply)
    assert vendor.struck == 1


@pytest.mark.parametrize("kind", ["cut", "reset", pytest.param("silence", marks=pytest.mark.long)])
async def test_what_breaks_in_the_middle_is_not_begun_anew_until_somebody_asks(
    person: Api, vendor: FaultProxy, model: FakeModel, kind: Kind
) -> None:
    conversation = await person.open()
    vendor.fault = Fault(kind, at=b"three")
    begun = await person.stream(conversation["id"], "Hello", client_message_id="key")
    assert ending(begun) == ("error", "TRANSIENT", False)
    assert text_of(begun) == "One two"
    assert model.state()["requests"] == 1
    user, reply = await last_two(person, conversation["id"])
    assert (reply["status"], reply["content"], reply["error"]["retryable"]) == ("failed", "One two", True)
    vendor.heal()
    again = await person.stream(conversation["id"], "Hello", client_message_id="key")
    assert (text_of(again), again[-1].data["assistant_message"]["attempt"]) == (WHOLE, 2)
    assert ids(*await last_two(person, conversation["id"])) == ids(user, reply)


def ending(events: list[Event]) -> tuple[str, str, bool]:
    assert [event.event for event in events if event.event in ("done", "error")] == [events[-1].event]
    return events[-1].event, events[-1].data["code"], events[-1].data["turn_running"]


@pytest.mark.parametrize(
    "fault",
    [
        None,  # refused
        Fault("reset", "client"),
        pytest.param(Fault("cut"), marks=pytest.mark.long),
        pytest.param(Fault("silence", "client"), marks=pytest.mark.long),
        pytest.param(Fault("silence", after=40), marks=pytest.mark.long),
    ],
    ids=str,
)
async def test_a_vendor_that_is_away_fails_the_turn_visibly_and_the_same_key_runs_it_again(
    person: Api, vendor: FaultProxy, fault: Fault | None
) -> None:
    conversation = await person.open()
    if fault is None:
        vendor.refuse()
    vendor.fault = fault
    user, reply = failed(await person.send(conversation["id"], "Hello", client_message_id="key"), "ai_unavailable")
    assert reply["content"] == ""
    vendor.heal()
    again = await person.said(conversation["id"], "Hello", client_message_id="key")
    assert ids(*again) == ids(user, reply)
    assert (again[1]["content"], again[1]["attempt"]) == (WHOLE, 2)


async def test_a_vendor_that_is_slow_is_heard_to_the_end(person: Api, vendor: FaultProxy) -> None:
    conversation = await person.open()
    vendor.delay_seconds, vendor.bytes_per_second = 0.005, 20_000
    events = await person.stream(conversation["id"], "Hello")
    assert text_of(events) == events[-1].data["assistant_message"]["content"] == WHOLE


@pytest.mark.long
@pytest.mark.parametrize("kind", ["cut", "reset"])
async def test_wherever_an_answer_ends_the_reply_is_whole_or_a_visible_part(
    person: Api, vendor: FaultProxy, kind: Kind
) -> None:
    """After each n-th byte of it, head included."""
    conversation = await person.open()
    for after in range(0, 1400, 37):
        vendor.fault = Fault(kind, after=after, times=1)
        response = await person.send(conversation["id"], f"number {after}", client_message_id=f"{after}")
        if response.status_code == 200:
            assert response.json()["assistant_message"]["content"] == WHOLE
            continue
        _, reply = failed(response, "ai_unavailable")
        assert WHOLE.startswith(reply["content"])
        assert reply["content"], "without a word it would have been tried again"
    vendor.heal()


@pytest.mark.long
async def test_a_circuit_opens_tells_and_closes_by_itself_when_the_vendor_is_back(
    tmp_path_factory: pytest.TempPathFactory, vendor: FaultProxy, model: FakeModel
) -> None:
    settings = {**behind(vendor, model), "BREAKER_FAILURES": "3", "BREAKER_OPEN_SECONDS": "3"}
    with Service(tmp_path_factory.mktemp("breaking"), **settings) as service:
        api = Api(service.url, Document.of(service))
        conversation = await api.open()
        vendor.refuse()
        user, reply = failed(await api.send(conversation["id"], "Hello", client_message_id="key"), "ai_unavailable")
        assert await state_of_model(api) == ("degraded", "open")
        failed(await api.send(conversation["id"], "Hello", client_message_id="key"), "no_provider")
        vendor.heal()

        async def answers() -> httpx2.Response | None:
            response = await api.send(conversation["id"], "Hello", client_message_id="key")
            return response if response.status_code == 200 else None

        found = await until(answers, what="an answer")
        assert found is not None
        assert ids(found.json()["user_message"], found.json()["assistant_message"]) == ids(user, reply)
        assert await state_of_model(api) == ("healthy", "closed")
        await balanced(service, was_always_asked=False)
        await api.close()


async def state_of_model(api: Api) -> tuple[str, str]:
    health = (await api.get("/health")).json()
    return health["status"], health["services"]["llm_gemini"]["circuit"]
