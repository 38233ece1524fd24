"""Who is calling: tokens are verified here, with keys of the issuers' own (contract section 3).

PyJWT's primitives do the cryptography. Its `decode` cannot say the contract's texts in the contract's order, and its
JWKS client blocks the event loop, so both are ours.
"""

import asyncio
import base64
import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import aiohttp
import jwt
import msgspec
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import get_default_algorithms

from yral_chat.clients.circuits import BadStatus, build_breaker, reason_of
from yral_chat.clients.kept_secrets import MIN_SECRET_BYTES, load_kept_secret
from yral_chat.clients.resilience import Admission, CircuitBreaker
from yral_chat.core import clock
from yral_chat.core.config import Issuer, Settings
from yral_chat.core.errors import ServiceUnavailable, Unauthorized
from yral_chat.core.ids import UserId
from yral_chat.core.logging import log
from yral_chat.core.tracing import outgoing_headers

MAX_TOKEN_CHARACTERS: Final = 16_384
MAX_SUBJECT_CHARACTERS: Final = 255
MAX_REMEMBERED_TOKENS: Final = 10_000
MIN_RSA_BITS: Final = 2048  # RFC 7518, section 3.3

# An unknown key id may cause one fetch per issuer in this time; without any key we try more often.
REFETCH_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 5.0
# Keys older than this are fetched anew in the background, so that a withdrawn one goes.
MAX_KEY_AGE_SECONDS: Final = 3600.0
FETCH_TIMEOUT_SECONDS: Final = 5.0
MAX_JWKS_BYTES: Final = 256 * 1024
# Without `kid` every key is tried, and each trial costs up to 80 microseconds.
MAX_KEYS: Final = 32

# 9999-12-31: later times cannot be written down, and timers overflow.
_LATEST: Final = 253_402_300_799.0

_ALGORITHMS: Final = {name: get_default_algorithms()[name] for name in ("RS256", "ES256", "EdDSA", "HS256")}
_ASYMMETRIC: Final = frozenset({"RS256", "ES256", "EdDSA"})
_ALGORITHM_OF_KEY_TYPE: Final = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}

_MISSING_HEADER: Final = "Missing authorization header"
_HEADER_FORMAT: Final = "Invalid authorization header format. Expected: Bearer <token>"
_TOKEN_FORMAT: Final = "Invalid token format"  # noqa: S105  # no password
_ALGORITHM: Final = "Invalid token algorithm"
_ISSUER: Final = "Invalid token issuer"
_UNKNOWN_KEY: Final = "Unknown signing key"
_SIGNATURE: Final = "Invalid token signature"
_MISSING_EXP: Final = "Invalid token: missing exp"
_EXPIRED: Final = "Token has expired"
_NOT_YET: Final = "Token is not yet valid"
_AUDIENCE: Final = "Invalid token audience"
_MISSING_SUB: Final = "Invalid token: missing sub"

Clock = Callable[[], float]


class Identity(msgspec.Struct, frozen=True):
    """A verified caller. `expires_at` is the token's `exp`, seconds since the epoch, without leeway.

    `ai_account_ids` are the bots that the issuer says are the caller's: contract section 11, create.
    """

    user_id: UserId
    is_anonymous: bool
    expires_at: float
    ai_account_ids: frozenset[str] = frozenset()


