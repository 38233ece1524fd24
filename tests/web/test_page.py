"""The chat page as people use it: a real Chromium against the real service."""

import json
import os
import re
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import BrowserContext, Page, Route, WebSocketRoute, expect

from tests.service import FakeModel, Service, token
from tests.web.conftest import Account, Complaints
from tests.web.pages import (
    HELD,
    PERSONA,
    WORDS,
    OpenPage,
    composer,
    conversation_of,
    newest_reply,
    say,
    text_of,
    wait_for_answer,
    wait_for_words,
)
from yral_chat import personas

pytestmark = pytest.mark.chromium

IMAGES = Path(__file__).parents[2] / "docs" / "images"


# ---- the way in


def test_personas_are_seen(open_page: OpenPage) -> None:
    faces = open_page().locator(".card img")
    expect(faces.first).to_be_visible()
    for face in faces.all()[:3]:
        expect(face).to_have_css("opacity", "1")


def test_a_persona_is_found_by_searching_and_by_category(open_page: OpenPage) -> None:
    page = open_page()
    cards = page.locator(".card")
    everybody = len(personas.load())
    expect(cards).to_have_count(everybody)
    page.get_by_label("Search personas").fill("lagos repair")
    expect(cards).to_have_count(1)
    expect(cards).to_contain_text(PERSONA)
    page.get_by_label("Search personas").press("Escape")
    expect(cards).to_have_count(everybody)
    page.get_by_role("button", name="Cooking", exact=True).click()
    expect(cards).to_have_count(1)
    page.get_by_label("Search personas").fill(PERSONA)
    expect(page.get_by_text("Nobody fits that search.")).to_be_visible()


def test_a_suggestion_begins_the_conversation_and_the_reply_streams_in(
    open_page: OpenPage, account: Account, model: FakeModel
) -> None:
    page = open_page()
    page.get_by_role("button", name=PERSONA).click()
    chips = page.get_by_role("group", name="Suggestions").get_by_role("button")
    expect(chips.first).to_be_visible()
    suggestion = chips.first.inner_text()
    model.tell(default=HELD)
    chips.first.click()
    expect(page.locator(".message.mine")).to_contain_text(suggestion)
    expect(chips).to_have_count(0)
    expect(page.get_by_label(f"{PERSONA} is typing")).to_be_visible()
    model.tell(release=5)
    wait_for_words(page)
    part = text_of(newest_reply(page))
    model.tell(release=100)
    wait_for_answer(page)
    whole = text_of(newest_reply(page))
    assert whole.startswith(part.strip())
    assert len(part) < len(whole)
    [reply] = account.replies(conversation_of(page))
    assert reply["content"].split() == whole.split()
    expect(newest_reply(page)).to_contain_text("gemini")
    announced = page.locator("[aria-live=polite]").inner_text()
    assert "".join(announced.split()).endswith("".join(whole.split()))


def test_what_is_on_screen_is_marked_as_read(chat: Page, account: Account) -> None:
    say(chat, "Are you there?")
    wait_for_answer(chat)
    expect(newest_reply(chat)).to_have_attribute("data-status", "read")
    assert account.unread(conversation_of(chat)) == 0


def test_a_service_that_does_not_answer_is_tried_again(
    context: BrowserContext, page_service: Service, complaints: Complaints
) -> None:
    complaints.expect("net::ERR_")
    page = context.new_page()
    complaints.listen_to(page)
    page.route("**/dev-token", lambda route: route.abort("connectionrefused"))
    page.goto(page_service.url)
    expect(page.get_by_role("alert")).to_contain_text("The service cannot be reached.")
    page.unroute_all()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".card").first).to_be_visible()


def test_an_unknown_conversation_is_explained(open_page: OpenPage, complaints: Complaints) -> None:
    complaints.expect("status of 404")
    page = open_page("/c/no-such-conversation")
    expect(page.get_by_text("Conversation not found")).to_be_visible()
    page.get_by_role("link", name="Choose somebody to talk to").click()
    expect(page.locator(".card").first).to_be_visible()


# ---- a turn


