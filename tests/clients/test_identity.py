"""Tokens, from the good one to any garbage, against a real key server on loopback."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from pydantic import SecretStr

from yral_chat.clients.identity import Identity, TokenVerifier, issue_dev_token, load_dev_secret
from yral_chat.core.config import Issuer, Settings
from yral_chat.core.errors import ServiceUnavailable, Unauthorized
from yral_chat.core.ids import UserId

ISSUER = "https://issuer.example"
DEV_ISSUER = "yral-ai-chat-dev"
SECRET = b"0123456789abcdef0123456789abcdef"

RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def jwk(key: PrivateKey, kid: str | None, **more: str) -> dict[str, Any]:
    if isinstance(key, rsa.RSAPrivateKey):
        entry = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        entry = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        entry = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    entry.pop("key_ops", None)
    return {**entry, **({} if kid is None else {"kid": kid}), **more}


def pem(key: PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def token(
    key: Any = RSA_KEY, alg: str = "RS256", headers: dict[str, Any] | None = None, without: str = "", **claims: Any
) -> str:
    body = {"iss": ISSUER, "sub": "user-1", "exp": int(time.time()) + 3600, **claims}
    body.pop(without, None)
    return jwt.encode(body, key, algorithm=alg, headers=headers)


def forged(header: Any, payload: Any, signature: bytes = b"x") -> str:
    parts = (json.dumps(header).encode(), json.dumps(payload).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


class Clock:
    def __init__(self, start: float) -> None:
        self.seconds = start

    def __call__(self) -> float:
        return self.seconds


class KeyServer:
    """An issuer's key server that can be told to fail."""

    def __init__(self) -> None:
        self.keys: list[Any] = [jwk(RSA_KEY, "rsa"), jwk(EC_KEY, "ec"), jwk(ED_KEY, "ed")]
        self.requests = 0
        self.status = 200
        self.body: bytes | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.was_asked = asyncio.Event()
        self.url = ""

    async def answer(self, _: web.Request) -> web.Response:
        self.requests += 1
        self.was_asked.set()
        await self.gate.wait()
        body = self.body if self.body is not None else json.dumps({"keys": self.keys}).encode()
        return web.Response(body=body, status=self.status)


@pytest.fixture
async def server() -> AsyncIterator[KeyServer]:
    keys = KeyServer()
    app = web.Application()
    app.router.add_get("/jwks.json", keys.answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    keys.url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks.json"
    yield keys
    keys.gate.set()
    await runner.cleanup()


def configured(*issuers: Issuer, **more: Any) -> Settings:
    return Settings(_env_file=None, environment="test", auth_issuers=issuers, **more)


def static(**more: Any) -> Settings:
    """One issuer with all three kinds of key, in PEM."""
    return configured(Issuer(issuer=ISSUER, public_keys=(pem(RSA_KEY), pem(EC_KEY), pem(ED_KEY)), **more))


@asynccontextmanager
async def verifying(settings: Settings, secret: bytes | None = None, **clocks: Any) -> AsyncIterator[TokenVerifier]:
    verifier = TokenVerifier(settings, secret, **clocks)
    try:
        yield verifier
    finally:
        await verifier.close()


async def refusal(verifier: TokenVerifier, text: str) -> str:
    with pytest.raises(Unauthorized) as caught:
        await verifier.verify(text)
    assert caught.value.status == 401
    return caught.value.message


async def refused(text: str, settings: Settings | None = None) -> str:
    async with verifying(settings or static()) as verifier:
        return await refusal(verifier, text)


# ---- good tokens


@pytest.mark.parametrize(("alg", "key"), [("RS256", RSA_KEY), ("ES256", EC_KEY), ("EdDSA", ED_KEY)])
@pytest.mark.parametrize("has_kid", [True, False])
async def test_every_algorithm_is_verified_with_keys_of_a_url(
    server: KeyServer, alg: str, key: Any, has_kid: bool
) -> None:
    headers = {"kid": {"RS256": "rsa", "ES256": "ec", "EdDSA": "ed"}[alg]} if has_kid else None
    async with verifying(configured(Issuer(issuer=ISSUER, jwks_url=server.url))) as verifier:
        expires_at = int(time.time()) + 60
        identity = await verifier.verify(token(key, alg, headers, exp=expires_at, ext_is_anonymous=True))
        assert identity == Identity(UserId("user-1"), True, float(expires_at))
        assert server.requests == 1
        assert verifier.status() == "up"


async def test_keys_may_stand_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [jwk(EC_KEY, "a")]}))
    async with verifying(configured(Issuer(issuer=ISSUER, jwks_file=path))) as verifier:
        assert (await verifier.verify(token(EC_KEY, "ES256", {"kid": "a"}))).user_id == "user-1"
        path.write_text(json.dumps({"keys": [jwk(ED_KEY, "b")]}))
        assert (await verifier.verify(token(ED_KEY, "EdDSA", {"kid": "b"}))).user_id == "user-1"