class TokenVerifier:
    """Verifies the tokens of the configured issuers, and of the development issuer where there is a secret.

    Raises ValueError for a configuration that cannot work: it is better not to start than to let nobody in.
    """

    def __init__(
        self,
        settings: Settings,
        dev_secret: bytes | None = None,
        *,
        now: Clock = clock.seconds_now,
        monotonic: Clock = time.monotonic,
        fetch_timeout_seconds: float = FETCH_TIMEOUT_SECONDS,
    ) -> None:
        self._leeway = settings.jwt_leeway_seconds
        self._now = now
        self._fetch_timeout = aiohttp.ClientTimeout(total=fetch_timeout_seconds)
        self._session: aiohttp.ClientSession | None = None
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self._issuers: dict[str, _KeyRing] = {}
        for issuer in settings.auth_issuers:
            breaker = build_breaker(settings, f"identity:{issuer.issuer}", monotonic)
            self._add(issuer.issuer, self._key_ring(issuer, monotonic, breaker))
        if dev_secret is not None:
            if not settings.is_local:
                raise ValueError(
                    "a development secret outside of development and test: anyone who has it can be anyone"
                )
            self._add(settings.auth_dev_issuer, _dev_key_ring(settings.auth_dev_issuer, dev_secret, monotonic))
        self._algorithms = frozenset(name for ring in self._issuers.values() for name in ring.algorithms) | _ASYMMETRIC

    async def authenticate(self, authorization: str | None) -> Identity:
        """The caller named by the token in an `Authorization` header; None is a missing header. Raises as `verify`."""
        return await self.verify(_bearer_token(authorization))

    async def verify(self, token: str) -> Identity:
        """The caller that `token` names.

        Raises Unauthorized with the texts and in the order of contract 3.3, and ServiceUnavailable when the issuer's
        keys cannot be reached and none are known. A token that was verified once costs a hash and two comparisons.
        """
        if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
            raise Unauthorized(_TOKEN_FORMAT)
        digest = hashlib.sha256(token.encode("ascii")).digest()
        verified = self._verified.get(digest)
        if verified is None:
            verified = await self._verify_anew(token)
            self._remember(digest, verified)
        else:
            self._verified.move_to_end(digest)
            self._check_times(verified.identity.expires_at, verified.not_before)
        return verified.identity

    def known_user(self, authorization: str) -> str | None:
        """The user of a token that was verified before, from an `Authorization` header; None for every other.

        Not a check: it may have expired meanwhile.
        """
        token = authorization.rpartition(" ")[2]
        verified = self._verified.get(hashlib.sha256(token.encode("latin-1", "replace")).digest())
        return None if verified is None else verified.identity.user_id

    def circuits(self) -> list[CircuitBreaker]:
        """One for each issuer whose keys come from elsewhere."""
        return [ring.breaker for ring in self._issuers.values() if ring.breaker is not None]

    def status(self) -> Literal["up", "down", "disabled"]:
        """For /health: `down` when the last fetch of an issuer's keys failed, `disabled` without real issuers."""
        rings = [ring for ring in self._issuers.values() if "HS256" not in ring.algorithms]
        if not rings:
            return "disabled"
        return "down" if any(ring.has_failed for ring in rings) else "up"

    async def count_keys(self, issuer: str) -> int:
        """How many usable keys this issuer's source holds right now, for the operator.

        Raises ValueError with what is wrong with it.
        """
        return await self._issuers[issuer].count_at_source()

    async def close(self) -> None:
        for ring in self._issuers.values():
            await ring.close()
        if self._session is not None:
            await self._session.close()

    def _add(self, name: str, ring: "_KeyRing") -> None:
        if name in self._issuers:
            raise ValueError(f"issuer {name} is configured twice")
        self._issuers[name] = ring

    def _key_ring(self, issuer: Issuer, monotonic: Clock, breaker: CircuitBreaker) -> "_KeyRing":
        keys: tuple[_Key, ...] = ()
        fetch: Callable[[], Awaitable[bytes]] | None = None
        if issuer.jwks_file is not None:
            path = issuer.jwks_file
            keys = _keys_of_file(issuer.issuer, path)
            fetch = lambda: asyncio.to_thread(path.read_bytes)  # noqa: E731  # a name would say no more
        elif issuer.jwks_url is not None:
            url = issuer.jwks_url
            fetch = lambda: self._download(url)  # noqa: E731
        else:
            keys = tuple(_key_of_pem(issuer.issuer, pem) for pem in issuer.public_keys)
        return _KeyRing(
            issuer.issuer,
            frozenset(issuer.algorithms),
            issuer.audience,
            keys,
            fetch,
            monotonic,
            breaker if fetch is not None else None,
        )

    async def _download(self, url: str) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._fetch_timeout)
        async with self._session.get(url, headers=outgoing_headers(), allow_redirects=False) as response:
            if response.status != 200:
                raise BadStatus(response.status)
            body = bytearray()
            async for chunk in response.content.iter_chunked(65536):
                body += chunk
                if len(body) > MAX_JWKS_BYTES:
                    raise ValueError("too large")
            return bytes(body)

    async def _verify_anew(self, token: str) -> "_Verified":
        parsed = _parse(token)
        algorithm = parsed.header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise Unauthorized(_ALGORITHM)
        issuer = parsed.claims.get("iss")
        ring = self._issuers.get(issuer) if isinstance(issuer, str) else None
        if ring is None:
            raise Unauthorized(_ISSUER)
        if algorithm not in ring.algorithms:
            raise Unauthorized(_ALGORITHM)
        keys = await ring.matching(algorithm, parsed.header.get("kid"))
        if not keys:
            raise Unauthorized(_UNKNOWN_KEY)
        verify = _ALGORITHMS[algorithm].verify
        if not any(verify(parsed.signed, key.material, parsed.signature) for key in keys):
            raise Unauthorized(_SIGNATURE)
        if "crit" in parsed.header:  # RFC 7515, section 4.1.11: extensions that must be understood, and we know none
            raise Unauthorized
        return self._accepted(parsed.claims, ring.audience)

    def _accepted(self, claims: dict[str, Any], audience: str | None) -> "_Verified":
        expires_at = _number(claims.get("exp"))
        if expires_at is None:
            raise Unauthorized(_MISSING_EXP)
        not_before = _number(claims.get("nbf", 0))
        if not_before is None:
            raise Unauthorized
        self._check_times(expires_at, not_before)
        if audience is not None and not _names_audience(claims.get("aud"), audience):
            raise Unauthorized(_AUDIENCE)
        subject = claims.get("sub")
        if not isinstance(subject, str) or not _is_subject(subject):
            raise Unauthorized(_MISSING_SUB)
        identity = Identity(
            UserId(subject),
            claims.get("ext_is_anonymous") is True,
            min(expires_at, _LATEST),
            _texts_of(claims.get("ext_ai_account_ids")),
        )
        return _Verified(identity, not_before)

    def _check_times(self, expires_at: float, not_before: float) -> None:
        now = self._now()
        if expires_at <= now - self._leeway:
            raise Unauthorized(_EXPIRED)
        if not_before > now + self._leeway:
            raise Unauthorized(_NOT_YET)

    def _remember(self, digest: bytes, verified: "_Verified") -> None:
        self._verified[digest] = verified
        if len(self._verified) > MAX_REMEMBERED_TOKENS:
            self._verified.popitem(last=False)