@pytest.mark.parametrize("means", ["button", "key"])
def test_a_reply_can_be_stopped_and_asked_for_again(chat: Page, account: Account, model: FakeModel, means: str) -> None:
    model.tell(default=HELD, release=5)
    say(chat, "Tell me everything")
    wait_for_words(chat)
    if means == "button":
        chat.get_by_role("button", name="Stop the reply").click()
    else:
        chat.keyboard.press("Escape")
    expect(chat.get_by_text("Stopped", exact=True)).to_be_visible()
    [stopped] = account.replies(conversation_of(chat))
    assert stopped["status"] == "cancelled"
    assert stopped["content"].split() == text_of(newest_reply(chat)).split()

    model.tell(default={"pieces": ["All of it."]})
    chat.get_by_role("button", name="Try again").click()
    wait_for_answer(chat)
    assert text_of(newest_reply(chat)) == "All of it."
    [again] = account.replies(conversation_of(chat))
    assert (again["id"], again["attempt"]) == (stopped["id"], 2)


def test_a_message_stopped_before_its_first_word_leaves_no_bubble(
    chat: Page, account: Account, model: FakeModel
) -> None:
    model.tell(default={"first_byte_delay": 20})
    say(chat, "Never mind")
    expect(chat.get_by_label(f"{PERSONA} is typing")).to_be_visible()
    chat.get_by_role("button", name="Stop the reply").click()
    expect(chat.get_by_text("Stopped", exact=True)).to_be_visible()
    expect(newest_reply(chat).locator(".bubble")).to_have_count(0)
    assert [reply["status"] for reply in account.replies(conversation_of(chat))] == ["cancelled"]


def test_a_failed_reply_says_so_and_is_repeated_as_the_same_turn(
    chat: Page, account: Account, model: FakeModel
) -> None:
    model.tell(default={"status": 401})
    say(chat, "Hello?")
    expect(newest_reply(chat)).to_have_attribute("data-status", "failed")
    chat.reload()  # a failed reply without text is in the history only for who asks for it
    expect(newest_reply(chat)).to_have_attribute("data-status", "failed")
    question, failed = account.history(conversation_of(chat))[-2:]

    model.tell(default={"echo": True})
    newest_reply(chat).get_by_role("button", name="Try again").click()
    wait_for_answer(chat)
    expect(newest_reply(chat)).to_contain_text("You said: Hello?")
    history = account.history(conversation_of(chat))
    assert [message["id"] for message in history[1:]] == [question["id"], failed["id"]]
    assert history[-1]["attempt"] == 2


def test_regenerating_replaces_the_newest_reply(chat: Page, account: Account, model: FakeModel) -> None:
    say(chat, "One")
    wait_for_answer(chat)
    say(chat, "Two")
    wait_for_answer(chat)
    before = account.replies(conversation_of(chat))
    expect(chat.get_by_role("button", name="Regenerate")).to_have_count(1)

    model.tell(default={"pieces": ["Another", " answer."]})
    chat.get_by_role("button", name="Regenerate").click()
    expect(newest_reply(chat)).to_contain_text("Another answer.")
    wait_for_answer(chat)
    after = account.replies(conversation_of(chat))
    assert [reply["id"] for reply in after] == [reply["id"] for reply in before]
    assert [reply["content"] for reply in after] == ["You said: One", "Another answer."]


def test_the_old_reply_stays_when_regenerating_fails(chat: Page, account: Account, model: FakeModel) -> None:
    say(chat, "One")
    wait_for_answer(chat)
    model.tell(default={"status": 401})
    chat.get_by_role("button", name="Regenerate").click()
    expect(chat.get_by_role("alert")).to_contain_text("The earlier reply stays.")
    assert text_of(newest_reply(chat)) == "You said: One"
    assert account.replies(conversation_of(chat))[0]["content"] == "You said: One"


def test_reloading_in_mid_stream_continues_the_stream(chat: Page, account: Account, model: FakeModel) -> None:
    model.tell(default=HELD, release=5)
    say(chat, "Tell me everything")
    wait_for_words(chat)
    chat.reload()
    expect(chat.locator("[data-writing] .bubble")).to_contain_text("word2")
    model.tell(release=100)
    wait_for_answer(chat)
    assert text_of(newest_reply(chat)).split() == "".join(WORDS).split()
    history = account.history(conversation_of(chat))
    assert [message["role"] for message in history] == ["assistant", "user", "assistant"]
    assert history[-1]["attempt"] == 1


