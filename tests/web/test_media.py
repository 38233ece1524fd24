"""Pictures and voice notes on the chat page: a real Chromium with a microphone that beeps, against the real service."""

import base64
import re
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import FilePayload, Locator, Page, Route, expect

from tests.service import FakeModel
from tests.web.conftest import Account, Complaints
from tests.web.pages import PERSONA, composer, conversation_of, newest_reply, say, wait_for_answer

pytestmark = pytest.mark.chromium

UPLOADS = "**/api/v1/media/upload"
FILES = re.compile("/media/.*sig=")


def photo(name: str = "photo.jpg", colour: str = "seagreen") -> FilePayload:
    file = BytesIO()
    Image.new("RGB", (320, 200), colour).save(file, "PNG" if name.endswith("png") else "JPEG")
    mime_type = "image/png" if name.endswith("png") else "image/jpeg"
    return {"name": name, "mimeType": mime_type, "buffer": file.getvalue()}


def choose(page: Page, *files: FilePayload) -> None:
    page.get_by_label("Pictures to attach").set_input_files(files)


def paste(page: Page, picture: FilePayload) -> None:
    """From the browser's real clipboard."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """data => navigator.clipboard.write([new ClipboardItem({
          "image/png": new Blob([Uint8Array.from(atob(data), sign => sign.charCodeAt(0))], {type: "image/png"}),
        })])""",
        base64.b64encode(picture["buffer"]).decode(),
    )
    composer(page).press("ControlOrMeta+v")


def drop(page: Page, file: FilePayload) -> None:
    """On the conversation, as from another window."""
    data = page.evaluate_handle(
        """([name, type, data]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([Uint8Array.from(atob(data), sign => sign.charCodeAt(0))], name, {type}));
          return transfer;
        }""",
        [file["name"], file["mimeType"], base64.b64encode(file["buffer"]).decode()],
    )
    history = page.locator(".history")
    history.dispatch_event("dragenter", {"dataTransfer": data})
    expect(page.get_by_text("Drop pictures here")).to_be_visible()
    history.dispatch_event("drop", {"dataTransfer": data})
    expect(page.get_by_text("Drop pictures here")).to_have_count(0)


def thumbs(page: Page, status: str) -> Locator:
    return page.locator(f".thumb[data-status={status}]")


def shown_pictures(message: Locator) -> Locator:
    """Those that the service's copy of has been loaded."""
    return message.locator(".picture img.loaded[src*='/media/']")


def test_pictures_are_chosen_pasted_and_dropped_and_go_with_the_words(
    chat: Page, account: Account, model: FakeModel
) -> None:
    model.tell(default={"pieces": ["I see."]})
    held: list[Route] = []
    chat.route(UPLOADS, lambda route: held.append(route))
    choose(chat, photo("one.jpg"), photo("two.jpg", "orange"))
    paste(chat, photo("three.png", "purple"))
    drop(chat, photo("four.jpg", "navy"))
    expect(thumbs(chat, "uploading")).to_have_count(4)
    expect(chat.get_by_role("progressbar", name="Uploading one.jpg")).to_be_visible()
    chat.get_by_role("button", name="Remove four.jpg").click()

    say(chat, "Look at these")
    expect(chat.get_by_text("This is sent as soon as the upload is done.")).to_be_visible()
    assert len(account.history(conversation_of(chat))) == 1
    for route in held[:3]:
        route.continue_()
    mine = chat.locator(".message.mine")
    expect(mine.locator(".picture")).to_have_count(3)
    expect(mine).to_contain_text("Look at these")
    wait_for_answer(chat)
    expect(thumbs(chat, "ready")).to_have_count(0)
    chat.reload()
    expect(shown_pictures(mine)).to_have_count(3)
    question = account.history(conversation_of(chat))[1]
    assert (question["message_type"], question["content"]) == ("multimodal", "Look at these")
    assert len(question["media_urls"]) == 3

    mine.get_by_role("button", name="Picture 1 of 3 from you").press("Enter")
    large = chat.get_by_role("dialog")
    expect(large).to_contain_text("1 of 3")
    chat.keyboard.press("ArrowRight")
    expect(large).to_contain_text("2 of 3")
    with chat.expect_download() as saved:
        large.get_by_role("link", name="Download").click()
    assert saved.value.suggested_filename.endswith(".jpg")
    chat.keyboard.press("Escape")
    expect(large).to_have_count(0)
    expect(mine.get_by_role("button", name="Picture 1 of 3 from you")).to_be_focused()


def test_a_picture_that_is_refused_says_why_and_one_that_failed_is_tried_again(
    chat: Page, account: Account, model: FakeModel, complaints: Complaints, tmp_path: Path
) -> None:
    complaints.expect("net::ERR_|status of 415|status of 413")
    model.tell(default={"pieces": ["I see."]})
    text: FilePayload = {"name": "notes.png", "mimeType": "image/png", "buffer": b"not a picture at all"}
    huge = tmp_path / "huge.png"
    huge.write_bytes(photo()["buffer"] + bytes(11 << 20))
    choose(chat, text)
    chat.get_by_label("Pictures to attach").set_input_files(huge)
    problems = chat.locator(".attachment-problem")
    expect(problems).to_have_count(2)
    expect(problems.filter(has_text="notes.png")).to_contain_text("not of an allowed type")
    expect(problems.filter(has_text="huge.png")).to_contain_text("at most 10 MB")
    expect(problems.get_by_role("button", name="Try again")).to_have_count(0)
    drop(chat, {**text, "name": "notes.txt", "mimeType": "text/plain"})
    expect(chat.get_by_text("Only pictures can be attached")).to_be_visible()

    chat.route(UPLOADS, lambda route: route.abort("connectionreset"), times=1)
    choose(chat, photo())
    expect(problems).to_have_count(3)
    chat.get_by_role("button", name="Send", exact=True).click()
    expect(chat.get_by_text("One picture was not uploaded")).to_be_visible()
    problems.get_by_role("button", name="Try again").click()
    expect(thumbs(chat, "ready")).to_have_count(1)
    chat.get_by_role("button", name="Remove notes.png").click()
    chat.get_by_role("button", name="Remove huge.png").click()
    chat.get_by_role("button", name="Send", exact=True).click()
    wait_for_answer(chat)
    assert account.history(conversation_of(chat))[1]["message_type"] == "image"


