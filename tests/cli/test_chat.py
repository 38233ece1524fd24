"""yral-chat chat: one message, piped lines, and a person at a terminal."""

import contextlib
import signal
import subprocess
from pathlib import Path

import httpx2
import pytest

from tests.cli.commands import Cli
from tests.service import FakeModel, Service
from yral_chat.clients.chat_api import Json
from yral_chat.terminal import ChatFailed, find_influencer

# Every test starts the command as a process, most of them beside a server.
pytestmark = pytest.mark.long

LEELA = "persona-leela"


def history(server: Service, token: str) -> list[Json]:
    """What Leela and this user have said to each other, oldest first."""
    client = httpx2.Client(base_url=server.url, headers={"Authorization": f"Bearer {token}"})
    with client:
        opened = client.post("/api/v1/chat/conversations", json={"influencer_id": LEELA}).json()
        path = f"/api/v1/chat/conversations/{opened['id']}/messages"
        found: list[Json] = client.get(path, params={"order": "asc"}).json()["messages"]
        return found


def said(server: Service, cli: Cli, user: str) -> list[tuple[str, str]]:
    token = cli.run("token", user).out.strip()
    return [(message["role"], message["content"]) for message in history(server, token)][1:]


# --- one message


def test_one_message_prints_the_reply_and_nothing_else(server: Service, guest: Cli) -> None:
    done = guest.run("chat", "leela", "--user", "one", "-m", "Good morning")
    assert done == (0, "You said: Good morning\n", "")
    assert said(server, guest, "one") == [("user", "Good morning"), ("assistant", "You said: Good morning")]


def test_a_server_can_be_named_by_its_url(server: Service, cli: Cli, model: FakeModel) -> None:
    done = cli.run("chat", "LeelaOnLove", "-m", "Hi", "--url", server.url.removeprefix("http://"))
    assert done == (0, "You said: Hi\n", "")
    assert not cli.data.exists()


def test_without_a_server_it_answers_by_itself_on_the_same_data(cli: Cli) -> None:
    settings = {"PORT": "1"}
    done = cli.run("chat", "persona-LEELA", "-m", "My name is Ada", **settings)
    assert (done.status, done.err) == (0, "")
    assert "offline demo of Leela" in done.out
    assert done.out.count("\n") == 1
    with Service(cli.folder, ENVIRONMENT="development", AUTH_DEV_SECRET=None) as server:
        cli.settings["PORT"] = server.settings["PORT"]
        assert said(server, cli, "me") == [("user", "My name is Ada"), ("assistant", done.out.strip())]


def test_a_database_that_somebody_else_serves_is_said(server: Service, guest: Cli) -> None:
    done = guest.run("chat", "leela", "-m", "Hi", PORT="1")
    assert done.status == 1
    assert "is in use: by another chat, or by a server that is not at http://127.0.0.1:1." in done.err
    assert "--url" in done.err


def test_nobody_at_the_url_is_said(guest: Cli) -> None:
    done = guest.run("chat", "leela", "-m", "Hi", "--url", "http://127.0.0.1:1")
    assert done == (1, "", "No Yral AI Chat answers at http://127.0.0.1:1. Is it running, and is this its address?\n")


def test_something_else_at_the_url_is_not_taken_for_the_service(model: FakeModel, guest: Cli) -> None:
    elsewhere = model.base_url_openai.removesuffix("/v1")
    done = guest.run("chat", "leela", "-m", "Hi", "--url", elsewhere)
    assert done.status == 1
    assert done.err.startswith(f"No Yral AI Chat answers at {elsewhere}.")


def test_a_failed_reply_is_a_sentence_and_a_status(server: Service, guest: Cli, model: FakeModel) -> None:
    model.tell(default={"status": 401})
    done = guest.run("chat", "leela", "--user", "failed", "-m", "Hi")
    assert done == (1, "", "The reply could not be generated.\n")


def test_a_message_that_is_too_long_is_said(guest: Cli, model: FakeModel) -> None:
    done = guest.run("chat", "leela", "-m", "x" * 4001)
    assert done.status == 1
    assert done.err == "The request is not valid: String should have at most 4000 characters.\n"
    assert model.requests() == []


def test_a_refused_token_is_said(guest: Cli) -> None:
    done = guest.run("chat", "leela", "-m", "Hi", "--token", "not.a.token")
    assert done.status == 1
    assert "refuses the token: Invalid token format" in done.err
    assert "YRAL_CHAT_TOKEN" in done.err


def test_a_token_that_was_copied_with_a_line_break_is_said(guest: Cli) -> None:
    done = guest.run("chat", "leela", "-m", "Hi", "--token", "not.a\n.token")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("The token has a character that no token has")
    assert done.err.count("\n") == 1


def test_a_given_token_says_who_talks(server: Service, guest: Cli) -> None:
    token = guest.run("token", "grace").out.strip()
    assert guest.run("chat", "leela", "-m", "Hi", YRAL_CHAT_TOKEN=token).status == 0
    assert [message["sender_id"] for message in history(server, token)] == [LEELA, "grace", LEELA]


