"""`yral-chat chat`: a conversation in the terminal, over the same HTTP API that every client uses."""

import asyncio
import io
import os
import shutil
import signal
import sys
import threading
import unicodedata
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager, suppress

from yral_chat.clients.chat_api import (
    ChatApi,
    ChatApiError,
    Done,
    Failed,
    Json,
    Piece,
    Refused,
    ReplyEvent,
    ServiceUnreachable,
    Started,
)
from yral_chat.clients.identity import issue_dev_token, load_dev_secret
from yral_chat.core.config import Settings
from yral_chat.core.failures import CannotGoOn
from yral_chat.core.ids import new_id
from yral_chat.db.failures import DatabaseInUse
from yral_chat.serving import reachable_host, serving_here

HELP = """\
  /again   have the last reply written anew, or a failed one tried again
  /new     forget this conversation and begin anew
  /help    this list
  /quit    end (so does Ctrl-C; while a reply is being written, Ctrl-C stops the reply)"""

YOU = "you: "
HELP_HINT = "/help lists the commands."

TOKEN_SECONDS = 86400
# Of a conversation that is taken up again, so much is shown.
SHOWN_MESSAGES = 4
DEFAULT_WIDTH = 110


class ChatFailed(CannotGoOn):
    """The chat cannot begin or go on; the message says why and what to do."""


async def talk(
    settings: Settings,
    *,
    persona: str | None,
    url: str | None,
    user_id: str,
    message: str | None,
    token: str | None,
) -> None:
    """Talks to `persona` (name or id, asked for when None): one `message`, or line by line until the end of input.

    With the server at `url`, else with the one at the configured address, else with one of its own for as long as it
    lasts. Raises ChatFailed, DatabaseUnusable.
    """
    screen = Screen()
    with screen.listening():
        try:
            async with AsyncExitStack() as stack:
                api = await _connect(stack, screen, settings, url, is_quiet=message is not None)
                api.token = _sendable(token) if token else await _own_token(api, settings, user_id)
                if message is None:
                    await _converse(api, screen, persona)
                else:
                    await _say_once(api, screen, persona, message)
        except ChatApiError as error:
            raise ChatFailed(_advised(error)) from error
        except asyncio.CancelledError:
            if not screen.is_ended:
                raise
            raise ChatFailed("Stopped.") from None


async def _connect(
    stack: AsyncExitStack, screen: "Screen", settings: Settings, url: str | None, *, is_quiet: bool
) -> ChatApi:
    address = url or f"http://{reachable_host(settings.host)}:{settings.port}"
    api = await stack.enter_async_context(ChatApi(address))
    if await api.is_there():
        return api
    if url is not None:
        raise ChatFailed(f"No Yral AI Chat answers at {api.url}. Is it running, and is this its address?")
    try:
        resources = await stack.enter_async_context(serving_here(settings))
    except DatabaseInUse as error:
        raise ChatFailed(
            f"The database is in use: by another chat, or by a server that is not at {address}. "
            "End that chat, or say where the server is: yral-chat chat --url http://…"
        ) from error
    except ValueError as error:
        raise ChatFailed(str(error)) from error
    except OSError as error:
        raise ChatFailed(f"{error.filename or settings.data_dir}: {error.strerror or error}") from error
    if not is_quiet:
        screen.hint(f"No server runs at {address}, so this chat brings its own.")
    return await stack.enter_async_context(ChatApi(f"http://127.0.0.1:{resources.settings.port}"))


async def _own_token(api: ChatApi, settings: Settings, user_id: str) -> str:
    """A development token: of the server where it gives them, else made with the secret that lies here."""
    try:
        return await api.get_dev_token(user_id)
    except Refused as error:
        if error.status != 404:
            raise
    try:
        secret = load_dev_secret(settings)
    except (OSError, ValueError) as error:
        raise ChatFailed(str(error)) from error
    if secret is None:
        raise ChatFailed("This service issues no tokens itself. Give one of its issuers': --token, or YRAL_CHAT_TOKEN.")
    return issue_dev_token(secret, settings.auth_dev_issuer, user_id, TOKEN_SECONDS)[0]


