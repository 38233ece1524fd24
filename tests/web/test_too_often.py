"""The page of somebody who asks too often: it says so, says for how long, and loses nothing."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.service import FakeModel, Service
from tests.web.conftest import Account, Complaints
from tests.web.pages import (
    HELD,
    PERSONA,
    WORDS,
    composer,
    conversation_of,
    newest_reply,
    say,
    text_of,
    wait_for_answer,
)

pytestmark = [pytest.mark.chromium, pytest.mark.long]

AN_HOUR = 40


@pytest.fixture
def strict_service(tmp_path: Path, model: FakeModel) -> Iterator[Service]:
    settings = {"ENVIRONMENT": "development", "RATE_LIMIT_ENABLED": "true", "RATE_LIMIT_PER_HOUR": str(AN_HOUR)}
    with Service(tmp_path, **settings, **model.settings) as service:
        yield service


@pytest.fixture
def visitor(strict_service: Service) -> Iterator[Account]:
    account = Account(strict_service.url)
    yield account
    account.close()


@pytest.fixture
def asked() -> list[str]:
    """What the page asks the service, as it asks."""
    return []


@pytest.fixture
def chat(
    context: BrowserContext, strict_service: Service, visitor: Account, complaints: Complaints, asked: list[str]
) -> Page:
    conversation_id = visitor.open(PERSONA)
    page = context.new_page()
    complaints.listen_to(page)
    complaints.expect("status of 429")
    page.on("request", lambda request: asked.append(request.url) if "/api/" in request.url else None)
    page.on("websocket", lambda socket: asked.append(socket.url))
    page.add_init_script(f"localStorage.setItem('yral.user', {json.dumps(json.dumps(visitor.user))})")
    page.goto(f"{strict_service.url}/#/c/{conversation_id}")
    expect(composer(page)).to_be_visible()
    expect(page.locator(".message")).to_have_count(1)
    return page


def exhaust(visitor: Account) -> None:
    """Takes whatever the user has left."""
    answers = [visitor.status_of("GET", "/api/v1/auth/me") for _ in range(AN_HOUR + 1)]
    assert answers[-1] == 429


def test_the_default_limit_is_enough_for_people(chat: Page, asked: list[str]) -> None:
    opening = len(asked)
    assert opening <= 8, asked
    for number in range(3):
        say(chat, f"Message {number}")
        wait_for_answer(chat)
    expect(newest_reply(chat)).to_have_attribute("data-status", "read")
    assert len(asked) - opening <= 3 * 3, asked


def test_a_message_over_the_limit_waits_with_its_text_and_is_sent_later(
    chat: Page, visitor: Account, strict_service: Service, complaints: Complaints
) -> None:
    complaints.expect("net::ERR_|WebSocket connection")
    exhaust(visitor)
    say(chat, "Do not lose me")
    refused = chat.locator("[data-status=refused]")
    expect(refused).to_contain_text("Do not lose me")
    expect(refused).to_contain_text(re.compile(r"That was a little too much at once\. Try again in \d+ s\."))
    strict_service.stop()
    strict_service.start()  # with full buckets
    chat.get_by_role("button", name="Send again").click()
    wait_for_answer(chat)
    assert text_of(newest_reply(chat)) == "You said: Do not lose me"
    assert [message["content"] for message in visitor.history(conversation_of(chat))][1:] == [
        "Do not lose me",
        "You said: Do not lose me",
    ]


def test_a_reply_that_goes_on_is_followed_as_soon_as_one_may(chat: Page, visitor: Account, model: FakeModel) -> None:
    refused: list[str] = []

    def refuse_once(route: Route) -> None:
        if refused:
            route.continue_()
            return
        refused.append(route.request.url)
        error = {"error": "rate_limit_exceeded", "message": "Slow down.", "details": {"limit_type": "per_minute"}}
        route.fulfill(status=429, headers={"Retry-After": "1"}, json=error)

    model.tell(default=HELD, release=5)
    visitor.begin(conversation_of(chat), "Go on")
    chat.route("**/messages/*/stream", refuse_once)
    with chat.expect_response(lambda response: "/stream" in response.url and response.status == 200):
        chat.reload()
    assert len(refused) == 1
    model.tell(release=100)
    wait_for_answer(chat)
    assert text_of(newest_reply(chat)).split() == "".join(WORDS).split()