async def test_public_keys_have_no_id_and_are_all_tried() -> None:
    settings = configured(Issuer(issuer=ISSUER, public_keys=(pem(OTHER_RSA_KEY), pem(RSA_KEY))))
    async with verifying(settings) as verifier:
        assert (await verifier.verify(token(headers={"kid": "whatever"}))).user_id == "user-1"


async def test_several_issuers_keep_their_keys_apart() -> None:
    other = Issuer(issuer="https://other.example", public_keys=(pem(OTHER_RSA_KEY),))
    async with verifying(configured(*static().auth_issuers, other)) as verifier:
        good = token(OTHER_RSA_KEY, iss="https://other.example")
        assert (await verifier.verify(good)).user_id == "user-1"
        assert await refusal(verifier, token(OTHER_RSA_KEY)) == "Invalid token signature"


@pytest.mark.parametrize("claim", [None, "yes", 1, "true", False, []])
async def test_only_true_is_anonymous(claim: object) -> None:
    async with verifying(static()) as verifier:
        assert not (await verifier.verify(token(ext_is_anonymous=claim))).is_anonymous


@pytest.mark.parametrize("audience", ["app", ["web", "app"]])
async def test_one_element_of_the_audience_must_match(audience: Any) -> None:
    async with verifying(static(audience="app")) as verifier:
        assert (await verifier.verify(token(aud=audience))).user_id == "user-1"


async def test_audience_and_issue_time_are_ignored_where_nothing_is_configured() -> None:
    async with verifying(static()) as verifier:
        assert (await verifier.verify(token(aud="anything", iat=time.time() + 9999))).user_id == "user-1"


async def test_times_have_leeway() -> None:
    clock = Clock(1_000_000.0)
    async with verifying(static(), now=clock) as verifier:
        late = token(exp=clock.seconds - 29.9)
        assert (await verifier.verify(late)).expires_at == clock.seconds - 29.9
        assert await refusal(verifier, token(exp=clock.seconds - 30)) == "Token has expired"
        early = token(nbf=clock.seconds + 30)
        assert (await verifier.verify(early)).user_id == "user-1"
        assert await refusal(verifier, token(nbf=clock.seconds + 30.1)) == "Token is not yet valid"


async def test_a_time_beyond_the_calendar_is_cut_to_its_end() -> None:
    async with verifying(static()) as verifier:
        assert (await verifier.verify(token(exp=10**18))).expires_at == 253_402_300_799.0