def _sendable(token: str) -> str:
    token = token.strip()
    if not (token.isascii() and token.isprintable()):
        raise ChatFailed(
            "The token has a character that no token has; a line break, perhaps, from where it was copied."
        )
    return token


def _advised(error: ChatApiError) -> str:
    if isinstance(error, Refused) and error.status == 401:
        return f"The service refuses the token: {error} Give one with --token, or in YRAL_CHAT_TOKEN."
    return str(error)


# --- who


def find_influencer(influencers: Sequence[Json], wanted: str) -> Json:
    """The one whose name or id is `wanted`, in any case, or begins so. Raises ChatFailed with the names there are."""
    key = wanted.strip().casefold()
    exact = [one for one in influencers if key in _names(one)]
    close = [one for one in influencers if any(name.startswith(key) for name in _names(one))] if key else []
    found = exact or close
    if len(found) == 1:
        return found[0]
    names = ", ".join(sorted(one["name"] for one in found or influencers))
    if found:
        raise ChatFailed(f"{wanted} could be {names}. Type more of the name.")
    raise ChatFailed(f"Nobody here is called {wanted}. There are: {names or 'no personas at all'}.")


def _names(influencer: Json) -> tuple[str, ...]:
    return tuple(str(influencer[field]).casefold() for field in ("name", "id", "display_name"))


async def _choose(api: ChatApi, screen: "Screen", persona: str | None) -> Json | None:
    """The persona that was named, or that is chosen from a list; None when the input ends before."""
    influencers = await api.list_influencers()
    if persona is not None:
        return find_influencer(influencers, persona)
    for line in _table(influencers, screen.width):
        screen.say(line)
    while (answer := await screen.ask("Who? Number or name: ")) is not None:
        if not answer:
            continue
        if answer.isascii() and answer.isdigit() and 1 <= int(answer) <= len(influencers):
            return influencers[int(answer) - 1]
        try:
            return find_influencer(influencers, answer)
        except ChatFailed as error:
            screen.warn(str(error))
    return None


def _table(influencers: Sequence[Json], width: int) -> Iterator[str]:
    """One line each: number, name, display name, category, and as much of the description as fits."""
    rows = [
        (str(number), one["name"], one["display_name"], one["category"], " ".join(one["description"].split()))
        for number, one in enumerate(influencers, 1)
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    for number, *cells, description in rows:
        padded = (cell.ljust(room) for cell, room in zip(cells, widths[1:], strict=True))
        yield _shortened("  ".join((number.rjust(widths[0]), *padded, description)), width)


def _shortened(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 1].rstrip()}…"


# --- what


async def _say_once(api: ChatApi, screen: "Screen", persona: str | None, message: str) -> None:
    """The reply alone on standard output, so that it can be piped on."""
    influencers = await api.list_influencers()
    if persona is None:
        names = ", ".join(sorted(one["name"] for one in influencers))
        raise ChatFailed(f"Say to whom: yral-chat chat NAME -m … with one of {names}.")
    influencer = find_influencer(influencers, persona)
    opened = await api.open_conversation(influencer["id"])
    reply = Reply(api, screen, opened["id"])
    await reply.follow(api.send(opened["id"], message, new_id()))
    if reply.failure:
        raise ChatFailed(reply.failure)


async def _converse(api: ChatApi, screen: "Screen", persona: str | None) -> None:
    influencer = await _choose(api, screen, persona)
    if influencer is None:
        screen.say("")
        return
    conversation = Conversation(api, screen, influencer)
    await conversation.open()
    while (line := await screen.ask(YOU)) is not None:
        if line == "/quit":
            break
        try:
            await conversation.take(line)
        except ChatApiError as error:
            screen.warn(f"{_advised(error)} {conversation.way_on}")