def test_reloading_while_regenerating_continues_too(chat: Page, account: Account, model: FakeModel) -> None:
    say(chat, "One")
    wait_for_answer(chat)
    model.tell(default=HELD, release=5)
    chat.get_by_role("button", name="Regenerate").click()
    wait_for_words(chat)
    chat.reload()
    wait_for_words(chat)
    model.tell(release=100)
    wait_for_answer(chat)
    assert text_of(newest_reply(chat)).split() == "".join(WORDS).split()


def test_a_crash_of_the_service_in_mid_stream_is_survived(
    chat: Page, account: Account, model: FakeModel, page_service: Service, complaints: Complaints
) -> None:
    complaints.expect("net::ERR_|WebSocket connection")
    model.tell(default=HELD, release=5)
    say(chat, "Tell me everything")
    wait_for_words(chat)
    page_service.kill()
    expect(chat.get_by_text("Reconnecting…")).to_be_visible()
    model.tell(release=200)
    page_service.start()
    expect(newest_reply(chat)).to_have_attribute("data-status", re.compile("delivered|read"))
    assert text_of(newest_reply(chat)).split() == "".join(WORDS).split()
    history = account.history(conversation_of(chat))
    assert [message["role"] for message in history] == ["assistant", "user", "assistant"]
    assert history[-1]["attempt"] == 2
    expect(chat.get_by_text("Reconnecting to live updates…")).to_have_count(0)


def test_nobody_types_for_ever_after_the_inbox_was_cut_off(
    context: BrowserContext, open_page: OpenPage, account: Account
) -> None:
    conversation_id, sockets, is_cut = account.open(PERSONA), list[WebSocketRoute](), False

    def pass_on(socket: WebSocketRoute) -> None:
        if is_cut:
            socket.close(code=1012)
        else:
            socket.connect_to_server()
            sockets.append(socket)

    context.route_web_socket(re.compile("/ws/inbox/"), pass_on)
    page = open_page()
    expect(page.locator(".inbox-name")).to_be_visible()
    typing, event = page.get_by_text("typing…"), {"conversation_id": conversation_id, "is_typing": True}
    while not typing.is_visible():  # the first ones may come before the page listens
        for socket in sockets:
            socket.send(json.dumps({"event": "typing_status", "data": event}))
        page.wait_for_timeout(50)
    is_cut = True
    sockets[-1].close(code=1012)
    expect(page.get_by_text("Reconnecting to live updates…")).to_be_visible()
    expect(typing).to_have_count(0)


def test_a_message_without_an_answer_from_the_network_is_sent_once(
    chat: Page, account: Account, complaints: Complaints
) -> None:
    """The first request never arrives, the second does but its answer is lost: both are repeated under one key."""
    complaints.expect("net::ERR_")
    tries: list[str] = []

    def disturb(route: Route) -> None:
        tries.append(json.loads(route.request.post_data or "")["client_message_id"])
        if len(tries) == 2:
            route.fetch()
        if len(tries) <= 2:
            route.abort("connectionreset")
        else:
            route.continue_()

    chat.route("**/messages/stream", disturb)
    say(chat, "Once and only once")
    wait_for_answer(chat)
    assert len(tries) == 3
    assert len(set(tries)) == 1
    history = account.history(conversation_of(chat))
    assert [message["content"] for message in history[1:]] == ["Once and only once", "You said: Once and only once"]


def test_a_message_on_its_way_survives_a_reload(chat: Page, account: Account, complaints: Complaints) -> None:
    complaints.expect("net::ERR_")
    chat.route("**/messages/stream", lambda route: route.abort("connectionreset"))
    say(chat, "Do not forget me")
    expect(chat.get_by_text("Sending…")).to_be_visible()
    chat.unroute_all()
    chat.reload()
    wait_for_answer(chat)
    contents = [message["content"] for message in account.history(conversation_of(chat))]
    assert contents[1:] == ["Do not forget me", "You said: Do not forget me"]