class _Verified(msgspec.Struct, frozen=True):
    identity: Identity
    not_before: float


class _Parsed(msgspec.Struct, frozen=True):
    header: dict[str, Any]
    claims: dict[str, Any]
    signed: bytes
    signature: bytes


class _Key(msgspec.Struct, frozen=True):
    """A key with the one algorithm that fits its type."""

    id: str | None
    algorithm: str
    material: Any


class _KeyRing:
    """The keys of one issuer, and how to get newer ones. Neither a failed fetch nor an open circuit takes away keys
    that we have."""

    def __init__(
        self,
        issuer: str,
        algorithms: frozenset[str],
        audience: str | None,
        keys: Sequence[_Key],
        fetch: Callable[[], Awaitable[bytes]] | None,
        monotonic: Clock,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        self.breaker = breaker
        self.algorithms = algorithms
        self.audience = audience
        self.has_failed = False
        self._issuer = issuer
        self._keys = keys
        self._fetch = fetch
        self._monotonic = monotonic
        self._fetched_at = monotonic() if keys else -math.inf
        self._attempted_at = -math.inf
        self._running: asyncio.Task[None] | None = None

    async def matching(self, algorithm: str, key_id: object) -> list[_Key]:
        """The keys that fit both; a key without an id fits every id. Raises ServiceUnavailable when there is no key."""
        found = self._fitting(algorithm, key_id)
        if not found:
            await self._refetch()
            found = self._fitting(algorithm, key_id)
        elif self._monotonic() - self._fetched_at > MAX_KEY_AGE_SECONDS:
            self._start_fetch()  # in the background: the keys at hand are good enough for this token
        if not self._keys:
            raise ServiceUnavailable(
                "The signing keys cannot be reached", details={"service": "identity"}, retry_after=self._retry_after()
            )
        return found

    async def count_at_source(self) -> int:
        """See `TokenVerifier.count_keys`."""
        if self._fetch is None:
            return len(self._keys)
        try:
            return len(_keys_of_jwks(await self._fetch()))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ValueError(str(error) or type(error).__name__) from error

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def _fitting(self, algorithm: str, key_id: object) -> list[_Key]:
        return [
            key
            for key in self._keys
            if key.algorithm == algorithm and (key_id is None or key.id is None or key.id == key_id)
        ]

    async def _refetch(self) -> None:
        """Fetches now, or joins the fetch that is running, or does nothing when the last one is too recent or the
        circuit is open."""
        self._start_fetch()
        if self._running is not None and not self._running.done():
            await asyncio.shield(self._running)

    def _start_fetch(self) -> None:
        pause = REFETCH_SECONDS if self._keys else RETRY_SECONDS
        is_fetching = self._running is not None and not self._running.done()
        if self._fetch is None or self.breaker is None or is_fetching:
            return
        if self._monotonic() - self._attempted_at < pause or (admission := self.breaker.admit()) is None:
            return
        self._attempted_at = self._monotonic()
        self._running = asyncio.get_running_loop().create_task(self._renew(self._fetch, admission))

    def _retry_after(self) -> int | None:
        wait = math.ceil(self.breaker.retry_after) if self.breaker is not None else 0
        return wait or None

    async def _renew(self, fetch: Callable[[], Awaitable[bytes]], admission: Admission) -> None:
        with admission:
            try:
                self._keys = _keys_of_jwks(await fetch())
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                self.has_failed = True
                log.warning("identity.keys_unreachable", issuer=self._issuer, error=type(error).__name__)
                admission.fail(reason_of(error))
            else:
                admission.succeed()
                self.has_failed = False
                self._fetched_at = self._monotonic()


def _dev_key_ring(issuer: str, secret: bytes, monotonic: Clock) -> _KeyRing:
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"the development secret needs at least {MIN_SECRET_BYTES} bytes")
    return _KeyRing(issuer, frozenset({"HS256"}), None, (_Key(None, "HS256", secret),), None, monotonic)


