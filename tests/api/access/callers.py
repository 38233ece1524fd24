"""Everybody who may stand before a route, with what they show: a good token, a bad one, a key, or nothing."""

import base64
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER, OTHER_ISSUER = "https://issuer.example", "https://other.example"
KEY, OTHER_KEY = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
PUBLIC_PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
ADMIN_KEY = "the-operators-key-of-the-access-matrix"
METRICS_TOKEN = "the-token-of-the-scraper-of-the-access-matrix"

# A service as in production: nobody is let in because it is a test. Its issuer signs with Ed25519.
SETTINGS: dict[str, str | None] = {
    "ENVIRONMENT": "production",
    "AUTH_DEV_SECRET": None,
    "AUTH_ISSUERS": json.dumps([{"issuer": ISSUER, "public_keys": [PUBLIC_PEM]}]),
    "ADMIN_API_KEY": ADMIN_KEY,
    "METRICS_TOKEN": METRICS_TOKEN,
    "MEDIA_SIGNING_KEY": "a-key-for-media-of-more-than-32-bytes",
    "PUBLIC_BASE_URL": "https://chat.example",
    "CORS_ORIGINS": "https://app.example, https://other.example:8443",
}

PEOPLE = ("user", "peer", "other", "bot owner")
BAD_TOKENS = ("expired", "not yet", "forged", "alg none", "confused", "other issuer")
CALLERS = ("anonymous", *PEOPLE, "admin", "scraper", "wrong admin key", *BAD_TOKENS)


def headers_of(ids: dict[str, str]) -> dict[str, dict[str, str]]:
    """What each caller sends, for people with these ids. Every bad token claims to be the user."""
    tokens = {who: signed(ids[who]) for who in PEOPLE} | bad_tokens(ids["user"])
    bearers = {who: {"Authorization": f"Bearer {token}"} for who, token in tokens.items()}
    return bearers | {
        "anonymous": {},
        "admin": {"X-Admin-Key": ADMIN_KEY},
        "wrong admin key": {"X-Admin-Key": f"{ADMIN_KEY}x"},
        "scraper": {"Authorization": f"Bearer {METRICS_TOKEN}"},
    }


def signed(user_id: str, key: ed25519.Ed25519PrivateKey = KEY, **claims: Any) -> str:
    payload = {"iss": ISSUER, "sub": user_id, "exp": int(time.time()) + 3600, **claims}
    return jwt.encode(payload, key, algorithm="EdDSA")


def bad_tokens(user_id: str) -> dict[str, str]:
    return {
        "expired": signed(user_id, exp=int(time.time()) - 3600),
        "not yet": signed(user_id, nbf=int(time.time()) + 3600),
        "forged": signed(user_id, OTHER_KEY),
        "alg none": _by_hand(user_id, "none", lambda _: b""),
        # Signed with the public key as if that were a shared secret (RFC 8725, section 2.1).
        "confused": _by_hand(user_id, "HS256", lambda said: hmac.digest(PUBLIC_PEM.encode(), said, "sha256")),
        "other issuer": signed(user_id, OTHER_KEY, iss=OTHER_ISSUER),
    }


def _by_hand(user_id: str, algorithm: str, sign: Callable[[bytes], bytes]) -> str:
    """What a library would refuse to make."""
    payload = {"iss": ISSUER, "sub": user_id, "exp": int(time.time()) + 3600}
    said = b".".join(_encoded(json.dumps(part).encode()) for part in ({"alg": algorithm, "typ": "JWT"}, payload))
    return b".".join((said, _encoded(sign(said)))).decode()


def _encoded(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part).rstrip(b"=")