# ---- refusals, with the texts of the contract


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "Missing authorization header"),
        ("", "Invalid authorization header format. Expected: Bearer <token>"),
        ("Bearer", "Invalid authorization header format. Expected: Bearer <token>"),
        ("Bearer a b", "Invalid authorization header format. Expected: Bearer <token>"),
        ("Basic abc", "Invalid authorization header format. Expected: Bearer <token>"),
        ("abc", "Invalid authorization header format. Expected: Bearer <token>"),
        ("Bearer abc", "Invalid token format"),
    ],
)
async def test_the_header_is_read_before_the_token(header: str | None, message: str) -> None:
    async with verifying(static()) as verifier:
        with pytest.raises(Unauthorized) as caught:
            await verifier.authenticate(header)
        assert caught.value.message == message


async def test_the_scheme_word_has_no_case() -> None:
    async with verifying(static()) as verifier:
        assert (await verifier.authenticate(f"bEARER {token()}")).user_id == "user-1"


GOOD_HEADER, GOOD_CLAIMS = {"alg": "RS256"}, {"iss": ISSUER}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b",
        "a.b.c.d",
        "....",
        "é.b.c",
        "\ud800.b.c",
        "a" * 20_000,
        forged([], GOOD_CLAIMS),
        forged(GOOD_HEADER, "text"),
        forged(GOOD_HEADER, GOOD_CLAIMS) + "=",
        forged(GOOD_HEADER, GOOD_CLAIMS).replace(".", " .", 1),
        "e30.bm90IGpzb24.eA",
        "e30.eyJhIjogTmFOfQ.eA",
        forged(GOOD_HEADER, {**GOOD_CLAIMS, "pad": "x" * 16_384}),
    ],
)
async def test_what_is_no_token_has_the_wrong_format(text: str) -> None:
    assert await refused(text) == "Invalid token format"


async def test_a_token_of_the_greatest_size_is_read() -> None:
    text = token(pad="")
    text = token(pad="x" * ((16_384 - len(text)) * 3 // 4 - 2))
    assert 16_370 < len(text) <= 16_384
    async with verifying(static()) as verifier:
        assert (await verifier.verify(text)).user_id == "user-1"


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "", "HS256", "HS512", "RS512", "PS256", "rs256", None, 7, ["RS256"]]
)
async def test_other_algorithms_are_refused(alg: object) -> None:
    assert await refused(forged({"alg": alg}, GOOD_CLAIMS, b"")) == "Invalid token algorithm"


async def test_a_public_key_is_no_shared_secret() -> None:
    """The classic confusion: HS256, with the issuer's public key as the secret."""
    signed = jwt.encode({"iss": ISSUER}, "k" * 32, algorithm="HS256").rpartition(".")[0]
    mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(signed.encode(), pem(RSA_KEY).encode())
    confused = f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    async with verifying(static(), SECRET) as verifier:
        assert await refusal(verifier, confused) == "Invalid token algorithm"


async def test_an_issuer_may_allow_fewer_algorithms() -> None:
    assert await refused(token(), static(algorithms=("ES256",))) == "Invalid token algorithm"


@pytest.mark.parametrize("issuer", [None, "", "https://issuer.example/", 1, [ISSUER], {"a": 1}])
async def test_an_unknown_issuer_is_refused(issuer: object) -> None:
    claims = {} if issuer is None else {"iss": issuer}
    assert await refused(forged(GOOD_HEADER, claims)) == "Invalid token issuer"


async def test_the_algorithm_must_fit_the_key() -> None:
    settings = configured(Issuer(issuer=ISSUER, public_keys=(pem(RSA_KEY),)))
    assert await refused(token(EC_KEY, "ES256"), settings) == "Unknown signing key"


async def test_a_wrong_signature_is_refused() -> None:
    assert await refused(token(OTHER_RSA_KEY)) == "Invalid token signature"
    good = token()
    other_claims = token(sub="admin").split(".")[1]
    head, _, signature = good.split(".")
    assert await refused(f"{head}.{other_claims}.{signature}") == "Invalid token signature"
    assert await refused(f"{head}.{other_claims}.") == "Invalid token signature"