def _bearer_token(authorization: str | None) -> str:
    if authorization is None:
        raise Unauthorized(_MISSING_HEADER)
    parts = authorization.split()
    if len(parts) != 2 or parts[0].lower() != "bearer":
        raise Unauthorized(_HEADER_FORMAT)
    return parts[1]


def _parse(token: str) -> _Parsed:
    parts = token.split(".")
    if len(parts) != 3:
        raise Unauthorized(_TOKEN_FORMAT)
    try:
        header, claims = orjson.loads(_decoded(parts[0])), orjson.loads(_decoded(parts[1]))
        signature = _decoded(parts[2])
    except ValueError:
        raise Unauthorized(_TOKEN_FORMAT) from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise Unauthorized(_TOKEN_FORMAT)
    return _Parsed(header, claims, token.rpartition(".")[0].encode("ascii"), signature)


def _decoded(part: str) -> bytes:
    """Base64url in its one canonical form, so that a token has one spelling. Raises ValueError."""
    decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != part.encode("ascii"):
        raise ValueError("not canonical")
    return decoded


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _names_audience(claim: object, audience: str) -> bool:
    return claim == audience or (isinstance(claim, list) and audience in claim)


def _texts_of(claim: object) -> frozenset[str]:
    return frozenset(item for item in claim if isinstance(item, str)) if isinstance(claim, list) else frozenset()