def test_too_many_turns_at_once_are_explained_and_nothing_is_lost(
    chat: Page, account: Account, model: FakeModel, complaints: Complaints
) -> None:
    complaints.expect("status of 429")
    model.tell(default={"first_byte_delay": 20})
    others = [account.open(name) for name in ("Leela", "Kamla Bua", "Ines")]
    for conversation_id in others:
        account.begin(conversation_id, "Take your time")
    say(chat, "Me too")
    expect(chat.locator("[data-status=refused]")).to_contain_text("Several replies are still being written")
    assert len(account.history(conversation_of(chat))) == 1

    model.reset()
    for conversation_id in others:
        [waiting] = account.replies(conversation_id)
        account.call("POST", f"/api/v1/chat/conversations/{conversation_id}/messages/{waiting['id']}/cancel")
    chat.get_by_role("button", name="Send again").click()
    wait_for_answer(chat)
    assert text_of(newest_reply(chat)) == "You said: Me too"


def test_while_a_reply_is_written_enter_keeps_the_draft(chat: Page, model: FakeModel) -> None:
    model.tell(default=HELD, release=5)
    say(chat, "First")
    wait_for_words(chat)
    say(chat, "Second")
    expect(chat.get_by_text(re.compile("is still answering"))).to_be_visible()
    expect(composer(chat)).to_have_value("Second")
    chat.keyboard.press("Escape")
    expect(chat.get_by_text("Stopped", exact=True)).to_be_visible()
    chat.reload()
    expect(composer(chat)).to_have_value("Second")


def test_replies_are_drawn_as_markdown_and_never_as_html(chat: Page, model: FakeModel) -> None:
    pieces = [
        "**bold** and *leaning*, `code`, snake_case_name\n\n- one\n- two\n",
        "\n<img src=x onerror=alert(1)> [bad](javascript:alert(1)) [good](https://example.org/a_b_c) ",
        "\n\n```\n<b>raw</b>\n```",
    ]
    model.tell(default={"pieces": pieces})
    say(chat, "Show me")
    wait_for_answer(chat)
    prose = newest_reply(chat).locator(".prose")
    assert prose.locator("strong").all_inner_texts() == ["bold"]
    assert prose.locator("em").all_inner_texts() == ["leaning"]
    assert prose.locator("li").all_inner_texts() == ["one", "two"]
    assert prose.locator("pre").inner_text() == "<b>raw</b>"
    expect(prose).to_contain_text("<img src=x onerror=alert(1)> [bad](javascript:alert(1))")
    expect(prose.locator("img")).to_have_count(0)
    [link] = prose.get_by_role("link").all()
    assert link.get_attribute("href") == "https://example.org/a_b_c"
    assert "noopener" in (link.get_attribute("rel") or "")


# ---- history


def test_older_messages_come_when_scrolling_up_and_the_place_is_kept(
    open_page: OpenPage, account: Account, model: FakeModel
) -> None:
    conversation_id = account.open(PERSONA)
    for number in range(40):
        account.send(conversation_id, f"Question {number}")
    page = open_page(f"/c/{conversation_id}")
    shown = page.locator(".message")
    expect(shown).to_have_count(30)
    expect(shown.last).to_be_in_viewport()

    first = page.locator(f"[data-id='{shown.first.get_attribute('data-id')}']")
    history = page.locator(".history")
    history.evaluate("box => { box.scrollTop = 150 }")
    place = first.evaluate("one => one.getBoundingClientRect().top")
    expect(shown).to_have_count(60)
    assert abs(first.evaluate("one => one.getBoundingClientRect().top") - place) <= 2

    history.evaluate("box => { box.scrollTop = 0 }")
    expect(shown).to_have_count(81)
    ids = shown.evaluate_all("all => all.map(one => one.dataset.id)")
    assert ids == [message["id"] for message in account.history(conversation_id)]
    page.get_by_role("button", name="Go to the newest message").click()
    expect(shown.last).to_be_in_viewport()