class Reply:
    """One reply on its way to the screen. Ctrl-C stops it; a second one ends the program."""

    def __init__(self, api: ChatApi, screen: "Screen", conversation_id: str, label: str = "") -> None:
        self.id = ""
        self.failure = ""  # a sentence, when it did not come to its end
        self.is_retryable = False
        self._api = api
        self._screen = screen
        self._conversation_id = conversation_id
        self._label = label
        self._has_text = False
        self._is_stopping = False
        self._cancelling: asyncio.Task[None] | None = None

    async def follow(self, events: AsyncGenerator[ReplyEvent, None]) -> None:
        """Writes the reply as it comes. Raises ChatApiError."""
        self._screen.write_label(self._label)
        try:
            async with aclosing(events):
                with self._screen.taking_ctrl_c(self._stop):
                    async for event in events:
                        self._take(event)
        finally:
            if self._label or self._has_text:
                self._screen.say("")
            await self._settle()

    def _take(self, event: ReplyEvent) -> None:
        match event:
            case Started():
                self._start(event.reply_id)
            case Piece():
                self._has_text = True
                self._screen.write(event.text)
            case Failed():
                self.failure, self.is_retryable = event.message, event.is_retryable
            case Done():
                pass  # its text stands there

    def _start(self, reply_id: str) -> None:
        self.id = reply_id
        if self._has_text:
            self._has_text = False
            self._screen.say("")
            self._screen.hint("The service restarted; the reply begins anew.")
            self._screen.write_label(self._label)
        if self._is_stopping:
            self._cancel()

    def _stop(self) -> None:
        if self._is_stopping:
            self._screen.end()
        self._is_stopping = True
        if self.id:
            self._cancel()

    def _cancel(self) -> None:
        if self._cancelling is None:
            self._cancelling = asyncio.create_task(self._api.cancel(self._conversation_id, self.id))

    async def _settle(self) -> None:
        if self._cancelling is None:
            return
        if self._screen.is_ended:  # nobody waits for an answer any more
            self._cancelling.cancel()
        else:
            with suppress(ChatApiError):  # the reply was faster, or its stream has told what is wrong
                await self._cancelling


class Conversation:
    """What somebody types becomes messages and commands."""

    def __init__(self, api: ChatApi, screen: "Screen", influencer: Json) -> None:
        self._api = api
        self._screen = screen
        self._influencer = influencer
        self._id = ""
        self._reply_id = ""  # of the newest reply, which can be written anew
        self._unsent: tuple[str, str] | None = None  # text and key of a message that perhaps did not arrive

    @property
    def way_on(self) -> str:
        return "/again tries again." if self._unsent or self._reply_id else ""

    async def open(self) -> None:
        """Shows where the conversation stands: greeting and suggestions, or the last that was said."""
        opened = await self._api.open_conversation(self._influencer["id"])
        self._id = opened["id"]
        messages = opened["recent_messages"][::-1]
        replies = [message["id"] for message in messages if message["origin"] == "model"]
        self._reply_id = replies[-1] if replies else ""
        self._unsent = None
        if len(messages) > SHOWN_MESSAGES:
            self._screen.hint(f"You have talked before; here is the end of it. /new begins anew, {HELP_HINT}")
        else:
            self._screen.hint(f"Write a message and press Enter; {HELP_HINT}")
        for message in messages[-SHOWN_MESSAGES:]:
            self._show(message)
        if opened["message_count"] <= 1 and (suggestions := opened["influencer"]["suggested_messages"]):
            self._screen.hint(f"You could say: {' · '.join(suggestions)}")

    async def take(self, line: str) -> None:
        """Does what `line` asks for. Raises ChatApiError."""
        match line:
            case "":
                pass
            case "/help":
                self._screen.say(HELP)
            case "/new":
                await self._begin_anew()
            case "/again":
                await self._again()
            case command if command.startswith("/"):
                self._screen.warn(f"There is no command {command.split()[0]}; {HELP_HINT}")
            case _:
                await self._send(line, new_id())

    async def _begin_anew(self) -> None:
        with suppress(ServiceUnreachable):  # `open` will say so
            try:
                await self._api.delete_conversation(self._id)
            except Refused as error:
                if error.status != 404:  # deleted elsewhere
                    raise
        await self.open()

    async def _again(self) -> None:
        if self._unsent is not None:
            await self._send(*self._unsent)
        elif self._reply_id:
            await self._follow(lambda: self._api.regenerate(self._id, self._reply_id))
        else:
            self._screen.warn("There is no reply yet.")

    async def _send(self, text: str, key: str) -> None:
        self._unsent = text, key
        await self._follow(lambda: self._api.send(self._id, text, key))

    async def _follow(self, begin: Callable[[], AsyncGenerator[ReplyEvent, None]]) -> None:
        reply = Reply(self._api, self._screen, self._id, self._label)
        try:
            await reply.follow(begin())
        finally:
            if reply.id:
                self._reply_id, self._unsent = reply.id, None
        if reply.failure:
            self._screen.warn(f"{reply.failure} {self.way_on if reply.is_retryable else ''}")

    @property
    def _label(self) -> str:
        return f"{self._influencer['display_name']}: "

    def _show(self, message: Json) -> None:
        self._screen.write_label(YOU if message["role"] == "user" else self._label)
        self._screen.say(message["content"])