def _is_subject(subject: str) -> bool:
    # U+0000 is refused in every request string, and PostgreSQL cannot store it.
    return 1 <= len(subject) <= MAX_SUBJECT_CHARACTERS and not subject.isspace() and "\0" not in subject


def _keys_of_jwks(document: bytes) -> tuple[_Key, ...]:
    """The usable keys of a key set (RFC 7517). Raises ValueError when there is none."""
    parsed = orjson.loads(document)
    entries = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(entries, list):
        raise ValueError("not a key set")  # noqa: TRY004  # the document is wrong, not our argument
    keys = tuple(key for key in map(_key_of_jwk, entries) if key is not None)[:MAX_KEYS]
    if not keys:
        raise ValueError("no usable key")
    return keys


def _key_of_jwk(entry: object) -> _Key | None:
    """A key for verifying signatures with one of our algorithms, else None: others may stand in the set."""
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    key_id, operations = entry.get("kid"), entry.get("key_ops")
    if isinstance(operations, list) and "verify" not in operations:
        return None
    expected = _ALGORITHM_OF_KEY_TYPE.get(str(entry.get("kty")))
    if expected is None or entry.get("alg", expected) != expected or not isinstance(key_id, str | None):
        return None
    public = {name: value for name, value in entry.items() if name in ("kty", "crv", "x", "y", "n", "e")}
    try:
        material = jwt.PyJWK(public, expected).key
    except (jwt.PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return _Key(key_id, expected, material) if _algorithm_of(material) == expected else None


def _keys_of_file(issuer: str, path: Path) -> tuple[_Key, ...]:
    try:
        return _keys_of_jwks(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"issuer {issuer}: the key set {path} cannot be used: {error}") from error


def _key_of_pem(issuer: str, pem: str) -> _Key:
    try:
        material = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"issuer {issuer}: not a public key in PEM: {error}") from error
    algorithm = _algorithm_of(material)
    if algorithm is None:
        raise ValueError(f"issuer {issuer}: keys must be RSA of {MIN_RSA_BITS} bits or more, P-256 or Ed25519")
    return _Key(None, algorithm, material)


def _algorithm_of(material: object) -> str | None:
    if isinstance(material, RSAPublicKey):
        return "RS256" if material.key_size >= MIN_RSA_BITS else None
    if isinstance(material, EllipticCurvePublicKey):
        return "ES256" if isinstance(material.curve, SECP256R1) else None
    return "EdDSA" if isinstance(material, Ed25519PublicKey | Ed448PublicKey) else None


def issue_dev_token(
    secret: bytes, issuer: str, user_id: str, ttl_seconds: int, is_anonymous: bool = False
) -> tuple[str, int]:
    """A token of the development issuer, and its `exp` in seconds since the epoch."""
    issued_at = int(clock.seconds_now())
    claims: dict[str, Any] = {"iss": issuer, "sub": user_id, "iat": issued_at, "exp": issued_at + ttl_seconds}
    if is_anonymous:
        claims["ext_is_anonymous"] = True
    return jwt.encode(claims, secret, algorithm="HS256"), claims["exp"]


def load_dev_secret(settings: Settings) -> bytes | None:
    """The secret of the development issuer: the setting, or `<DATA_DIR>/dev-secret`, made at the first start.

    None outside of development and test. Raises ValueError when the file holds something else, and OSError.
    """
    if not settings.is_local:
        return None
    if settings.auth_dev_secret is not None:
        return settings.auth_dev_secret.get_secret_value().encode()
    return load_kept_secret(settings.data_dir / "dev-secret")
