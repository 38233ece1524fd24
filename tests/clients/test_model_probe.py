"""The doctor's questions to a vendor are ones that the vendor's own clients ask as well."""

from collections.abc import AsyncIterator

import openai
import pytest
from google import genai
from google.genai import errors, types

from tests.fakes.model_server import Behaviour, FakeModelServer
from yral_chat.clients.model_probe import Probe, probe_gemini, probe_openai
from yral_chat.clients.vendor_http import VendorHttp

KEY = "the-right-key"
# google-genai subclasses aiohttp's session, which aiohttp warns about.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")


@pytest.fixture
async def vendor() -> AsyncIterator[FakeModelServer]:
    async with FakeModelServer(key=KEY) as server:
        server.models = {"llama": Behaviour(), "retired": Behaviour(status=404)}
        yield server


@pytest.fixture
async def http() -> AsyncIterator[VendorHttp]:
    connections = VendorHttp()
    yield connections
    await connections.close()


async def test_googles_client_finds_the_models_that_we_find(vendor: FakeModelServer, http: VendorHttp) -> None:
    options = types.HttpOptions(base_url=vendor.base_url, api_version="v1beta")
    client = genai.Client(api_key=KEY, http_options=options)
    assert (await client.aio.models.get(model="gemini-2.5-flash")).name == "models/gemini-2.5-flash"
    with pytest.raises(errors.ClientError, match="404"):
        await client.aio.models.get(model="retired")
    await client.aio.aclose()
    client.close()

    for model in ("gemini-2.5-flash", "models/gemini-2.5-flash"):
        probe = await probe_gemini(http, api_key=KEY, base_url=vendor.base_url_gemini, model=model)
        assert probe == Probe("good")
    probe = await probe_gemini(http, api_key=KEY, base_url=vendor.base_url_gemini, model="retired")
    assert probe == Probe("unknown_model", "HTTP 404")


@pytest.mark.parametrize("key", ["wrong", ""])
async def test_a_wrong_or_missing_gemini_key_is_told(vendor: FakeModelServer, http: VendorHttp, key: str) -> None:
    probe = await probe_gemini(http, api_key=key, base_url=vendor.base_url_gemini, model="gemini-2.5-flash")
    assert probe.verdict == "key_refused"


async def test_openais_client_lists_the_models_that_we_find(vendor: FakeModelServer, http: VendorHttp) -> None:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=vendor.base_url_openai) as client:
        listed = [model.id async for model in client.models.list()]
    assert listed == ["llama", "retired"]
    probes = await probe_openai(http, api_key=KEY, base_url=vendor.base_url_openai, models=("llama", "mistral"))
    assert [probe.verdict for probe in probes] == ["good", "unknown_model"]
    assert probes[1].offered == ("llama", "retired")


async def test_a_wrong_openai_key_is_told(vendor: FakeModelServer, http: VendorHttp) -> None:
    probes = await probe_openai(http, api_key="wrong", base_url=vendor.base_url_openai, models=("llama", "mistral"))
    assert [probe.verdict for probe in probes] == ["key_refused"] * 2


@pytest.mark.parametrize("key", ["a\nkey", "a key\r"])
async def test_a_key_that_no_header_can_hold_is_told(vendor: FakeModelServer, http: VendorHttp, key: str) -> None:
    probe = await probe_gemini(http, api_key=key, base_url=vendor.base_url_gemini, model="gemini-2.5-flash")
    assert probe.verdict == "unreachable"
    assert vendor.request_count == 0