def test_where_no_tokens_are_issued_one_has_to_be_given(cli: Cli) -> None:
    issuers = '[{"issuer": "https://issuer.example", "jwks_url": "https://issuer.example/jwks.json"}]'
    settings = {"ENVIRONMENT": "production", "AUTH_ISSUERS": issuers, "ALLOW_OFFLINE_MODEL": "true", "PORT": "1",
                "MEDIA_SIGNING_KEY": "x" * 32}  # fmt: skip
    done = cli.run("chat", "leela", "-m", "Hi", **settings)
    assert done.status == 1
    assert "Give one of its issuers': --token" in done.err


def test_a_reply_survives_the_death_of_the_server(tmp_path: Path, model: FakeModel) -> None:
    """Killed in mid-reply and started again: the same command ends with the whole reply, and nothing is doubled."""
    model.tell(default={"echo": True}, script=[{"pieces": ["Half", " of it"], "stall_after": 1}])
    server = Service(tmp_path, ENVIRONMENT="development", AUTH_DEV_SECRET=None, **model.settings)
    with server:
        cli = Cli(tmp_path / "guest", PORT=server.settings["PORT"], DATA_DIR=str(tmp_path / "data"))
        with cli.in_terminal("chat", "leela", "-m", "Are you there?") as terminal:
            terminal.expect("Half")
            server.kill()
            server.start()
            terminal.expect("begins anew")
            terminal.expect("You said: Are you there?")
            assert terminal.wait() == 0
        expected = [("user", "Are you there?"), ("assistant", "You said: Are you there?")]
        assert said(server, cli, "me") == expected


# --- who


def influencer(name: str, **more: str) -> Json:
    return {"name": name, "id": f"persona-{name}", "display_name": name.title(), **more}


PEOPLE = [influencer("ann"), influencer("annika"), influencer("Bo", id="x7")]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("ann", "ann"), ("ANN", "ann"), ("anni", "annika"), ("persona-annika", "annika"), ("b", "Bo"), ("X7", "Bo")],
)
def test_names_and_ids_match_in_any_case_and_by_their_beginning(wanted: str, expected: str) -> None:
    assert find_influencer(PEOPLE, wanted)["name"] == expected


def test_a_beginning_of_several_names_them() -> None:
    with pytest.raises(ChatFailed, match=r"^an could be ann, annika\. Type more"):
        find_influencer(PEOPLE, "an")


@pytest.mark.parametrize("wanted", ["zoe", "", "nn"])
def test_a_name_that_nobody_has_lists_all(wanted: str) -> None:
    with pytest.raises(ChatFailed, match=r"There are: Bo, ann, annika\."):
        find_influencer(PEOPLE, wanted)


def test_one_message_needs_a_name(guest: Cli) -> None:
    done = guest.run("chat", "-m", "Hi")
    assert done.status == 1
    assert "Say to whom" in done.err
    assert "leelaonlove" in done.err


# --- piped lines


def test_piped_lines_are_a_conversation(server: Service, guest: Cli) -> None:
    lines = "nobody\n\nleela\nFirst\n/help\n/what\n/again\n\nLast, without an end of line"
    done = guest.run("chat", "--user", "piped", lines=lines)
    assert (done.status, done.err) == (0, "")
    shown = done.out.splitlines()
    assert [line.split()[1] for line in shown[:10]] == sorted(line.split()[1] for line in shown[:10])
    assert "× Nobody here is called nobody." in done.out
    assert "Leela: Hi, I'm Leela." in done.out
    assert "You could say: Help me reply to this message · " in done.out
    assert done.out.count("Leela: You said: First\n") == 2
    assert "/again   have the last reply written anew" in done.out
    assert "× There is no command /what; /help lists the commands." in done.out
    assert shown[-1] == "Leela: You said: Last, without an end of line"
    assert "you:" not in done.out
    assert said(server, guest, "piped") == [
        ("user", "First"),
        ("assistant", "You said: First"),
        ("user", "Last, without an end of line"),
        ("assistant", "You said: Last, without an end of line"),
    ]


def test_new_forgets_the_conversation(server: Service, guest: Cli) -> None:
    done = guest.run("chat", "leela", "--user", "new", lines="Before\n/new\nAfter\n/quit\nNever said\n")
    assert done.status == 0
    assert done.out.count("Leela: Hi, I'm Leela.") == 2
    assert said(server, guest, "new") == [("user", "After"), ("assistant", "You said: After")]


def test_a_conversation_is_taken_up_where_it_was(guest: Cli) -> None:
    assert guest.run("chat", "leela", "--user", "later", lines="One\nTwo\nThree\n").status == 0
    done = guest.run("chat", "leela", "--user", "later", lines="/again\n")
    shown = done.out.splitlines()
    assert shown[0].startswith("You have talked before")
    assert shown[1:] == [
        "you: Two",
        "Leela: You said: Two",
        "you: Three",
        "Leela: You said: Three",
        "Leela: You said: Three",
    ]