def test_a_voice_note_is_recorded_heard_sent_and_written_down(chat: Page, account: Account, model: FakeModel) -> None:
    model.tell(default={"pieces": ["I hear."]})
    chat.context.grant_permissions(["microphone"])
    chat.get_by_role("button", name="Record a voice note").click()
    expect(chat.get_by_role("button", name="Stop recording")).to_be_focused()
    expect(chat.locator(".recorder-time")).to_contain_text("0:01")
    loud = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(part => part)"
    assert chat.get_by_role("img", name="Sound level").evaluate(loud)
    chat.keyboard.press("Enter")
    note = chat.get_by_role("group", name="Voice note")
    note.get_by_role("button", name="Play").click()
    expect(note.get_by_role("button", name="Pause")).to_be_visible()
    chat.get_by_role("button", name="Send the recording").click()
    wait_for_answer(chat)

    mine = chat.locator(".message.mine")
    expect(mine.locator(".player-time")).to_have_text(re.compile("0:0[1-9]"))
    expect(mine.locator(".transcription")).to_contain_text("Hello, this is a voice message.")
    expect(mine).not_to_contain_text("[")
    chat.reload()
    expect(mine.locator(".transcription")).to_contain_text("Hello, this is a voice message.")
    mine.get_by_role("button", name="Play").click()
    expect(mine.get_by_role("button", name="Pause")).to_be_visible()
    question = account.history(conversation_of(chat))[1]
    assert question["message_type"] == "audio"
    assert question["audio_duration_seconds"] >= 1


def test_words_that_overtake_the_start_of_the_stream_stay(chat: Page, model: FakeModel) -> None:
    """The socket told of them first: the stream, held up on its way, begins with the recording as it was before."""
    model.tell(default={"pieces": ["I hear."]})
    chat.context.grant_permissions(["microphone"])
    chat.route("**/messages/stream", lambda route: route.fulfill(response=route.fetch()))
    chat.get_by_role("button", name="Record a voice note").click()
    expect(chat.locator(".recorder-time")).to_contain_text("0:01")
    chat.get_by_role("button", name="Stop recording").click()
    chat.get_by_role("button", name="Send the recording").click()
    wait_for_answer(chat)
    expect(chat.locator(".message.mine .transcription")).to_contain_text("Hello, this is a voice message.")


def test_a_microphone_that_is_refused_is_explained_and_text_goes_on(chat: Page, model: FakeModel) -> None:
    chat.get_by_role("button", name="Record a voice note").click()
    expect(chat.get_by_role("alert")).to_contain_text("may not use the microphone")
    say(chat, "Then I write")
    wait_for_answer(chat)


def test_a_picture_is_asked_for_once_and_opened_large_by_keyboard(
    chat: Page, account: Account, complaints: Complaints
) -> None:
    """The first request's answer is lost: asking again finds the same picture."""
    complaints.expect("net::ERR_")
    keys: list[str] = []

    def disturb(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            expect(chat.get_by_role("img", name=f"{PERSONA} is making a picture")).to_be_visible()
            route.fetch()
            route.abort("connectionreset")
        else:
            route.continue_()

    chat.route("**/images", disturb)
    composer(chat).fill("A red bicycle")
    chat.get_by_role("button", name=f"Ask {PERSONA} for a picture").click()
    expect(chat.locator("[data-status=refused]")).to_contain_text("A red bicycle")
    chat.get_by_role("button", name="Try again").click()
    expect(chat.locator("[data-status=refused], [data-status=making]")).to_have_count(0)
    expect(shown_pictures(newest_reply(chat))).to_have_count(1)
    assert len(set(keys)) == 1
    [picture] = account.history(conversation_of(chat))[1:]
    assert (picture["origin"], picture["message_type"], picture["content"]) == ("image", "image", "")

    small = newest_reply(chat).get_by_role("button", name=f"Picture from {PERSONA}")
    small.press("Enter")
    expect(chat.get_by_role("dialog").get_by_role("img")).to_be_in_viewport()
    chat.keyboard.press("Escape")
    expect(small).to_be_focused()


def test_an_address_that_has_expired_is_replaced_and_one_that_never_works_is_given_up(
    chat: Page, account: Account, complaints: Complaints
) -> None:
    complaints.expect("status of 403")
    conversation_id = conversation_of(chat)
    account.call("POST", f"/api/v1/chat/conversations/{conversation_id}/images", {"prompt": "A boat"})
    asked: list[str] = []
    refuse = {"is_on": True}

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        if refuse["is_on"] or len(asked) == 1:
            route.fulfill(status=403)
        else:
            route.continue_()

    chat.route(FILES, answer)
    chat.reload()
    again = chat.get_by_role("button", name="Try again")
    expect(again).to_be_visible()
    assert len(asked) <= 3
    refuse["is_on"] = False
    again.click()
    expect(shown_pictures(newest_reply(chat))).to_have_count(1)

    asked.clear()
    chat.reload()
    expect(shown_pictures(newest_reply(chat))).to_have_count(1)
    assert len(asked) == 2