@pytest.mark.parametrize("expiry", [None, "soon", str(2**40), True, [], {}])
async def test_the_expiry_must_be_a_number(expiry: object) -> None:
    assert (
        await refused(token(exp=expiry) if expiry is None else re_signed({"exp": expiry}))
        == "Invalid token: missing exp"
    )


def re_signed(claims: dict[str, Any]) -> str:
    """Signed as it stands; PyJWT would refuse to make some of these."""
    body = {"iss": ISSUER, "sub": "user-1", "exp": int(time.time()) + 3600, **claims}
    signed = forged({"alg": "EdDSA"}, body).rpartition(".")[0]
    signature = base64.urlsafe_b64encode(ED_KEY.sign(signed.encode())).rstrip(b"=").decode()
    return f"{signed}.{signature}"


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"exp": 0}, "Token has expired"),
        ({"exp": -1e300}, "Token has expired"),
        ({"nbf": 2**40}, "Token is not yet valid"),
        ({"nbf": "now"}, "Authentication failed"),
        ({"nbf": True}, "Authentication failed"),
        ({"aud": None}, "Invalid token audience"),
        ({"aud": "apple"}, "Invalid token audience"),
        ({"aud": ["a", 1]}, "Invalid token audience"),
        ({"aud": {"app": 1}}, "Invalid token audience"),
        ({"aud": "app", "sub": None}, "Invalid token: missing sub"),
        ({"aud": "app", "sub": ""}, "Invalid token: missing sub"),
        ({"aud": "app", "sub": " \t\n"}, "Invalid token: missing sub"),
        ({"aud": "app", "sub": "a\0b"}, "Invalid token: missing sub"),
        ({"aud": "app", "sub": 5}, "Invalid token: missing sub"),
        ({"aud": "app", "sub": "x" * 256}, "Invalid token: missing sub"),
    ],
)
async def test_claims_are_refused_with_their_own_text(claims: dict[str, Any], message: str) -> None:
    assert await refused(re_signed(claims), static(audience="app")) == message


async def test_extensions_that_must_be_understood_are_not() -> None:
    assert await refused(token(headers={"crit": ["b64"], "b64": True})) == "Authentication failed"


async def test_faults_are_told_in_the_order_of_the_contract() -> None:
    """Each token has its fault and all later ones."""
    settings = static(audience="app")
    late: dict[str, Any] = {"exp": 1, "nbf": 2**40, "aud": "no", "sub": ""}
    assert await refused(forged({"alg": "none"}, {"iss": "no"}), settings) == "Invalid token algorithm"
    assert await refused(token(OTHER_RSA_KEY, iss="no", **late), settings) == "Invalid token issuer"
    assert await refused(token(OTHER_RSA_KEY, **late), settings) == "Invalid token signature"
    assert await refused(token(**{**late, "exp": None}), settings) == "Invalid token: missing exp"
    assert await refused(token(**late), settings) == "Token has expired"
    del late["exp"]
    assert await refused(token(**late), settings) == "Token is not yet valid"
    del late["nbf"]
    assert await refused(token(**late), settings) == "Invalid token audience"
    assert await refused(token(**{**late, "aud": "app"}), settings) == "Invalid token: missing sub"


# ---- keys that change, fail and come late


async def test_concurrent_first_tokens_fetch_the_keys_once(server: KeyServer) -> None:
    async with verifying(configured(Issuer(issuer=ISSUER, jwks_url=server.url))) as verifier:
        tokens = [token(headers={"kid": "rsa"}, sub=f"user-{n}") for n in range(20)]
        identities = await asyncio.gather(*(verifier.verify(text) for text in tokens))
        assert {identity.user_id for identity in identities} == {f"user-{n}" for n in range(20)}
        assert server.requests == 1