def test_the_inbox_shows_what_is_unread_and_what_arrives(
    open_page: OpenPage, account: Account, model: FakeModel
) -> None:
    ines = account.open("Ines")
    page = open_page()
    row = page.get_by_role("link", name="Ines")
    expect(row).to_contain_text("1 unread")  # the greeting
    account.send(ines, "Where to?")
    expect(row).to_contain_text("You said: Where to?")
    expect(row).to_contain_text("2 unread")
    expect(page).to_have_title(re.compile(r"^\(2\)"))
    row.click()
    expect(row).not_to_contain_text("unread")
    expect(page.locator(".message.theirs").last).to_contain_text("You said: Where to?")
    assert account.unread(ines) == 0


def test_what_another_window_sends_appears_here(chat: Page, account: Account) -> None:
    account.send(conversation_of(chat), "From my phone")
    expect(chat.locator(".message.mine")).to_contain_text("From my phone")
    expect(newest_reply(chat)).to_contain_text("You said: From my phone")


def test_a_conversation_is_deleted_after_a_question(chat: Page, account: Account) -> None:
    conversation_id = conversation_of(chat)
    chat.get_by_role("button", name="Delete this conversation").click()
    question = chat.get_by_role("dialog")
    question.press("Escape")
    expect(question).to_have_count(0)
    assert account.history(conversation_id)
    chat.get_by_role("button", name="Delete this conversation").click()
    chat.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(chat.locator(".card").first).to_be_visible()
    expect(chat.get_by_role("link", name=PERSONA)).to_have_count(0)
    assert account.call("GET", "/api/v1/chat/conversations")["total"] == 0


# ---- for everybody


def test_the_theme_follows_the_system_until_chosen_and_is_remembered(open_page: OpenPage) -> None:
    page = open_page()
    page.emulate_media(color_scheme="dark")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    assert dark != light
    page.get_by_role("button", name="Switch to the dark theme").click()
    assert page.evaluate(ground) == dark
    page.reload()
    assert page.evaluate(ground) == dark
    page.get_by_role("button", name="Switch to the light theme").click()
    assert page.evaluate(ground) == light


def test_everything_fits_a_phone(
    open_page: OpenPage, context: BrowserContext, account: Account, model: FakeModel
) -> None:
    model.tell(default={"pieces": ["a-very-long-word-" * 12, "\n\n```\n" + "x" * 200 + "\n```"]})
    page = open_page()
    page.set_viewport_size({"width": 360, "height": 740})

    def assert_no_sideways_scrolling() -> None:
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow == 0
        wide = "all => all.filter(one => one.getBoundingClientRect().right > innerWidth + 1).map(one => one.className)"
        assert page.locator(".thread *:not(pre *), .inbox *").evaluate_all(wide) == []

    expect(page.locator(".card").first).to_be_visible()
    assert_no_sideways_scrolling()
    page.get_by_role("button", name=PERSONA).click()
    say(page, "an-equally-long-question-" * 10)
    wait_for_answer(page)
    assert_no_sideways_scrolling()
    expect(composer(page)).to_be_in_viewport()
    page.get_by_role("link", name="Back to your chats").click()
    expect(page.get_by_role("link", name=PERSONA)).to_be_visible()
    assert_no_sideways_scrolling()
    page.get_by_role("link", name="Discover").click()
    expect(page.locator(".card").first).to_be_visible()


def test_the_keyboard_is_enough(open_page: OpenPage, account: Account, model: FakeModel) -> None:
    page = open_page()
    expect(page.locator(".card").first).to_be_visible()
    focused = page.locator(":focus")
    page.keyboard.press("Tab")
    expect(focused).to_have_text("Skip to the content")
    page.keyboard.press("Enter")
    expect(focused).to_have_attribute("placeholder", "Search by name or topic")
    page.keyboard.type(PERSONA)
    expect(page.locator(".card")).to_have_count(1)
    while "card-button" not in (focused.get_attribute("class") or ""):
        page.keyboard.press("Tab")
    outline = "one => getComputedStyle(one).outlineStyle"
    assert focused.evaluate(outline) == "solid"
    page.keyboard.press("Enter")

    expect(composer(page)).to_be_focused()
    page.keyboard.type("First line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second line")
    page.keyboard.press("Enter")
    wait_for_answer(page)
    assert account.history(conversation_of(page))[1]["content"] == "First line\nsecond line"
    expect(composer(page)).to_be_focused()
    page.keyboard.press("Shift+Tab")
    expect(focused).to_have_text("Regenerate")
    assert focused.evaluate(outline) == "solid"


