"""The chain's policy: who is asked, how often, and what is told when nobody answers."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr, ValidationError

from tests.clients.conversations import ASHA, conversation, listen
from tests.fakes.model_server import Behaviour, FakeModelServer
from yral_chat.clients.language_model import (
    TRANSIENT_OUTCOMES,
    CallRecord,
    Completion,
    Delta,
    LanguageModel,
    ModelCall,
    ModelFailure,
    ModelRequest,
    NoUsableModel,
    Outcome,
    Usage,
    closing_stream,
)
from yral_chat.clients.model_chain import ChainLink, ModelChain, build_model
from yral_chat.clients.offline import OfflinePersona
from yral_chat.clients.resilience import CircuitBreaker
from yral_chat.clients.retries import PATIENCE_SECONDS
from yral_chat.core.config import Settings

Step = str | ModelFailure  # a text to say, or a failure to raise


class ScriptedModel:
    """Does in turn what each entry of the script says; the last entry stands for all later calls."""

    provider = "scripted"

    def __init__(self, *script: Sequence[Step], model: str = "m") -> None:
        self.model = model
        self.script = list(script)
        self.asked = 0

    async def stream(self, request: ModelRequest, calls: list[ModelCall]) -> AsyncIterator[Delta | Completion]:
        steps = self.script[min(self.asked, len(self.script) - 1)]
        self.asked += 1
        with CallRecord(calls, self.provider, self.model) as record:
            for step in steps:
                if isinstance(step, ModelFailure):
                    raise step
                yield Delta(step)
            record.close("completed")
            yield Completion("completed", "stop", Usage(), self.provider, self.model)

    async def close(self) -> None:
        self.asked = -1


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


OK: Sequence[Step] = ("Hello", "!")


def failing(outcome: Outcome, **options: Any) -> Sequence[Step]:
    return (ModelFailure(outcome, "scripted", **options),)


def chain_of(*models: LanguageModel, clock: Clock | None = None, failures: int = 5, **options: Any) -> ModelChain:
    clock = clock or Clock()
    links = [
        ChainLink(
            getattr(model, "provider", "scripted"),
            getattr(model, "model", "m") + f"-{at}",
            model,
            CircuitBreaker(failures=failures, open_seconds=30, clock=clock, draw=lambda: 0.5),
        )
        for at, model in enumerate(models)
    ]
    return ModelChain(links, clock=clock, sleep=clock.sleep, draw=lambda: 0.5, **options)


def states(chain: ModelChain) -> list[str]:
    return [breaker.state for models in chain.circuits().values() for breaker in models.values()]


# --- before the first token


async def test_the_first_model_answers_and_nobody_else_is_asked() -> None:
    first, second = ScriptedModel(OK), ScriptedModel(OK)
    heard = await listen(chain_of(first, second))
    assert (heard.text, first.asked, second.asked) == ("Hello!", 1, 0)


@pytest.mark.parametrize("outcome", sorted(TRANSIENT_OUTCOMES - {"timeout"}))
async def test_a_transient_failure_is_tried_twice_more_and_then_the_next_model(outcome: Outcome) -> None:
    first, second, clock = ScriptedModel(failing(outcome)), ScriptedModel(OK), Clock()
    heard = await listen(chain_of(first, second, clock=clock))
    assert (heard.text, first.asked, second.asked) == ("Hello!", 3, 1)
    assert [call.outcome for call in heard.calls] == [outcome] * 3 + ["completed"]
    assert clock.slept == pytest.approx([0.1875, 0.375])  # growing


class Billing(ScriptedModel):
    """Bills what it has refused to answer, as an empty answer is."""

    async def stream(self, request: ModelRequest, calls: list[ModelCall]) -> AsyncIterator[Delta | Completion]:
        try:
            async for item in super().stream(request, calls):
                yield item
        finally:
            calls[-1].usage = Usage(prompt=10)


@pytest.mark.parametrize("outcome", ["empty", "truncated"])
async def test_with_quotas_nobody_is_asked_again_once_something_was_billed(outcome: Outcome) -> None:
    second = ScriptedModel(OK)
    free = ScriptedModel(failing("overloaded"), OK)
    assert (await listen(chain_of(free, stops_when_billed=True))).text == "Hello!"
    first = Billing(failing(outcome))
    heard = await listen(chain_of(first, second, stops_when_billed=True))
    assert (heard.outcome, first.asked, second.asked) == (outcome, 1, 0)
    assert (await listen(chain_of(Billing(failing(outcome)), second))).text == "Hello!", "without quotas"


async def test_a_retry_may_succeed() -> None:
    first, second = ScriptedModel(failing("overloaded"), OK), ScriptedModel(OK)
    heard = await listen(chain_of(first, second))
    assert (heard.text, first.asked, second.asked) == ("Hello!", 2, 0)


async def test_after_a_timeout_the_next_model_is_asked_because_time_is_short() -> None:
    first, second = ScriptedModel(failing("timeout")), ScriptedModel(OK)
    await listen(chain_of(first, second))
    assert (first.asked, second.asked) == (1, 1)


async def test_after_a_timeout_the_only_model_is_asked_again() -> None:
    only = ScriptedModel(failing("timeout"), OK)
    assert (await listen(chain_of(only))).text == "Hello!"


@pytest.mark.parametrize("outcome", ["model_gone", "rejected", "truncated"])
async def test_what_cannot_pass_goes_to_the_next_model_at_once(outcome: Outcome) -> None:
    first, second, clock = ScriptedModel(failing(outcome)), ScriptedModel(OK), Clock()
    heard = await listen(chain_of(first, second, clock=clock))
    assert (heard.text, first.asked, clock.slept) == ("Hello!", 1, [])


async def test_a_refusal_ends_the_chain() -> None:
    first, second = ScriptedModel(failing("blocked")), ScriptedModel(OK)
    chain = chain_of(first, second)
    assert (await listen(chain)).outcome == "blocked"
    assert second.asked == 0
    assert states(chain) == ["closed", "closed"]


async def test_retry_after_is_honoured_when_it_is_short() -> None:
    first, clock = ScriptedModel(failing("quota", retry_after=2.0), OK), Clock()
    assert (await listen(chain_of(first, ScriptedModel(OK), clock=clock))).text == "Hello!"
    assert (first.asked, clock.slept) == (2, [2.0])


async def test_a_longer_wait_than_patience_goes_to_the_next_model() -> None:
    first, second, clock = ScriptedModel(failing("quota", retry_after=PATIENCE_SECONDS + 1)), ScriptedModel(OK), Clock()
    await listen(chain_of(first, second, clock=clock))
    assert (first.asked, second.asked, clock.slept) == (1, 1, [])


async def test_no_wait_goes_past_the_deadline() -> None:
    first, second, clock = ScriptedModel(failing("quota", retry_after=2.5)), ScriptedModel(OK), Clock()
    heard = await listen(chain_of(first, second, clock=clock), conversation(seconds=2.0))
    assert (heard.text, first.asked, clock.slept) == ("Hello!", 1, [])


async def test_nobody_is_asked_after_the_deadline() -> None:
    model = ScriptedModel(OK)
    heard = await listen(chain_of(model), conversation(seconds=-1))
    assert (heard.outcome, model.asked, heard.calls) == ("timeout", 0, [])


async def test_a_model_that_ends_without_a_completion_has_failed() -> None:
    class Silent(ScriptedModel):
        async def stream(self, request: ModelRequest, calls: list[ModelCall]) -> AsyncIterator[Delta | Completion]:
            self.asked += 1
            if self.asked == 0:
                yield Delta("never")

    assert (await listen(chain_of(Silent(), ScriptedModel(OK)))).text == "Hello!"


# --- after the first token


@pytest.mark.parametrize("outcome", ["unreachable", "timeout", "overloaded", "blocked"])
async def test_after_the_first_token_nothing_is_restarted(outcome: Outcome) -> None:
    first, second = ScriptedModel(("Hel", ModelFailure(outcome, "scripted"))), ScriptedModel(OK)
    heard = await listen(chain_of(first, second))
    assert (heard.outcome, heard.text) == (outcome, "Hel")
    assert (first.asked, second.asked) == (1, 0)


# --- what is told when nobody answers


async def test_nothing_configured() -> None:
    heard = await listen(chain_of())
    assert isinstance(heard.failure, NoUsableModel)
    assert heard.failure.retry_after is None


async def test_every_circuit_open() -> None:
    model, clock = ScriptedModel(failing("model_gone")), Clock()
    chain = chain_of(model, failures=1, clock=clock)
    await listen(chain)
    clock.now += 10
    heard = await listen(chain)
    assert isinstance(heard.failure, NoUsableModel)
    assert heard.failure.retry_after == pytest.approx(20)
    assert model.asked == 1


async def test_quota_everywhere_tells_the_shortest_wait() -> None:
    chain = chain_of(
        ScriptedModel(failing("quota", retry_after=50)),
        ScriptedModel(failing("quota", retry_after=20)),
        ScriptedModel(failing("quota")),
    )
    heard = await listen(chain)
    assert heard.failure is not None
    assert (heard.outcome, heard.failure.retry_after) == ("quota", 20)


@pytest.mark.parametrize(
    ("outcomes", "told"),
    [
        (("quota", "overloaded"), "overloaded"),
        (("rejected", "quota"), "quota"),
        (("model_gone", "rejected"), "rejected"),
        (("model_gone", "model_gone"), "model_gone"),
        (("truncated", "unreachable"), "unreachable"),
    ],
)
async def test_what_may_pass_is_told_before_what_may_not(outcomes: tuple[Outcome, ...], told: str) -> None:
    heard = await listen(chain_of(*[ScriptedModel(failing(outcome)) for outcome in outcomes]))
    assert heard.outcome == told
    assert not isinstance(heard.failure, NoUsableModel)


# --- circuits


@pytest.mark.parametrize("outcome", ["overloaded", "unreachable", "timeout", "model_gone"])
async def test_outages_open_the_circuit_and_the_model_is_left_alone(outcome: Outcome) -> None:
    first = ScriptedModel(failing(outcome))
    chain = chain_of(first, ScriptedModel(OK), failures=2)
    for _ in range(4):
        assert (await listen(chain)).text == "Hello!"
    assert first.asked == 2
    assert states(chain) == ["open", "closed"]
    [breaker, _] = chain.circuits()["scripted"].values()
    assert breaker.opened_reason == {"model_gone": "gone"}.get(outcome, outcome)


async def test_a_refused_key_opens_the_circuit_and_a_refused_request_does_not() -> None:
    key, request = ScriptedModel(failing("rejected", is_outage=True)), ScriptedModel(failing("rejected"))
    chain = chain_of(key, request, ScriptedModel(OK), failures=2)
    for _ in range(3):
        await listen(chain)
    assert states(chain) == ["open", "closed", "closed"]


@pytest.mark.parametrize("outcome", ["empty", "blocked", "quota", "truncated"])
async def test_answers_that_are_no_use_do_not_open_the_circuit(outcome: Outcome) -> None:
    chain = chain_of(ScriptedModel(failing(outcome)), failures=1)
    for _ in range(3):
        await listen(chain)
    assert states(chain) == ["closed"]


async def test_an_open_circuit_stops_the_retries_without_waiting() -> None:
    first, clock = ScriptedModel(failing("overloaded")), Clock()
    await listen(chain_of(first, ScriptedModel(OK), failures=1, clock=clock))
    assert (first.asked, clock.slept) == (1, [])


async def test_a_probe_that_succeeds_closes_the_circuit() -> None:
    first, clock = ScriptedModel(failing("model_gone"), OK), Clock()
    chain = chain_of(first, ScriptedModel(OK), failures=1, clock=clock)
    await listen(chain)
    clock.now += 31
    assert states(chain) == ["half_open", "closed"]
    await listen(chain)
    assert (states(chain), first.asked) == (["closed", "closed"], 2)


async def test_while_the_probe_runs_others_go_to_the_next_model() -> None:
    first, second, clock = ScriptedModel(failing("model_gone"), OK), ScriptedModel(OK), Clock()
    chain = chain_of(first, second, failures=1, clock=clock)
    await listen(chain)
    clock.now += 31
    async with closing_stream(chain.stream(conversation(), [])) as probing:
        assert await anext(probing) == Delta("Hello")
        await listen(chain)
        assert (first.asked, second.asked) == (2, 2)


async def test_leaving_gives_the_place_of_the_probe_back() -> None:
    first, clock = ScriptedModel(failing("model_gone"), OK), Clock()
    chain = chain_of(first, failures=1, clock=clock)
    await listen(chain)
    clock.now += 31
    calls: list[ModelCall] = []
    async with closing_stream(chain.stream(conversation(), calls)) as probing:
        await anext(probing)
    assert calls[0].outcome == "cancelled"
    assert states(chain) == ["half_open"]
    assert (await listen(chain)).text == "Hello!"
    assert states(chain) == ["closed"]


async def test_a_cancelled_task_gives_the_place_of_the_probe_back() -> None:
    async with FakeModelServer() as server:
        clock = Clock()
        settings = settings_for(server, gemini_models=("only",), breaker_failures=1)
        link = build_model(settings)._links[0]
        chain = ModelChain([ChainLink("gemini", "only", link.client, CircuitBreaker(failures=1, clock=clock))])
        server.script.extend([Behaviour(status=404), Behaviour(stall_after=0)])
        await listen(chain)
        clock.now += 31
        task = asyncio.create_task(listen(chain))
        await server.until(lambda: server.request_count == 2 and server.open_streams == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await listen(chain)).outcome == "completed"
        assert states(chain) == ["closed"]
        await chain.close()


async def test_our_own_haste_is_not_held_against_the_model() -> None:
    async with FakeModelServer() as server:
        server.default = Behaviour(first_byte_delay=30)
        chain = build_model(settings_for(server, gemini_models=("only",), breaker_failures=1))
        assert (await listen(chain, conversation(seconds=0.1))).outcome == "timeout"
        assert states(chain) == ["closed"]
        await chain.close()


# --- routes


class Named(ScriptedModel):
    def __init__(self, provider: str) -> None:
        super().__init__((provider,))
        self.provider = provider


async def test_nsfw_personas_take_their_route_and_others_do_not() -> None:
    chain = chain_of(Named("gemini"), Named("openai"), nsfw_provider="openai")
    nsfw = conversation(persona=msgspec.structs.replace(ASHA, is_nsfw=True))
    assert (await listen(chain, nsfw)).text == "openai"
    assert (await listen(chain)).text == "gemini"


async def test_nsfw_personas_fall_back_to_the_default() -> None:
    broken = Named("openai")
    broken.script = [failing("model_gone")]
    nsfw = conversation(persona=msgspec.structs.replace(ASHA, is_nsfw=True))
    assert (await listen(chain_of(Named("gemini"), broken, nsfw_provider="openai"), nsfw)).text == "gemini"
    assert (await listen(chain_of(Named("gemini"), nsfw_provider="openai"), nsfw)).text == "gemini"


# --- out of the settings, against the fake vendor


def settings_for(server: FakeModelServer | None, **options: Any) -> Settings:
    addresses: dict[str, Any] = {}
    if server is not None:
        addresses = {"gemini_base_url": server.base_url_gemini, "gemini_api_key": SecretStr("key")}
    values = {"environment": "test", "data_dir": Path("unused"), **addresses, **options}
    return Settings(_env_file=None, **values)


async def test_gemini_comes_first_and_then_the_compatible_models() -> None:
    async with FakeModelServer() as server:
        settings = settings_for(
            server, openai_base_url=server.base_url_openai, openai_api_key=SecretStr("key"), openai_models=("a", "b")
        )
        chain = build_model(settings)
        assert {provider: list(models) for provider, models in chain.circuits().items()} == {
            "gemini": ["gemini-2.5-flash", "gemini-3.5-flash-lite"],
            "openai": ["a", "b"],
        }
        server.models = {
            "gemini-2.5-flash": Behaviour(status=404),
            "gemini-3.5-flash-lite": Behaviour(status=400),
            "a": Behaviour(pieces=()),
        }
        heard = await listen(chain)
        await chain.close()
    assert heard.completion is not None
    assert (heard.completion.provider, heard.completion.model) == ("openai", "b")
    assert [call.outcome for call in heard.calls] == ["model_gone", "rejected", *["empty"] * 3, "completed"]
    assert [request.model for request in server.requests] == [call.model for call in heard.calls]


async def test_settings_reach_the_vendor() -> None:
    async with FakeModelServer() as server:
        options = {"gemini_thinking_budget": 0, "gemini_safety_threshold": "OFF", "model_timeout_seconds": 1}
        chain = build_model(settings_for(server, gemini_models=("only",), **options))
        await listen(chain)
        assert server.requests[-1].body["generationConfig"]["thinkingConfig"] == {"thinkingBudget": 0}
        assert server.requests[-1].body["safetySettings"][0]["threshold"] == "OFF"
        server.default = Behaviour(stall_after=1)
        assert (await listen(chain)).outcome == "timeout"
        await chain.close()


async def test_without_a_vendor_the_offline_persona_answers() -> None:
    chain = build_model(settings_for(None, offline_words_per_second=0))
    heard = await listen(chain)
    assert heard.completion is not None
    assert (heard.completion.provider, heard.completion.model) == (OfflinePersona.provider, OfflinePersona.model)
    assert list(chain.circuits()) == ["offline"]


def test_a_key_without_models_is_refused_before_the_start() -> None:
    with pytest.raises(ValidationError, match="OPENAI_MODELS"):
        settings_for(None, openai_api_key=SecretStr("key"))


async def test_closing_the_chain_closes_its_models() -> None:
    models = [ScriptedModel(OK), ScriptedModel(OK)]
    await chain_of(*models).close()
    assert [model.asked for model in models] == [-1, -1]