async def test_a_slow_fetch_is_not_begun_again(server: KeyServer) -> None:
    clock = Clock(0.0)
    server.gate.clear()
    async with verifying(configured(Issuer(issuer=ISSUER, jwks_url=server.url)), monotonic=clock) as verifier:
        first = asyncio.create_task(verifier.verify(token()))
        await server.was_asked.wait()
        clock.seconds += 60
        second = asyncio.create_task(verifier.verify(token(sub="user-2")))
        await asyncio.sleep(0)
        server.gate.set()
        assert [identity.user_id for identity in await asyncio.gather(first, second)] == ["user-1", "user-2"]
        assert server.requests == 1


async def test_an_unknown_key_id_causes_one_fetch_per_minute(server: KeyServer) -> None:
    clock = Clock(0.0)
    async with verifying(configured(Issuer(issuer=ISSUER, jwks_url=server.url)), monotonic=clock) as verifier:
        await verifier.verify(token(headers={"kid": "rsa"}))
        clock.seconds += 60
        for n in range(5):
            assert await refusal(verifier, token(headers={"kid": f"unknown-{n}"})) == "Unknown signing key"
        assert server.requests == 2
        server.keys.append(jwk(OTHER_RSA_KEY, "new"))
        fresh = token(OTHER_RSA_KEY, headers={"kid": "new"})
        clock.seconds += 59
        assert await refusal(verifier, fresh) == "Unknown signing key"
        clock.seconds += 1
        assert (await verifier.verify(fresh)).user_id == "user-1"
        assert server.requests == 3


async def test_an_issuer_that_fails_is_left_alone_until_one_probe_has_found_it_again(server: KeyServer) -> None:
    clock = Clock(0.0)
    settings = configured(Issuer(issuer=ISSUER, jwks_url=server.url), breaker_failures=3, breaker_open_seconds=30)
    server.status = 503

    async def failing(verifier: TokenVerifier) -> int:
        """Asks with tokens of five people at the same time; returns after how many seconds they should come again."""
        texts = [token(sub=f"user-{n}") for n in range(5)]
        errors = await asyncio.gather(*(verifier.verify(text) for text in texts), return_exceptions=True)
        (wait,) = {error.retry_after for error in errors if isinstance(error, ServiceUnavailable)}
        assert wait is not None
        return wait

    async with verifying(settings, monotonic=clock) as verifier:
        (circuit,) = verifier.circuits()
        for _ in range(3):
            clock.seconds += 5
            await failing(verifier)
        assert (server.requests, circuit.state, circuit.opened_reason) == (3, "open", "overloaded")
        clock.seconds += 29
        assert await failing(verifier) == 1
        assert server.requests == 3, "an open circuit asks nobody"
        clock.seconds += 1
        assert 54 <= await failing(verifier) <= 66, "one failed probe doubles the wait"
        assert server.requests == 4
        clock.seconds += circuit.retry_after
        server.status = 200
        assert (await verifier.verify(token())).user_id == "user-1"
        assert (server.requests, circuit.state, verifier.status()) == (5, "closed", "up")


async def test_an_open_circuit_refuses_no_token_whose_key_is_known(server: KeyServer) -> None:
    clock = Clock(0.0)
    settings = configured(Issuer(issuer=ISSUER, jwks_url=server.url), breaker_failures=1, breaker_open_seconds=600)
    async with verifying(settings, monotonic=clock) as verifier:
        await verifier.verify(token(headers={"kid": "rsa"}))
        server.status = 503
        clock.seconds += 60
        assert await refusal(verifier, token(headers={"kid": "unknown"})) == "Unknown signing key"
        (circuit,) = verifier.circuits()
        assert circuit.state == "open"
        for n in range(3):
            clock.seconds += 60  # the pause between two fetches is over, that of the circuit is not
            assert (await verifier.verify(token(sub=f"user-{n}", headers={"kid": "rsa"}))).user_id == f"user-{n}"
            assert await refusal(verifier, token(headers={"kid": f"unknown-{n}"})) == "Unknown signing key"
        clock.seconds += 4000  # the keys are old by now, and still good enough
        server.gate.clear()
        assert (await verifier.verify(token(sub="late", headers={"kid": "rsa"}))).user_id == "late"
        assert server.requests == 2