# The smallest contrast (WCAG 2.2, section 1.4.3) of each pair of colours over all hues a persona may have.
CONTRASTS = """pairs => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const tinted = document.body.appendChild(document.createElement("div"));
  tinted.className = "thread";
  const luminance = (name, hue) => {
    tinted.style.setProperty("--hue", hue);
    tinted.style.color = name.startsWith("#") ? name : `var(--${name})`;
    canvas.fillStyle = getComputedStyle(tinted).color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(
      part => part <= 10 ? part / 3294.6 : ((part / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const smallest = ([text, ground]) => Math.min(...Array.from({length: 36}, (_, step) => {
    const [low, high] = [luminance(text, step * 10), luminance(ground, step * 10)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  }));
  return Object.fromEntries(pairs.map(pair => [pair.join(" on "), smallest(pair)]));
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read_in_both_themes(open_page: OpenPage, theme: Literal["light", "dark"]) -> None:
    page = open_page()
    page.emulate_media(color_scheme=theme)
    pairs = [("ink", "ground"), ("problem", "problem-ground"), ("#fff", "mine")]
    pairs += [
        (text, ground) for text in ("ink-soft", "ink-faint") for ground in ("ground", "surface", "raised", "tint")
    ]
    pairs += [("accent", ground) for ground in ("surface", "raised", "tint")]
    contrasts = page.evaluate(CONTRASTS, pairs)
    assert {pair: value for pair, value in contrasts.items() if value < 4.5} == {}


def test_movement_is_left_out_for_who_asks(open_page: OpenPage) -> None:
    page = open_page()
    page.emulate_media(reduced_motion="reduce")
    duration = page.locator(".card-button").first.evaluate("one => getComputedStyle(one).transitionDuration")
    assert set(duration.split(", ")) == {"0.001s"}


# ---- who one is


def test_a_development_token_is_renewed_before_it_expires(
    open_page: OpenPage, account: Account, model: FakeModel
) -> None:
    page = open_page()
    expect(page.locator(".card").first).to_be_visible()  # it has its token
    page.clock.install()
    issued: list[str] = []
    page.on("request", lambda request: issued.append(request.url) if "dev-token" in request.url else None)
    page.goto(page.url.split("#")[0] + f"#/c/{account.open(PERSONA)}")
    page.reload()
    expect(composer(page)).to_be_visible()
    assert len(issued) == 1
    page.clock.fast_forward("59:30")
    say(page, "Still me?")
    wait_for_answer(page)
    assert len(issued) == 2


def test_signing_out_forgets_the_guest_until_somebody_comes_in(
    context: BrowserContext, page_service: Service, complaints: Complaints
) -> None:
    page = context.new_page()
    complaints.listen_to(page)
    page.goto(page_service.url)
    first = page.locator(".who").inner_text()
    page.get_by_role("button", name="Sign out").click()
    page.reload()
    expect(page.get_by_label("Your user id")).to_be_focused()
    assert page.get_by_label("Your user id").input_value() != first
    page.get_by_label("Your user id").fill("guest-somebody")
    page.keyboard.press("Enter")
    expect(page.locator(".who")).to_have_text("guest-somebody")
    page.reload()
    expect(page.locator(".who")).to_have_text("guest-somebody")


def test_with_real_issuers_a_pasted_token_lets_in(
    context: BrowserContext, token_service: Service, token_account: Account, complaints: Complaints
) -> None:
    complaints.expect("status of 40[14]")  # no development tokens here; and the refused ones
    page = context.new_page()
    complaints.listen_to(page)
    page.goto(token_service.url)
    field = page.get_by_label("Access token")
    for refused, reason in (
        ("not-a-token", "Invalid token format"),
        (token("me", ttl_seconds=-999), "Token has expired"),
    ):
        field.fill(refused)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_have_text(reason)
    field.fill(f" Bearer {token_account.token}\n")
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator(".who")).to_have_text(token_account.user)
    assert page.evaluate("JSON.stringify(localStorage)") == "{}"
    page.reload()
    expect(page.locator(".who")).to_have_text(token_account.user)
    page.get_by_role("button", name="Sign out").click()
    page.reload()
    expect(field).to_be_visible()


def test_an_expired_token_leads_back_to_the_door(
    context: BrowserContext, token_service: Service, complaints: Complaints
) -> None:
    complaints.expect("status of 401|WebSocket connection")  # a slow machine gets in too late
    page = context.new_page()
    complaints.listen_to(page)
    who, alert = page.locator(".who"), page.get_by_role("alert")
    for ttl_seconds in (3, 9, 27):
        short_lived = json.dumps(token("somebody", ttl_seconds=ttl_seconds))
        # Only once: the reload must find what the page remembers, not the script.
        page.goto(f"{token_service.url}/favicon.svg")
        page.evaluate(f"sessionStorage.setItem('yral.token', {json.dumps(short_lived)})")
        page.goto(token_service.url)
        expect(who.or_(alert).first).to_be_visible()
        if who.all_text_contents() == ["somebody"]:
            break
    else:
        pytest.fail("it never got in")
    expect(alert).to_have_text("Token has expired")
    expect(page.get_by_label("Access token")).to_be_focused()
    assert page.evaluate("sessionStorage.getItem('yral.token')") is None


def test_the_offline_persona_is_named_as_such(
    context: BrowserContext, token_service: Service, token_account: Account, complaints: Complaints
) -> None:
    page = context.new_page()
    complaints.listen_to(page)
    page.add_init_script(f"sessionStorage.setItem('yral.token', {json.dumps(json.dumps(token_account.token))})")
    for other in ("Ines", "Leela", "Kamla Bua"):
        token_account.open(other)
    page.goto(f"{token_service.url}/#/c/{token_account.open(PERSONA)}")
    page.get_by_role("group", name="Suggestions").get_by_role("button").first.click()
    wait_for_answer(page)
    expect(newest_reply(page)).to_contain_text("offline demo")
    banner = page.get_by_role("note")
    expect(banner).to_contain_text("GEMINI_API_KEY")
    expect(banner).to_contain_text("OPENAI_BASE_URL")
    page.reload()
    expect(newest_reply(page)).to_contain_text("offline demo")
    banner.get_by_role("button", name="Got it").click()
    expect(banner).to_have_count(0)
    if os.environ.get("UPDATE_SCREENSHOTS") == "1":
        take_pictures(page)


def take_pictures(page: Page) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    page.locator(".thread-head").hover()
    page.screenshot(path=IMAGES / "chat.png", animations="disabled")
    page.emulate_media(color_scheme="dark")
    page.screenshot(path=IMAGES / "chat-dark.png", animations="disabled")
    page.set_viewport_size({"width": 390, "height": 844})
    page.screenshot(path=IMAGES / "chat-phone.png", animations="disabled")


# ---- the documentation


def test_the_interactive_documentation_works_under_its_policy(
    context: BrowserContext, page_service: Service, complaints: Complaints
) -> None:
    page = context.new_page()
    complaints.listen_to(page)
    page.goto(f"{page_service.url}/docs")
    page.get_by_role("button", name="GET /health/live").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table .response").first).to_contain_text("alive")


def test_the_reference_works_under_its_policy(
    context: BrowserContext, page_service: Service, complaints: Complaints
) -> None:
    complaints.expect("logo-mini.svg")  # Redoc's advertisement, which would load from another host
    page = context.new_page()
    complaints.listen_to(page)
    page.goto(f"{page_service.url}/redoc")
    expect(page.get_by_role("heading", name="Yral AI Chat")).to_be_visible()
    page.get_by_placeholder("Search").fill("regenerate")  # searches in a worker
    expect(page.locator("[data-role='search:results'] [role=menuitem]").first).to_be_visible()
