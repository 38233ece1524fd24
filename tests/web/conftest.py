"""A real Chromium, and accounts that look at the service past the page."""

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright

from tests.client import Json, messages
from tests.programs import chromium_binary, require
from tests.service import FakeModel, Service, token
from tests.web.pages import PERSONA, WAIT_MS, OpenPage, composer

CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",  # a microphone that beeps
]


class Account:
    """A user's own view of the service, over the API and independent of the page."""

    def __init__(self, url: str) -> None:
        self.user = f"guest-{uuid.uuid4().hex[:12]}"
        self.token = token(self.user)
        self._http = httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {self.token}"}, timeout=30)

    def close(self) -> None:
        self._http.close()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        response = self._http.request(method, path, json=body)
        response.raise_for_status()
        return response.json()

    def status_of(self, method: str, path: str) -> int:
        return self._http.request(method, path).status_code

    def open(self, display_name: str) -> str:
        """Opens the conversation with a persona; its id."""
        everybody = self.call("GET", "/api/v1/influencers?limit=100")["influencers"]
        influencer_id = next(one["id"] for one in everybody if one["display_name"] == display_name)
        conversation = self.call("POST", "/api/v1/chat/conversations", {"influencer_id": influencer_id})
        return str(conversation["id"])

    def send(self, conversation_id: str, content: str) -> None:
        self.call("POST", messages(conversation_id), {"message_type": "text", "content": content})

    def begin(self, conversation_id: str, content: str) -> None:
        """Starts a turn and leaves it running."""
        body = {"message_type": "text", "content": content}
        with self._http.stream("POST", f"{messages(conversation_id)}/stream", json=body) as response:
            response.raise_for_status()

    def history(self, conversation_id: str) -> list[Json]:
        """All messages, oldest first, failed and running replies included."""
        found: list[Json] = self.call("GET", f"{messages(conversation_id)}?limit=200&order=asc&include=unfinished")[
            "messages"
        ]
        return found

    def replies(self, conversation_id: str) -> list[Json]:
        return [message for message in self.history(conversation_id) if message["origin"] == "model"]

    def unread(self, conversation_id: str) -> int:
        count: int = self.call("GET", f"/api/v1/chat/conversations/{conversation_id}")["unread_count"]
        return count


@dataclass
class Complaints:
    """What the browser complained about: refused scripts and styles, failing requests, exceptions."""

    expected: list[str] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)

    def expect(self, pattern: str) -> None:
        """This test provokes complaints that match `pattern`."""
        self.expected.append(pattern)

    def listen_to(self, page: Page) -> None:
        page.on("console", lambda message: self._hear(message.type, message.text))
        page.on("pageerror", lambda error: self.heard.append(f"exception: {error}"))

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.heard.append(f"{kind}: {text}")

    def unexpected(self) -> list[str]:
        return [text for text in self.heard if not any(re.search(pattern, text) for pattern in self.expected)]


# Module scope and not wider: while Playwright's synchronous API runs, no test can run an event loop of its own.
@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    require("Chromium", chromium_binary())
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    with playwright.chromium.launch(executable_path=chromium_binary(), args=CHROMIUM_ARGUMENTS) as browser:
        yield browser


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """Fails the test for every complaint that it did not expect."""
    complaints = Complaints()
    yield complaints
    assert complaints.unexpected() == []


@pytest.fixture(scope="module")
def page_service(
    playwright: Playwright, tmp_path_factory: pytest.TempPathFactory, model_process: FakeModel
) -> Iterator[Service]:
    """In development, where the page lets itself in; the fake vendor answers."""
    settings = {"ENVIRONMENT": "development", "MAX_TURNS_PER_USER": "3", "BREAKER_FAILURES": "1000"}
    folder = tmp_path_factory.mktemp("page")
    with Service(folder, **settings, **model_process.settings) as service:
        yield service


@pytest.fixture(scope="module")
def token_service(playwright: Playwright, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Where the page gets no tokens from the service; the offline persona answers."""
    settings = {"OFFLINE_WORDS_PER_SECOND": "200", "JWT_LEEWAY_SECONDS": "0"}
    with Service(tmp_path_factory.mktemp("tokens"), **settings) as service:
        yield service


@pytest.fixture
def account(page_service: Service) -> Iterator[Account]:
    account = Account(page_service.url)
    yield account
    account.close()


@pytest.fixture
def token_account(token_service: Service) -> Iterator[Account]:
    account = Account(token_service.url)
    yield account
    account.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB") as context:
        context.set_default_timeout(WAIT_MS)
        yield context


@pytest.fixture
def open_page(context: BrowserContext, page_service: Service, account: Account, complaints: Complaints) -> OpenPage:
    """Opens the page as `account`, at an address after `#`."""

    def open_page(path: str = "/") -> Page:
        page = context.new_page()
        complaints.listen_to(page)
        page.add_init_script(f"localStorage.setItem('yral.user', {json.dumps(json.dumps(account.user))})")
        page.goto(f"{page_service.url}/#{path}")
        return page

    return open_page


@pytest.fixture
def chat(open_page: OpenPage, account: Account, model: FakeModel) -> Page:
    """The page in a new conversation; the model answers at once with what it was told."""
    page = open_page(f"/c/{account.open(PERSONA)}")
    expect(composer(page)).to_be_visible()
    expect(page.locator(".message")).to_have_count(1)
    return page