@pytest.mark.parametrize("fault", ["status", "no json", "no keys", "useless keys", "too large", "refused"])
async def test_unreachable_keys_are_503_and_come_back(server: KeyServer, fault: str) -> None:
    clock, url = Clock(0.0), server.url
    if fault == "status":
        server.status = 500
    elif fault == "refused":
        url = "http://127.0.0.1:1/jwks.json"
    else:
        server.body = {
            "no json": b"<html>",
            "no keys": b'{"keys": []}',
            "useless keys": b'{"keys": [1, null, {}, {"kty": "oct", "k": "AAAA"}, {"kty": "RSA", "n": 1}]}',
            "too large": b" " * 300_000 + json.dumps({"keys": server.keys}).encode(),
        }[fault]
    async with verifying(configured(Issuer(issuer=ISSUER, jwks_url=url)), monotonic=clock) as verifier:
        assert verifier.status() == "up"
        with pytest.raises(ServiceUnavailable) as caught:
            await verifier.verify(token())
        assert caught.value.details == {"service": "identity"}
        assert caught.value.retry_after
        assert verifier.status() == "down"
        asked = server.requests
        with pytest.raises(ServiceUnavailable):
            await verifier.verify(token())
        assert server.requests == asked, "an outage is not made worse by asking for every request"
        if fault != "refused":
            server.status, server.body = 200, None
            clock.seconds += 5
            assert (await verifier.verify(token())).user_id == "user-1"
            assert verifier.status() == "up"


async def test_a_silent_key_server_is_given_up(server: KeyServer) -> None:
    server.gate.clear()
    settings = configured(Issuer(issuer=ISSUER, jwks_url=server.url))
    async with verifying(settings, fetch_timeout_seconds=0.05) as verifier:
        with pytest.raises(ServiceUnavailable):
            await verifier.verify(token())


async def test_known_keys_survive_a_failing_refetch(server: KeyServer) -> None:
    clock = Clock(0.0)
    async with verifying(configured(Issuer(issuer=ISSUER, jwks_url=server.url)), monotonic=clock) as verifier:
        await verifier.verify(token(headers={"kid": "rsa"}))
        server.status = 503
        clock.seconds += 60
        assert await refusal(verifier, token(headers={"kid": "unknown"})) == "Unknown signing key"
        assert verifier.status() == "down"
        assert (await verifier.verify(token(headers={"kid": "rsa"}, sub="user-2"))).user_id == "user-2"


async def test_a_withdrawn_key_goes_within_the_hour(server: KeyServer) -> None:
    clock = Clock(0.0)
    async with verifying(configured(Issuer(issuer=ISSUER, jwks_url=server.url)), monotonic=clock) as verifier:
        await verifier.verify(token(headers={"kid": "rsa"}))
        server.keys = [jwk(OTHER_RSA_KEY, "other")]
        clock.seconds += 3601
        assert (await verifier.verify(token(headers={"kid": "rsa"}, sub="user-2"))).user_id == "user-2"
        # The unknown id joins the fetch that the last token started in the background.
        assert (await verifier.verify(token(OTHER_RSA_KEY, headers={"kid": "other"}))).user_id == "user-1"
        assert server.requests == 2
        assert await refusal(verifier, token(headers={"kid": "rsa"}, sub="user-3")) == "Unknown signing key"


async def test_a_caller_that_leaves_does_not_stop_the_fetch(server: KeyServer) -> None:
    server.gate.clear()
    async with verifying(configured(Issuer(issuer=ISSUER, jwks_url=server.url))) as verifier:
        first = asyncio.create_task(verifier.verify(token()))
        second = asyncio.create_task(verifier.verify(token(sub="user-2")))
        await server.was_asked.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        server.gate.set()
        assert (await second).user_id == "user-2"
        assert server.requests == 1