def test_a_failed_reply_can_be_tried_again(server: Service, guest: Cli, model: FakeModel) -> None:
    model.tell(default={"echo": True}, script=[{"status": 401}, {"status": 401}])
    done = guest.run("chat", "leela", "--user", "retry", lines="Once\n/again\n")
    assert "× The reply could not be generated. /again tries again.\n" in done.out
    assert done.out.endswith("Leela: You said: Once\n")
    assert said(server, guest, "retry") == [("user", "Once"), ("assistant", "You said: Once")]


def test_again_without_a_reply_says_so(guest: Cli) -> None:
    assert "× There is no reply yet." in guest.run("chat", "leela", "--user", "early", lines="/again\n").out


def test_no_input_at_all_ends_well(guest: Cli) -> None:
    done = guest.run("chat")
    assert (done.status, done.err) == (0, "")


def test_what_a_model_says_cannot_steer_the_terminal(guest: Cli, model: FakeModel) -> None:
    model.tell(default={"pieces": ["\x1b]0;gotcha\x07", "\x1b[31mred\x9b2J", " नमस्ते 👩‍🚀"]})
    done = guest.run("chat", "leela", "-m", "Hi")
    assert done.out == "]0;gotcha[31mred2J नमस्ते 👩‍🚀\n"


# --- a person at a terminal


@pytest.fixture
def slow(model: FakeModel) -> FakeModel:
    """A model that says one word and then nothing more."""
    model.tell(default={"pieces": ["Well,", " so"], "stall_after": 1})
    return model


@pytest.fixture
def alone(tmp_path: Path) -> Cli:
    """Without a server, and with a persona that takes its time."""
    return Cli(tmp_path / "alone", PORT="1", OFFLINE_WORDS_PER_SECOND="4")


def test_ctrl_c_stops_a_reply_and_then_ends_the_program(server: Service, guest: Cli, slow: FakeModel) -> None:
    with guest.in_terminal("chat", "--user", "ctrl-c") as terminal:
        terminal.expect("Who? Number or name: ")
        terminal.send("leela\n")
        terminal.expect("you: ")
        terminal.send("Tell me everything\n")
        terminal.expect("Well,")
        terminal.ctrl_c()
        terminal.expect("× The reply was stopped. /again tries again.")
        terminal.expect("you: ")
        slow.reset()
        terminal.send("/again\n")
        terminal.expect("You said: Tell me everything")
        terminal.expect("you: ")
        terminal.ctrl_c()
        assert terminal.wait() == 0
    assert said(server, guest, "ctrl-c") == [
        ("user", "Tell me everything"),
        ("assistant", "You said: Tell me everything"),
    ]


def test_ctrl_d_ends_the_program(guest: Cli) -> None:
    with guest.in_terminal("chat", "leela", "--user", "ctrl-d") as terminal:
        terminal.expect("you: ")
        terminal.ctrl_d()
        assert terminal.wait() == 0
        assert "Traceback" not in terminal.shown


def test_words_come_one_by_one(alone: Cli) -> None:
    with alone.in_terminal("chat", "leela") as terminal:
        terminal.expect("this chat brings its own")
        terminal.expect("you: ")
        terminal.send("Hello\n")
        first = terminal.expect("Leela: ") + terminal.expect(" ")
        assert "offline demo" not in first
        terminal.ctrl_c()
        terminal.expect("The reply was stopped")
        terminal.send("/quit\n")
        assert terminal.wait() == 0


def test_ctrl_c_ends_the_program_even_when_the_server_hangs(tmp_path: Path, slow: FakeModel) -> None:
    with Service(tmp_path, ENVIRONMENT="development", AUTH_DEV_SECRET=None, **slow.settings) as server:
        cli = Cli(tmp_path / "guest", PORT=server.settings["PORT"])
        with cli.in_terminal("chat", "leela") as terminal:
            terminal.expect("you: ")
            terminal.send("Hello\n")
            terminal.expect("Well,")
            server.process.process.send_signal(signal.SIGSTOP)
            # The first asks the server to stop the reply; it cannot answer, so the second ends the program.
            while terminal.process.poll() is None:
                terminal.ctrl_c()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    terminal.process.wait(0.2)
            assert terminal.process.returncode == 1
            terminal.expect("Stopped.")
            assert "Traceback" not in terminal.shown


def test_a_chat_by_itself_leaves_nothing_open(alone: Cli) -> None:
    with alone.in_terminal("chat", "leela") as terminal:
        terminal.expect("you: ")
        terminal.ctrl_c()
        assert terminal.wait() == 0
    assert sorted(path.name for path in alone.data.iterdir()) == [
        "dev-secret",
        "log-key",
        "media-signing-key",
        "yral_chat.db",
        "yral_chat.db.lock",
    ]
    assert alone.run("migrate").status == 0


def test_what_is_typed_while_a_reply_comes_is_said_next(guest: Cli, model: FakeModel) -> None:
    model.tell(default={"echo": True, "first_byte_delay": 0.3})
    with guest.in_terminal("chat", "leela", "--user", "hasty") as terminal:
        terminal.expect("you: ")
        terminal.send("One\nTwo\n")
        terminal.expect("You said: One")
        terminal.expect("You said: Two")
