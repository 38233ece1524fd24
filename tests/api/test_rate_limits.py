"""How often somebody may ask, through the wire: contract section 4. One service with small limits, behind a proxy."""

import asyncio
import itertools
import json
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.api.expecting import refused
from tests.api.sockets import address, closing, socket_at
from tests.client import PLAIN, Api, Document, messages
from tests.service import FakeModel, Service, token
from yral_chat.clients.chat_api import ChatApi, Refused

# An hour, so that no bucket refills however slowly a test runs.
LIMIT = 6
LIGHT = 9
ME = "/api/v1/auth/me"
PERSONAS = "/api/v1/influencers"
HEADERS = {
    "x-ratelimit-limit-minute", "x-ratelimit-limit-hour", "x-ratelimit-remaining-minute", "x-ratelimit-remaining-hour",
    "ratelimit-policy", "ratelimit",
}  # fmt: skip
ADDRESSES = (f"203.0.113.{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory, model_process: FakeModel) -> Iterator[Service]:
    """Six an hour, and this test is its proxy. Which database there is makes no difference."""
    settings = {
        "ENVIRONMENT": "development",
        "RATE_LIMIT_ENABLED": "true",
        "RATE_LIMIT_PER_HOUR": str(LIMIT),
        "RATE_LIMIT_LIGHT_PER_HOUR": str(LIGHT),
        "TRUSTED_PROXIES": "127.0.0.1/32,10.0.0.0/8",
        "ADMIN_API_KEY": "an-admin-key",
        "CORS_ORIGINS": "https://page.example",
    }
    with Service(tmp_path_factory.mktemp("limited"), **settings, **model_process.settings) as running:
        yield running


@pytest.fixture(scope="module")
def document(limited: Service) -> Document:
    return Document.of(limited)


class Guest:
    """Somebody at an address of his own."""

    def __init__(self, service: Service, http: httpx2.AsyncClient) -> None:
        self.service = service
        self.http = http

    async def get(self, path: str, user_id: str | None = None, **headers: str) -> httpx2.Response:
        if user_id is not None:
            headers["Authorization"] = f"Bearer {token(user_id)}"
        return await self.http.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    async def statuses(self, count: int, path: str, user_id: str | None = None, **headers: str) -> list[int]:
        return [(await self.get(path, user_id, **headers)).status_code for _ in range(count)]


@asynccontextmanager
async def guest_of(service: Service, came_from: str | None = None) -> AsyncIterator[Guest]:
    headers = {"X-Forwarded-For": came_from or next(ADDRESSES)}
    async with httpx2.AsyncClient(base_url=service.url, headers=headers, verify=PLAIN, timeout=30) as http:
        yield Guest(service, http)


@pytest.fixture
async def guest(limited: Service) -> AsyncIterator[Guest]:
    async with guest_of(limited) as guest:
        yield guest


@pytest.fixture
def user() -> str:
    return f"user-{uuid.uuid4()}"


def is_over(response: httpx2.Response, limit_type: str = "per_hour", limit: int = LIMIT) -> None:
    """The response must be the refusal of contract section 4."""
    error = refused(response, 429, "rate_limit_exceeded")
    wait = error["details"]["retry_after"]
    assert error["details"] == {"limit_type": limit_type, "limit": limit, "retry_after": wait}
    assert isinstance(wait, int)
    assert wait >= 1
    assert response.headers["retry-after"] == str(wait)
    assert response.headers.keys() >= HEADERS


# --- what is counted


async def test_every_answer_tells_what_is_left(guest: Guest, user: str) -> None:
    for used in range(1, LIMIT + 1):
        response = await guest.get(ME, user)
        assert response.status_code == 200
        headers = response.headers
        assert headers["x-ratelimit-limit-minute"] == "60"
        assert headers["x-ratelimit-limit-hour"] == str(LIMIT)
        assert 60 - used <= int(headers["x-ratelimit-remaining-minute"]) <= 59
        assert headers["x-ratelimit-remaining-hour"] == str(LIMIT - used)
        assert headers["ratelimit-policy"] == f'"minute";q=60;w=60, "hour";q={LIMIT};w=3600'
        told = re.fullmatch(r'"minute";r=(\d+);t=(\d+), "hour";r=(\d+);t=(\d+)', headers["ratelimit"])
        assert told is not None
        assert told[1] == headers["x-ratelimit-remaining-minute"]
        assert 1 <= int(told[2]) <= used
        assert int(told[3]) == LIMIT - used
        assert 1 <= int(told[4]) <= 600 * used
    refusal = await guest.get(ME, user)
    is_over(refusal)
    assert refusal.headers["x-ratelimit-remaining-hour"] == "0"


async def test_fifty_at_once_get_exactly_as_many_as_the_limit(limited: Service, user: str) -> None:
    async with guest_of(limited) as guest:
        answers = await asyncio.gather(*(guest.get(ME, user) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * LIMIT + [429] * (50 - LIMIT)


async def test_a_user_is_the_same_at_every_address_and_nobody_else(limited: Service, user: str) -> None:
    async with guest_of(limited) as home, guest_of(limited) as office:
        assert await home.statuses(LIMIT - 1, ME, user) == [200] * (LIMIT - 1)
        assert await office.statuses(2, ME, user) == [200, 429]
        assert await home.statuses(1, ME, user) == [429]
        assert await home.statuses(1, ME, f"{user}-sister") == [200]
        assert await home.statuses(1, PERSONAS) == [200]


async def test_strangers_are_counted_by_their_address(limited: Service) -> None:
    network = f"2001:db8:{uuid.uuid4().hex[:4]}:1"
    async with guest_of(limited, f"{network}::1") as guest, guest_of(limited, f"[{network}::2]:443") as neighbour:
        assert await guest.statuses(LIMIT, PERSONAS) == [200] * LIMIT
        is_over(await guest.get(PERSONAS))
        is_over(await neighbour.get(PERSONAS))
    async with guest_of(limited) as other:
        assert await other.statuses(1, PERSONAS) == [200]


async def test_what_the_client_says_of_his_address_does_not_count(limited: Service) -> None:
    real = next(ADDRESSES)
    for spoofed in range(LIMIT):
        async with guest_of(limited, f"198.51.100.{spoofed}, {real}, 10.0.0.1") as guest:
            assert await guest.statuses(1, PERSONAS) == [200]
    async with guest_of(limited, f"198.51.100.99, {real}") as guest:
        is_over(await guest.get(PERSONAS))


@pytest.mark.parametrize("path", [ME, PERSONAS, "/v1/models", "/api/v1/nowhere", "/api", "/v1/nowhere"])
async def test_failed_sign_ins_count_on_the_address_whatever_they_bring(guest: Guest, user: str, path: str) -> None:
    for number in range(LIMIT):
        forged = token(f"victim-{number}", secret="another-secret-of-more-than-32-bytes!")
        assert (await guest.get(path, Authorization=f"Bearer {forged}")).status_code in (200, 401, 404)
    is_over(await guest.get(path, Authorization=f"Bearer {token('victim', ttl_seconds=-100)}"))
    is_over(await guest.get(path, Authorization="Basic abc"))
    is_over(await guest.get(path))
    # Who is signed in at the same address has his own.
    assert (await guest.get(ME, user)).status_code == 200


async def test_the_texts_of_401_are_as_without_limits(guest: Guest) -> None:
    for header, message in (
        ("Bearer", "Invalid authorization header format. Expected: Bearer <token>"),
        ("Bearer x", "Invalid token format"),
        (f"Bearer {token('me', ttl_seconds=-100)}", "Token has expired"),
        (f"Bearer {token('me', secret='another-secret-of-more-than-32-bytes!')}", "Invalid token signature"),
    ):
        response = await guest.get(ME, Authorization=header)
        assert refused(response, 401, "unauthorized")["message"] == message
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.headers.keys() >= HEADERS
    assert refused(await guest.get(ME), 401, "unauthorized")["message"] == "Missing authorization header"


async def test_admin_keys_cannot_be_guessed_with_many_accounts(guest: Guest) -> None:
    path = "/api/v1/admin/influencers/nobody/unban"
    for number in range(LIMIT):
        headers = {"X-Admin-Key": f"guess-{number}", "Authorization": f"Bearer {token(f'account-{number}')}"}
        refused(await guest.http.post(path, headers=headers), 401, "unauthorized")
    is_over(await guest.http.post(path, headers={"X-Admin-Key": "an-admin-key"}))


async def test_unknown_paths_wrong_methods_and_bad_input_count(guest: Guest, user: str) -> None:
    signed = {"Authorization": f"Bearer {token(user)}"}
    answers = [
        await guest.http.get("/api/v1/nowhere", headers=signed),
        await guest.http.patch(ME, headers=signed),
        await guest.http.post("/api/v1/chat/conversations", json={}, headers=signed),
        await guest.http.get(f"{PERSONAS}/nobody", headers=signed),
        await guest.http.head(PERSONAS, headers=signed),
        await guest.http.options(ME, headers=signed),
    ]
    assert [answer.status_code for answer in answers] == [404, 405, 422, 404, 200, 405]
    assert [answer.headers["x-ratelimit-remaining-hour"] for answer in answers] == ["5", "4", "3", "2", "1", "0"]
    head = await guest.http.head(PERSONAS, headers=signed)
    assert (head.status_code, head.content) == (429, b"")
    is_over(await guest.http.get("/api/v1/nowhere", headers=signed))


async def test_what_clients_poll_has_larger_buckets_of_its_own(guest: Guest, user: str) -> None:
    paths = [
        "/api/v2/chat/conversations/search?query=x",
        "/api/v2/discovery/search?q=x",
        "/api/v1/creator/conversations/c/human-creator-takeover-status",
        "/api/v1/creator/conversations/c/messages",
    ]
    answers = [await guest.get(path, user) for path in itertools.islice(itertools.cycle(paths), LIGHT)]
    assert 429 not in [answer.status_code for answer in answers]
    assert [answer.headers["x-ratelimit-limit-hour"] for answer in answers] == [str(LIGHT)] * LIGHT
    assert {answer.headers["x-ratelimit-limit-minute"] for answer in answers} == {"300"}
    is_over(await guest.get(paths[0], user), limit=LIGHT)
    assert await guest.statuses(1, ME, user) == [200]
    taken_over = await guest.http.post(
        "/api/v1/creator/conversations/c/human-creator-messages", headers={"Authorization": f"Bearer {token(user)}"}
    )
    assert taken_over.headers["x-ratelimit-limit-hour"] == str(LIMIT)


async def test_service_routes_are_not_counted(guest: Guest) -> None:
    free = ("/", "/health", "/health/live", "/health/ready", "/status", "/metrics", "/docs", "/openapi.json",
            "/api/v1/chat/ws/docs", "/media/nothing", "/media/public/nothing", "/v1x", "/apis")  # fmt: skip
    for path in free:
        for answer in [await guest.get(path) for _ in range(LIMIT + 1)]:
            assert answer.status_code in (200, 403, 404), path
            assert HEADERS.isdisjoint(answer.headers), path
    assert await guest.statuses(1, PERSONAS) == [200]


async def test_preflights_are_not_counted_and_pages_may_read_the_headers(guest: Guest) -> None:
    page = "https://page.example"
    for _ in range(LIMIT + 1):
        answer = await guest.http.options(ME, headers={"Origin": page, "Access-Control-Request-Method": "GET"})
        assert answer.status_code == 200
    for status in [401] * LIMIT + [429]:
        response = await guest.get(ME, Origin=page)
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == page
        exposed = {name.strip().lower() for name in response.headers["access-control-expose-headers"].split(",")}
        assert exposed >= HEADERS | {"retry-after"}


# --- what is refused is not begun


async def test_a_refused_body_is_not_read(limited: Service, guest: Guest, user: str) -> None:
    await guest.statuses(LIMIT, ME, user)
    host, port = limited.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST /api/v1/media/upload HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token(user)}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n".encode()
    )
    assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 429")
    writer.close()
    await writer.wait_closed()


async def test_a_refused_message_is_not_stored(
    limited: Service, document: Document, model: FakeModel, user: str
) -> None:
    api = Api(limited.url, document, user)
    conversation = await api.open()
    # Two were for the list and the conversation.
    answers = [await api.send(conversation["id"], f"Message {number}") for number in range(LIMIT - 1)]
    assert [answer.status_code for answer in answers] == [200] * (LIMIT - 2) + [429]
    is_over(answers[-1])
    assert model.state()["requests"] == LIMIT - 2
    await api.close()


async def test_the_terminal_says_for_how_long(limited: Service, user: str) -> None:
    async with ChatApi(limited.url, token(user)) as chat:
        for _ in range(LIMIT):
            await chat.list_influencers()
        with pytest.raises(Refused, match=r"^Too many requests\. Please slow down\. Try again in \d+ s\.$"):
            await chat.list_influencers()


async def test_a_stream_has_the_headers_and_a_refused_one_is_no_stream(
    limited: Service, document: Document, model: FakeModel, user: str
) -> None:
    api = Api(limited.url, document, user)
    conversation = await api.open()
    body = {"message_type": "text", "content": "Hello"}
    for left in range(LIMIT - 3, -1, -1):
        async with api.streaming("POST", f"{messages(conversation['id'])}/stream", body) as (response, events):
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["x-ratelimit-remaining-hour"] == str(left)
            assert [event.event async for event in events][-1] == "done"
    is_over(await api.post(f"{messages(conversation['id'])}/stream", body))
    await api.close()


# --- sockets


async def test_a_socket_over_the_limit_is_accepted_and_closed(limited: Service, guest: Guest, user: str) -> None:
    where = address(limited.url, user)
    async with socket_at(where, "bearer", token(user)) as socket:
        assert socket.response is not None
        assert socket.response.headers["X-RateLimit-Remaining-Hour"] == str(LIMIT - 1)
    assert await guest.statuses(LIMIT - 1, ME, user) == [200] * (LIMIT - 1)
    for offered, query in ((("bearer", token(user)), {}), ((), {"token": token(user)})):
        async with socket_at(address(limited.url, user, **query), *offered) as socket:
            assert socket.subprotocol == ("bearer" if offered else None)
            code, reason = await closing(socket)
        assert code == 4029
        assert re.fullmatch(r"Too many requests\. Please slow down\. Try again in \d+ s\.", reason)


async def test_sockets_without_a_good_token_count_on_the_address(limited: Service) -> None:
    headers = {"X-Forwarded-For": next(ADDRESSES)}
    codes = []
    for number in range(LIMIT + 1):
        where = address(limited.url, "me", **({"token": f"x.{number}.z"} if number % 2 else {}))
        async with socket_at(where, additional_headers=headers) as socket:
            codes.append((await closing(socket))[0])
    assert codes == [4001] * LIMIT + [4029]
    async with guest_of(limited, headers["X-Forwarded-For"]) as guest:
        is_over(await guest.get(PERSONAS))


# --- what the operator sees and sets


async def refusals(guest: Guest) -> float:
    series = (await guest.get("/metrics")).text
    found = re.search(r'^rate_limit_exceeded_total\{limit_type="per_hour"\} (\S+)$', series, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def test_refusals_are_a_metric(guest: Guest, user: str) -> None:
    before = await refusals(guest)
    await guest.statuses(LIMIT + 3, ME, user)
    assert await refusals(guest) == before + 3


def test_every_limited_route_documents_its_refusal(document: Document) -> None:
    for path, operations in document.document["paths"].items():
        is_limited = path.startswith(("/api/", "/v1/")) and path != "/api/v1/chat/ws/docs"
        for method, operation in operations.items():
            may_refuse = is_limited or path in ("/status", "/metrics")  # these two, after wrong keys
            assert ("429" in operation["responses"]) == may_refuse, (method, path)
            if is_limited:
                assert operation["responses"]["429"]["headers"].keys() == {"Retry-After"}, (method, path)


# --- in production, without a proxy


class Issuer:
    """An issuer whose public key the service knows."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        pem = self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        self.setting = json.dumps([{"issuer": "https://auth.example", "public_keys": [pem]}])

    def header(self, user_id: str) -> str:
        claims = {"iss": "https://auth.example", "sub": user_id, "exp": 4_000_000_000}
        return f"Bearer {jwt.encode(claims, self._key, algorithm='EdDSA')}"


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Service]:
    """One a minute."""
    settings = {
        "ENVIRONMENT": "production",
        "AUTH_DEV_SECRET": None,
        "AUTH_ISSUERS": issuer.setting,
        "ALLOW_OFFLINE_MODEL": "true",
        "MEDIA_SIGNING_KEY": "a-key-for-media-of-more-than-32-bytes",
        "METRICS_TOKEN": "metrics-secret",
        "ADMIN_API_KEY": "admin-secret",
        "RATE_LIMIT_ENABLED": None,
        "RATE_LIMIT_PER_MINUTE": "1",
    }
    with Service(Path(tmp_path_factory.mktemp("guarded")), **settings) as running:
        yield running


async def test_it_is_on_unless_switched_off_and_the_minute_counts_too(guarded: Service, issuer: Issuer) -> None:
    async with guest_of(guarded) as guest:
        signed = issuer.header("somebody")
        assert await guest.statuses(1, ME, Authorization=signed) == [200]
        refusal = await guest.get(ME, Authorization=signed)
    is_over(refusal, "per_minute", 1)
    assert int(refusal.headers["retry-after"]) <= 60
    # The hour's bucket was not charged for it.
    assert refusal.headers["x-ratelimit-remaining-hour"] == "999"


async def test_nobody_is_believed_without_trusted_proxies(guarded: Service) -> None:
    async with guest_of(guarded) as guest, guest_of(guarded) as other:
        assert await guest.statuses(1, PERSONAS) == [200]
        is_over(await other.get(PERSONAS), "per_minute", 1)


async def test_the_keys_to_the_figures_cannot_be_guessed_without_end(guarded: Service) -> None:
    async with guest_of(guarded) as guest:
        # Neither who comes without a key nor who has the right one is counted.
        assert await guest.statuses(5, "/metrics") == [401] * 5
        assert await guest.statuses(5, "/metrics", Authorization="Bearer metrics-secret") == [200] * 5
        assert await guest.statuses(1, "/status", X_Admin_Key="a-guess") == [401]
        for path in ("/status", "/metrics"):
            refused(await guest.get(path, X_Admin_Key="admin-secret"), 429, "rate_limit_exceeded")
            refused(await guest.get(path, Authorization="Bearer metrics-secret"), 429, "rate_limit_exceeded")