async def test_unusable_keys_of_a_set_are_passed_over(server: KeyServer) -> None:
    weak = jwk(rsa.generate_private_key(65537, 1024), "rsa")  # noqa: S505  # that is the point
    server.keys = [
        weak,
        jwk(OTHER_RSA_KEY, "rsa", use="enc"),
        jwk(OTHER_RSA_KEY, "rsa", alg="RS512"),
        {**jwk(OTHER_RSA_KEY, "rsa"), "key_ops": ["encrypt"]},
        jwk(ec.generate_private_key(ec.SECP384R1()), "rsa"),
        {"kty": "OKP", "crv": "X25519", "x": "AAAA", "kid": "rsa"},
        {"kty": ["RSA"], "kid": "rsa"},
        jwk(RSA_KEY, "rsa", use="sig", alg="RS256"),
    ]
    async with verifying(configured(Issuer(issuer=ISSUER, jwks_url=server.url))) as verifier:
        assert (await verifier.verify(token(headers={"kid": "rsa"}))).user_id == "user-1"
        assert await refusal(verifier, token(OTHER_RSA_KEY, headers={"kid": "rsa"})) == "Invalid token signature"


# ---- tokens that were verified before


async def test_a_remembered_token_needs_no_keys_and_still_expires(server: KeyServer) -> None:
    now, monotonic = Clock(1_000_000.0), Clock(0.0)
    settings = configured(Issuer(issuer=ISSUER, jwks_url=server.url))
    async with verifying(settings, now=now, monotonic=monotonic) as verifier:
        text = token(headers={"kid": "rsa"}, exp=now.seconds + 100, nbf=now.seconds)
        first = await verifier.verify(text)
        server.keys, monotonic.seconds = [jwk(EC_KEY, "ec")], 60
        assert await refusal(verifier, token(headers={"kid": "x"})) == "Unknown signing key"
        assert await verifier.verify(text) is first
        now.seconds += 130
        assert await refusal(verifier, text) == "Token has expired"
        now.seconds -= 130 + 31
        assert await refusal(verifier, text) == "Token is not yet valid"


# ---- the development issuer


async def test_the_development_issuer_signs_its_own() -> None:
    text, expires_at = issue_dev_token(SECRET, DEV_ISSUER, "user-1", 3600, True)
    async with verifying(configured(), SECRET) as verifier:
        assert await verifier.verify(text) == Identity(UserId("user-1"), True, float(expires_at))
        assert verifier.status() == "disabled"
        other, _ = issue_dev_token(b"x" * 32, DEV_ISSUER, "user-1", 3600)
        assert await refusal(verifier, other) == "Invalid token signature"
        assert await refusal(verifier, token(iss=DEV_ISSUER)) == "Invalid token algorithm"


async def test_a_shared_secret_opens_nothing_in_production() -> None:
    settings = Settings(
        _env_file=None,
        environment="production",
        allow_offline_model=True,
        auth_issuers=static().auth_issuers,
        media_signing_key=SecretStr("k" * 32),
    )
    assert load_dev_secret(settings) is None
    with pytest.raises(ValueError, match="development"):
        TokenVerifier(settings, SECRET)
    text, _ = issue_dev_token(SECRET, DEV_ISSUER, "user-1", 3600)
    assert await refused(text, settings) == "Invalid token algorithm"


def test_the_secret_is_made_once_for_the_owner_only(tmp_path: Path) -> None:
    settings = configured(data_dir=tmp_path / "new" / "data")
    with ThreadPoolExecutor(8) as threads:
        secrets = set(threads.map(lambda _: load_dev_secret(settings), range(16)))
    assert len(secrets) == 1
    assert len(secrets.pop() or b"") == 64
    [path] = (tmp_path / "new" / "data").iterdir()
    assert path.name == "dev-secret"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_configured_secret_leaves_no_file(tmp_path: Path) -> None:
    settings = configured(data_dir=tmp_path, auth_dev_secret=SecretStr(SECRET.decode()))
    assert load_dev_secret(settings) == SECRET
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_secret_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "dev-secret"
    path.write_text("short\n")
    with pytest.raises(ValueError, match="damaged"):
        load_dev_secret(configured(data_dir=tmp_path))
    assert path.read_text() == "short\n"