# --- the terminal


class Screen:
    """Standard input, line by line, and standard output. Works as well when neither is a terminal.

    Everything that is written loses its control characters: a model's words must not steer the terminal.
    """

    def __init__(self) -> None:
        self.is_ended = False
        self.width = shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns if sys.stdout.isatty() else DEFAULT_WIDTH
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal may not know every character
        has_input = sys.stdin is not None  # it may be closed
        self._lines = Lines(sys.stdin.fileno() if has_input else -1)
        self._is_dialogue = has_input and sys.stdin.isatty()
        self._is_styled = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._on_ctrl_c: Callable[[], None] = self.end
        self._main = asyncio.current_task()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Takes Ctrl-C: whoever waits for something decides what it means, else it ends the program."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, lambda: self._on_ctrl_c())
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            if self.is_ended:  # what is left is the way out
                signal.signal(signal.SIGINT, signal.SIG_IGN)

    @contextmanager
    def taking_ctrl_c(self, action: Callable[[], None]) -> Iterator[None]:
        self._on_ctrl_c = action
        try:
            yield
        finally:
            self._on_ctrl_c = self.end

    def end(self) -> None:
        """Ends the program by way of everything that has to be closed; once, however often Ctrl-C is struck."""
        if self._main is not None and not self.is_ended:
            self._main.cancel()
        self.is_ended = True

    async def ask(self, question: str) -> str | None:
        """The next line, trimmed; None at the end of the input and at Ctrl-C."""
        if self._is_dialogue:
            self.write_label(question)
        struck = asyncio.Event()
        line = asyncio.create_task(self._lines.read())
        interrupt = asyncio.create_task(struck.wait())
        with self.taking_ctrl_c(struck.set):
            await asyncio.wait((line, interrupt), return_when=asyncio.FIRST_COMPLETED)
        answer = line.result() if line.done() else None
        line.cancel()
        interrupt.cancel()
        if answer is None and self._is_dialogue:
            self.say("")
        return answer

    def write(self, text: str) -> None:
        sys.stdout.write(printable(text))
        sys.stdout.flush()

    def say(self, text: str) -> None:
        self.write(f"{text}\n")

    def warn(self, text: str) -> None:
        self.say(f"× {text.strip()}")

    def hint(self, text: str) -> None:
        self._write_styled("2", text)
        self.write("\n")

    def write_label(self, text: str) -> None:
        self._write_styled("1", text)

    def _write_styled(self, style: str, text: str) -> None:
        sys.stdout.write(f"\x1b[{style}m{printable(text)}\x1b[0m" if self._is_styled else printable(text))
        sys.stdout.flush()


def printable(text: str) -> str:
    """`text` without control characters, except for tabs and ends of lines."""
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) != "Cc")


class Lines:
    """Lines of a file descriptor, which may be a terminal, a pipe or a file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        self._is_at_end = False

    async def read(self) -> str | None:
        """The next line, trimmed; None after the last one."""
        while b"\n" not in self._rest and not self._is_at_end:
            data = await self._read_some()
            self._rest += data
            self._is_at_end = not data
        if not self._rest:
            return None
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode("utf-8", "replace").strip()

    async def _read_some(self) -> bytes:
        """On a daemon thread: nothing can interrupt a read of a terminal, and the program must not wait for it."""
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[bytes] = loop.create_future()

        def read() -> None:
            try:
                data = os.read(self._descriptor, 65536)
            except OSError:
                data = b""  # a terminal that is gone
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(_deliver, arrived, data)

        threading.Thread(target=read, name="input", daemon=True).start()
        return await arrived


def _deliver(arrived: "asyncio.Future[bytes]", data: bytes) -> None:
    if not arrived.done():
        arrived.set_result(data)
