"""The table: every route with the kind of caller that it is for, and a good request."""

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.api.access.callers import CALLERS, PEOPLE
from tests.api.access.world import World
from tests.api.creating import INSTRUCTIONS, persona
from tests.files import picture
from tests.services.cards import encoded, v3

C = "/api/v1/chat/conversations/{conversation_id}"
M = f"{C}/messages"
H = "/api/v1/chat/human/conversations"
P = "/api/v1/influencers"
A = "/api/v1/admin"
INBOX = "/api/v1/chat/ws/inbox/{user_id}"

# Who gets what from a route of this kind; whoever is not named is refused with 401.
ALL = dict.fromkeys(CALLERS, "ok")
REFUSED = dict.fromkeys(CALLERS, "401")
NOT_YOURS = REFUSED | dict.fromkeys(PEOPLE, "403")
OPEN = OPTIONAL = ALL  # on the latter a bad token counts as none
SIGNED_IN = REFUSED | dict.fromkeys(PEOPLE, "ok")
USER = NOT_YOURS | {"user": "ok"}
READER = USER | {"bot owner": "ok"}
PAIR = USER | {"peer": "ok"}
OWNER = NOT_YOURS | {"bot owner": "ok"}
ADMIN = REFUSED | {"admin": "ok"}
OPERATOR = ADMIN | {"scraper": "ok"}
SIGNED_ADDRESS = dict.fromkeys(CALLERS, "403")
# Of the WebSocket: the code with which it is closed.
OWN_SOCKET = dict.fromkeys(CALLERS, "4001") | dict.fromkeys(PEOPLE, "4003") | {"user": "ok"}


class Route(NamedTuple):
    """`request` makes the arguments of a request that would be good; `ok` is the status of its good answer."""

    method: str
    path: str
    access: dict[str, str]
    ok: int = 200
    request: Callable[[World], dict[str, Any]] = lambda _: {}
    is_human: bool = False  # the conversation is the one between people

    def address(self, world: World) -> str:
        names: dict[str, Callable[[], str]] = {
            "{conversation_id}": lambda: world.human_conversation if self.is_human else world.conversation,
            "{message_id}": lambda: world.reply,
            "{key}": lambda: world.memory,
            "{influencer_id}": lambda: world.bot,
            "{id_or_name}": lambda: world.bot,
            "{user_id}": lambda: world.ids["user"],
            "{n}": lambda: "1",
            "{path}": lambda: "chat/main.js" if self.path == "/static/{path}" else "leelaonlove.webp",
        }
        path = self.path
        for name, value in names.items():
            if name in path:
                path = path.replace(name, value())
        return path

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}{' (people)' if self.is_human else ''}"


def sends(body: dict[str, Any]) -> Callable[[World], dict[str, Any]]:
    return lambda _: {"json": body}


def _says(_: World) -> dict[str, Any]:
    return {"json": {"message_type": "text", "content": "Hello"}}


def _completes(world: World) -> dict[str, Any]:
    return {"json": {"model": world.bot, "messages": [{"role": "user", "content": "Hello"}]}}


def _completes_there(world: World) -> dict[str, Any]:
    return {"json": _completes(world)["json"] | {"metadata": {"conversation_id": world.conversation}}}


def _as_bot(world: World) -> dict[str, Any]:
    return {"params": {"principal": world.bot}}


def _uploads(_: World) -> dict[str, Any]:
    return {"data": {"type": "image"}, "files": {"file": ("x", picture())}}


def _imports(_: World) -> dict[str, Any]:
    return {"files": {"file": ("card.json", encoded(v3(name="Mira")))}}


def _creates(_: World) -> dict[str, Any]:
    return {"json": persona()}