# ---- configurations that cannot work


@pytest.mark.parametrize(
    "issuers",
    [
        (Issuer(issuer=ISSUER, public_keys=("not a key",)),),
        (Issuer(issuer=ISSUER, public_keys=(pem(rsa.generate_private_key(65537, 1024)),)),),  # noqa: S505
        (Issuer(issuer=ISSUER, jwks_file=Path("/nowhere/jwks.json")),),
        (Issuer(issuer=ISSUER, public_keys=(pem(EC_KEY),)),) * 2,
        (Issuer(issuer=DEV_ISSUER, public_keys=(pem(EC_KEY),)),),
    ],
)
def test_what_cannot_work_stops_the_start(issuers: tuple[Issuer, ...]) -> None:
    with pytest.raises(ValueError, match="issuer"):
        TokenVerifier(configured(*issuers), SECRET)


def test_a_short_secret_stops_the_start() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        TokenVerifier(configured(), b"short")


# ---- any garbage

GOOD_TOKENS = [
    token(),
    token(EC_KEY, "ES256"),
    token(ED_KEY, "EdDSA"),
    issue_dev_token(SECRET, DEV_ISSUER, "u", 9999)[0],
]
ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ANY_HEADER = st.fixed_dictionaries(
    {},
    optional={
        "alg": st.sampled_from(["RS256", "ES256", "EdDSA", "HS256"]) | ANY_JSON,
        "kid": ANY_JSON,
        "crit": ANY_JSON,
    },
)
ANY_CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "iss": st.sampled_from([ISSUER, DEV_ISSUER]) | ANY_JSON,
        "exp": ANY_JSON,
        "sub": ANY_JSON,
        "aud": ANY_JSON,
    },
)


# Its keys are at hand, so it is bound to no event loop.
GARBAGE_VERIFIER = TokenVerifier(static(), SECRET)


@st.composite
def mutated(draw: Callable[[st.SearchStrategy[Any]], Any]) -> str:
    text: str = draw(st.sampled_from(GOOD_TOKENS))
    at = draw(st.integers(0, len(text) - 1))
    new = draw(st.sampled_from("ABCDwxyz0189-_.=+/ \n\0é") | st.just(""))
    changed = text[:at] + new + text[at + 1 :]
    return changed if changed != text else text[:-2]


@given(st.one_of(st.text(), mutated(), st.builds(forged, ANY_HEADER, ANY_CLAIMS, st.binary(max_size=300))))
@settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow])
def test_garbage_is_unauthorized_and_nothing_else(text: str) -> None:
    with pytest.raises(Unauthorized):
        asyncio.run(GARBAGE_VERIFIER.verify(text))


@given(
    st.lists(
        ANY_JSON
        | st.fixed_dictionaries(
            {"kty": st.sampled_from(["RSA", "EC", "OKP"])},
            optional=dict.fromkeys(("kid", "crv", "x", "y", "n", "e", "alg", "use", "key_ops"), ANY_JSON),
        ),
        max_size=4,
    )
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_a_garbled_key_does_not_spoil_its_set(tmp_path_factory: pytest.TempPathFactory, garbage: list[Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "garbled.json"
    path.write_text(json.dumps({"keys": [*garbage, jwk(EC_KEY, "good")]}))

    async def run() -> None:
        async with verifying(configured(Issuer(issuer=ISSUER, jwks_file=path))) as verifier:
            assert (await verifier.verify(token(EC_KEY, "ES256", {"kid": "good"}))).user_id == "user-1"

    asyncio.run(run())
