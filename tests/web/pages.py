"""What tests do on the chat page and look for on it."""

import re
from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

# A page that is still at work is waited for, also on a machine that has much else to do.
WAIT_MS = 30_000
expect.set_options(timeout=WAIT_MS)
PERSONA = "Kelechi"
# The words are numbered so that a gap or a repetition would show.
WORDS = [f"word{n} " for n in range(45)]
# For what is stopped, or come back to: the rest is released then. After 20 s without a word the service gives up.
HELD = {"pieces": WORDS, "is_held": True}

OpenPage = Callable[..., Page]


def conversation_of(page: Page) -> str:
    return page.url.split("#/c/")[1]


def composer(page: Page) -> Locator:
    return page.get_by_label(re.compile("^Message to "))


def say(page: Page, text: str) -> None:
    composer(page).fill(text)
    composer(page).press("Enter")


def newest_reply(page: Page) -> Locator:
    return page.locator(".message.theirs").last


def text_of(reply: Locator) -> str:
    return reply.locator(".bubble").inner_text()


def wait_for_words(page: Page) -> None:
    """Until some of a held reply has arrived."""
    expect(page.locator("[data-writing] .bubble").last).to_contain_text("word2")


def wait_for_answer(page: Page) -> None:
    """Until the newest reply is complete."""
    expect(newest_reply(page)).to_have_attribute("data-status", re.compile("delivered|read"))
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