ROUTES = (
    Route("GET", "/", OPEN),
    Route("GET", "/health", OPEN),
    Route("GET", "/health/live", OPEN),
    Route("GET", "/health/ready", OPEN),
    Route("GET", "/openapi.json", OPEN),
    Route("GET", "/docs", OPEN),
    Route("GET", "/redoc", OPEN),
    Route("GET", "/favicon.ico", OPEN),
    Route("GET", "/favicon.svg", OPEN),
    Route("GET", "/static/{path}", OPEN),
    Route("GET", "/static/personas/{path}", OPEN),
    Route("GET", "/status", OPERATOR),
    Route("GET", "/metrics", OPERATOR),
    Route("GET", "/api/v1/auth/me", SIGNED_IN),
    Route("POST", "/api/v1/auth/dev-token", OPEN, 404, sends({"user_id": "somebody"})),
    # conversations
    Route("POST", "/api/v1/chat/conversations", SIGNED_IN, 201, lambda world: {"json": {"influencer_id": world.bot}}),
    Route("GET", "/api/v1/chat/conversations", SIGNED_IN),
    Route("GET", "/api/v2/chat/conversations", SIGNED_IN),
    Route("GET", "/api/v2/chat/conversations", OWNER, request=_as_bot),
    Route("GET", "/api/v3/chat/conversations", SIGNED_IN),
    Route("GET", C, READER),
    Route("GET", C, PAIR, is_human=True),
    Route("DELETE", C, USER),
    Route("DELETE", C, PAIR, is_human=True),
    Route("POST", f"{C}/read", READER),
    Route("POST", f"{C}/read", PAIR, is_human=True),
    # messages
    Route("GET", M, READER),
    Route("GET", M, PAIR, is_human=True),
    Route("POST", M, USER, 200, _says),
    Route("POST", M, PAIR, 200, _says, is_human=True),
    Route("POST", f"{M}/stream", USER, 200, _says),
    Route("GET", f"{M}/{{message_id}}/stream", READER),
    Route("POST", f"{M}/{{message_id}}/regenerate", USER),
    Route("POST", f"{M}/{{message_id}}/cancel", USER),
    Route("POST", f"{C}/images", USER, 201, sends({"prompt": "a boat"})),
    Route("GET", f"{C}/memories", USER),
    Route("DELETE", f"{C}/memories", USER),
    Route("DELETE", f"{C}/memories/{{key}}", USER),
    # people
    Route("GET", H, SIGNED_IN),
    Route("POST", H, SIGNED_IN, 201, sends({"participant_id": "a-friend"})),
    Route("POST", f"{H}/{{conversation_id}}/messages", PAIR, 200, _says, is_human=True),
    Route("WEBSOCKET", INBOX, OWN_SOCKET),
    Route("GET", "/api/v1/chat/ws/docs", OPEN),
    Route("GET", "/api/v1/users/me/settings", SIGNED_IN),
    Route("PUT", "/api/v1/users/me/settings", SIGNED_IN, 200, sends({"locale": "hi-IN"})),
    Route("GET", "/api/v1/users/me/usage", SIGNED_IN),
    Route("GET", "/api/v1/users/me/export", SIGNED_IN),
    Route("DELETE", "/api/v1/users/me", SIGNED_IN),
    # files
    Route("POST", "/api/v1/media/upload", SIGNED_IN, 200, _uploads),
    Route("GET", "/media/{key}", SIGNED_ADDRESS),
    Route("GET", "/media/public/{key}", OPEN, 404),
    # personas
    Route("GET", P, OPTIONAL),
    Route("GET", f"{P}/trending", OPTIONAL),
    Route("GET", f"{P}/{{influencer_id}}", OPTIONAL),
    Route("POST", f"{P}/generate-prompt", SIGNED_IN, 200, sends({"prompt": "a sailor"})),
    # The model of the tests repeats what it was told, which is no answer to two of these: 503 behind the door.
    Route(
        "POST",
        f"{P}/validate-and-generate-metadata",
        SIGNED_IN,
        503,
        sends({"system_instructions": INSTRUCTIONS}),
    ),
    Route("POST", f"{P}/create", SIGNED_IN, 201, _creates),
    Route("POST", f"{P}/import", SIGNED_IN, 201, _imports),
    Route("PATCH", f"{P}/{{influencer_id}}/system-prompt", OWNER, 200, sends({"system_instructions": INSTRUCTIONS})),
    Route("GET", f"{P}/{{influencer_id}}/versions", OWNER),
    Route("POST", f"{P}/{{influencer_id}}/versions/{{n}}/restore", OWNER),
    Route("DELETE", f"{P}/{{influencer_id}}", OWNER),
    Route("POST", f"{P}/{{influencer_id}}/generate-video-prompt", SIGNED_IN, 503, sends({"topic": "the sea"})),
    Route("GET", f"{P}/{{influencer_id}}/card", OWNER),
    # OpenAI's
    Route("GET", "/v1/models", SIGNED_IN),
    Route("POST", "/v1/chat/completions", SIGNED_IN, 200, _completes),
    Route("POST", "/v1/chat/completions", USER, 200, _completes_there),
    # the operator
    Route("POST", f"{A}/influencers/{{id_or_name}}/ban", ADMIN, 200, sends({"reason": "spam"})),
    Route("POST", f"{A}/influencers/{{id_or_name}}/unban", ADMIN),
    Route("POST", f"{A}/influencers/{{id_or_name}}", ADMIN),
    Route("DELETE", f"{A}/influencers/{{id_or_name}}", ADMIN),
    Route("POST", f"{A}/jobs/retry", ADMIN, 200, sends({"id": "no-such-job"})),
    Route("POST", f"{A}/jobs/purge", ADMIN),
    Route("POST", f"{A}/log-level", ADMIN, 200, sends({"reset": True})),
    # There is no copy here, which only those are told who may ask: tests/api/test_restores.py has one.
    Route("POST", f"{A}/restores", ADMIN, 404, sends({"file": "copy.db", "user_id": "somebody"})),
)
