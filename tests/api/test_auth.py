"""Who may come in: contract section 3, over HTTP."""

import base64
import hmac
import json
import time
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

from tests.api.conftest import MakeUser, StartService
from tests.api.expecting import refused
from tests.client import PLAIN, Api, Document
from tests.rows import add_influencer
from tests.service import ISSUER, SECRET, Service, token
from yral_chat.core.clock import SECOND, now

ME, DEV_TOKEN = "/api/v1/auth/me", "/api/v1/auth/dev-token"


async def ask(service: Service, document: Document, authorization: str | None, path: str = ME) -> httpx2.Response:
    """As somebody with this header."""
    async with httpx2.AsyncClient(base_url=service.url, verify=PLAIN) as client:
        headers = {} if authorization is None else {"Authorization": authorization}
        response = await client.get(path, headers=headers)
    document.check(response)
    return response


def encoded(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def claims(**more: Any) -> dict[str, Any]:
    given = {"iss": ISSUER, "sub": "somebody", "exp": int(time.time()) + 24 * 3600, **more}
    return {name: value for name, value in given.items() if value is not None}


def signed(header: dict[str, Any] | None = None, **more: Any) -> str:
    return f"Bearer {jwt.encode(claims(**more), SECRET, algorithm='HS256', headers=header)}"


def unsigned(header: Any, payload: Any, signature: str = "") -> str:
    return f"Bearer {encoded(header)}.{encoded(payload)}.{signature}"


REFUSALS = {
    "no header": (None, "Missing authorization header"),
    "empty header": ("", "Invalid authorization header format. Expected: Bearer <token>"),
    "other scheme": ("Basic abc", "Invalid authorization header format. Expected: Bearer <token>"),
    "no token": ("Bearer", "Invalid authorization header format. Expected: Bearer <token>"),
    "three parts": ("Bearer a b", "Invalid authorization header format. Expected: Bearer <token>"),
    "two segments": ("Bearer a.b", "Invalid token format"),
    "not base64": ("Bearer !.!.!", "Invalid token format"),
    "not an object": (unsigned([], {}), "Invalid token format"),
    "too long": (f"Bearer {'a' * 16385}", "Invalid token format"),
    "alg none": (unsigned({"alg": "none"}, claims()), "Invalid token algorithm"),
    "alg None": (unsigned({"alg": "None"}, claims(), "AAAA"), "Invalid token algorithm"),
    "alg missing": (unsigned({}, claims(), "AAAA"), "Invalid token algorithm"),
    "alg HS512": (unsigned({"alg": "HS512"}, claims(), "AAAA"), "Invalid token algorithm"),
    "alg of others": (unsigned({"alg": "RS256"}, claims(), "AAAA"), "Invalid token algorithm"),
    "wrong issuer": (signed(iss="https://evil.example"), "Invalid token issuer"),
    "no issuer": (signed(iss=None), "Invalid token issuer"),
    "forged": (f"Bearer {token('somebody', secret='x' * 40)}", "Invalid token signature"),
    "changed": (unsigned({"alg": "HS256"}, claims(), "AAAA"), "Invalid token signature"),
    "no exp": (signed(exp=None), "Invalid token: missing exp"),
    "expired": (signed(exp=int(time.time()) - 120), "Token has expired"),
    "not yet": (signed(nbf=int(time.time()) + 3600), "Token is not yet valid"),
    "no sub": (signed(sub=None), "Invalid token: missing sub"),
    "blank sub": (signed(sub="  "), "Invalid token: missing sub"),
    "long sub": (signed(sub="x" * 256), "Invalid token: missing sub"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_every_refusal_has_its_text(service: Service, document: Document, name: str) -> None:
    authorization, message = REFUSALS[name]
    response = await ask(service, document, authorization)
    error = refused(response, 401, "unauthorized")
    assert (error["message"], error["detail"], error["details"]) == (message, message, {})
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["cache-control"] == "no-store"


async def test_texts_come_in_their_order(service: Service, document: Document) -> None:
    """Nothing below the signature is looked at before the signature is right."""
    for payload in (claims(exp=None), claims(exp=1), claims(sub="")):
        forged = f"Bearer {jwt.encode(payload, 'x' * 40, algorithm='HS256')}"
        assert (
            refused(await ask(service, document, forged), 401, "unauthorized")["message"] == "Invalid token signature"
        )
    both = signed(exp=1, sub="")
    assert refused(await ask(service, document, both), 401, "unauthorized")["message"] == "Token has expired"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_word_is_of_any_case(service: Service, document: Document, scheme: str) -> None:
    response = await ask(service, document, f"{scheme} {token('somebody')}")
    assert response.json() == {"user_id": "somebody", "is_anonymous": False, "owned_bot_ids": []}


async def test_me_tells_what_the_token_and_the_rows_say(api: Api, service: Service, document: Document) -> None:
    bots = [add_influencer(service, owner_id=api.user_id, created_at=now() + number * SECOND) for number in (2, 1)]
    add_influencer(service, owner_id=api.user_id, status="discontinued")
    coming = add_influencer(service, owner_id=api.user_id, status="coming_soon", created_at=now() + 3 * SECOND)
    assert (await api.get(ME)).json() == {
        "user_id": api.user_id,
        "is_anonymous": False,
        "owned_bot_ids": [bots[1], bots[0], coming],
    }
    anonymous = await ask(service, document, f"Bearer {token('नमस्ते', ext_is_anonymous=True)}")
    assert anonymous.json() == {"user_id": "नमस्ते", "is_anonymous": True, "owned_bot_ids": []}


async def test_leeway_is_granted(service: Service, document: Document) -> None:
    for lenient in (signed(exp=int(time.time()) - 10), signed(nbf=int(time.time()) + 10), signed(iat=2**40)):
        assert (await ask(service, document, lenient)).status_code == 200


# A token is optional there, and the operators' figures are open in development and test.
PUBLIC_READS = ("/api/v1/influencers", "/api/v1/influencers/trending", "/api/v1/influencers/{influencer_id}")
OPEN_IN_TESTS = ("/status", "/metrics")


async def test_every_protected_route_refuses_a_stranger(service: Service, document: Document) -> None:
    async with httpx2.AsyncClient(base_url=service.url, verify=PLAIN) as client:
        for path, operations in document.document["paths"].items():
            for method, operation in operations.items():
                is_public = method == "get" and path in PUBLIC_READS
                is_protected = bool(operation.get("security")) and not is_public and path not in OPEN_IN_TESTS
                response = await client.request(method, path.replace("{", "").replace("}", ""), json={})
                document.check(response)
                if is_protected:
                    refused(response, 401, "unauthorized")
                else:
                    assert response.status_code != 401


# --- development tokens


async def test_dev_tokens_exist_in_development_only(impatient: Service, user_of: MakeUser, api: Api) -> None:
    for body in ({"user_id": "somebody"}, {}, None, {"user_id": 5}):
        refused(await api.post(DEV_TOKEN, body), 404, "not_found")
    developer = user_of(impatient)
    response = await developer.post(DEV_TOKEN, {"user_id": " somebody ", "is_anonymous": True, "ttl_seconds": "60"})
    assert response.status_code == 200, response.text
    given = response.json()
    assert (given["token_type"], given["expires_in"]) == ("Bearer", 60)
    me = await ask(impatient, developer.document, f"Bearer {given['token']}")
    assert me.json() == {"user_id": "somebody", "is_anonymous": True, "owned_bot_ids": []}
    assert (await developer.post(DEV_TOKEN, {"user_id": "x", "ttl_seconds": None})).json()["expires_in"] == 3600


@pytest.mark.parametrize(
    "body",
    [{}, {"user_id": ""}, {"user_id": " "}, {"user_id": "x" * 256}, {"user_id": 5}, {"user_id": "x", "ttl_seconds": 0},
     {"user_id": "x", "ttl_seconds": 86401}, {"user_id": "x", "ttl_seconds": 1.5},
     {"user_id": "x", "ttl_seconds": 60.0}, {"user_id": "x", "ttl_seconds": True},
     {"user_id": "x", "is_anonymous": "y?"}],
)  # fmt: skip
async def test_dev_tokens_are_validated(impatient: Service, user_of: MakeUser, body: Any) -> None:
    developer = user_of(impatient)
    refused(await developer.post(DEV_TOKEN, body), 422, "validation_error")


# --- production


class Issuers:
    """Two issuers with keys of their own, and the settings that trust them."""

    def __init__(self, folder: Path) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        jwk = {**RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True), "kid": "key-1", "use": "sig"}
        file = folder / "jwks.json"
        file.write_text(json.dumps({"keys": [jwk]}))
        self.settings = {
            "ENVIRONMENT": "production",
            "AUTH_DEV_SECRET": None,
            "MEDIA_SIGNING_KEY": "a-key-for-media-of-more-than-32-bytes",
            "AUTH_ISSUERS": json.dumps(
                [
                    {
                        "issuer": "https://auth.example",
                        "jwks_file": str(file),
                        "algorithms": ["RS256"],
                        "audience": "chat",
                    }
                ]
            ),
            "METRICS_TOKEN": "metrics-secret",
            "ADMIN_API_KEY": "admin-secret",
        }

    def header(self, key: Any = None, algorithm: str = "RS256", kid: str | None = "key-1", **more: Any) -> str:
        """An Authorization header."""
        payload = claims(iss="https://auth.example", aud="chat") | more
        headers = {} if kid is None else {"kid": kid}
        return f"Bearer {jwt.encode(payload, key or self.key, algorithm=algorithm, headers=headers)}"


@pytest.fixture(scope="session")
def issuers(tmp_path_factory: pytest.TempPathFactory) -> Issuers:
    return Issuers(tmp_path_factory.mktemp("issuers"))


async def test_production_verifies_signatures_of_its_issuers(
    service_with: StartService, document: Document, issuers: Issuers
) -> None:
    service = service_with(**issuers.settings)
    for good in (issuers.header(), issuers.header(kid=None), issuers.header(aud=["other", "chat"])):
        assert (await ask(service, document, good)).json()["user_id"] == "somebody"
    refusals = {
        issuers.header(key=issuers.stranger): "Invalid token signature",
        issuers.header(kid="key-2"): "Unknown signing key",
        issuers.header(aud="other"): "Invalid token audience",
        issuers.header(iss=ISSUER): "Invalid token issuer",
        issuers.header(algorithm="PS256"): "Invalid token algorithm",
        issuers.header(key=ec.generate_private_key(ec.SECP256R1()), algorithm="ES256"): "Invalid token algorithm",
        f"Bearer {token('somebody')}": "Invalid token algorithm",
        unsigned({"alg": "none", "kid": "key-1"}, claims(iss="https://auth.example")): "Invalid token algorithm",
    }
    for header, message in refusals.items():
        assert refused(await ask(service, document, header), 401, "unauthorized")["message"] == message


async def test_a_public_key_is_no_shared_secret(
    service_with: StartService, document: Document, issuers: Issuers
) -> None:
    """The old trick: an HS256 token that is signed with the issuer's public key."""
    service = service_with(**issuers.settings)
    public = issuers.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    part = f"{encoded({'alg': 'HS256', 'kid': 'key-1'})}.{encoded(claims(iss='https://auth.example', aud='chat'))}"
    digest = hmac.digest(public, part.encode(), "sha256")
    forged = f"{part}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"
    error = refused(await ask(service, document, f"Bearer {forged}"), 401, "unauthorized")
    assert error["message"] == "Invalid token algorithm"


async def test_production_issues_no_tokens(service_with: StartService, issuers: Issuers) -> None:
    service = service_with(**issuers.settings)
    async with httpx2.AsyncClient(base_url=service.url, verify=PLAIN) as client:
        refused(await client.post(DEV_TOKEN, json={"user_id": "me"}), 404, "not_found")


@pytest.mark.parametrize("path", ["/metrics", "/status"])
async def test_production_guards_its_figures(
    service_with: StartService, document: Document, issuers: Issuers, path: str
) -> None:
    service = service_with(**issuers.settings)
    for header in (None, "Bearer wrong", issuers.header(), "Basic metrics-secret"):
        error = refused(await ask(service, document, header, path), 401, "unauthorized")
        assert error["message"] == "Invalid metrics token"
    assert (await ask(service, document, "bearer metrics-secret", path)).status_code == 200
    async with httpx2.AsyncClient(base_url=service.url, verify=PLAIN) as client:
        assert (await client.get(path, headers={"X-Admin-Key": "admin-secret"})).status_code == 200
        for wrong in (b"", b"wrong", b"admin", b"admin-secre", b"admin-secret2", "é".encode()):
            error = refused(await client.get(path, headers={b"X-Admin-Key": wrong}), 401, "unauthorized")
            assert error["message"] == "Invalid admin key"


async def test_production_has_no_cors_unless_told(service_with: StartService, issuers: Issuers) -> None:
    service = service_with(**issuers.settings)
    async with httpx2.AsyncClient(base_url=service.url, verify=PLAIN) as client:
        response = await client.get("/health/live", headers={"Origin": "https://app.example"})
    assert "access-control-allow-origin" not in response.headers
