"""What routes ask for: Annotated aliases that hand out what resources.py built, and the shapes of common input."""

import hmac
from typing import Annotated, Any

import orjson
from fastapi import Depends, Header, Path, Query, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.base import SecurityBase
from pydantic import AfterValidator, BeforeValidator, Field
from starlette.responses import Response

from yral_chat.clients.identity import Identity
from yral_chat.core.errors import AppError, Invalid, Unauthorized
from yral_chat.resources import Resources

# These two only draw the OpenAPI document; the checks are ours, with the contract's texts.
bearer = HTTPBearer(auto_error=False, bearerFormat="JWT", description="A token of a configured issuer")
admin_key = APIKeyHeader(name="X-Admin-Key", auto_error=False, description="The operator's key")


def _resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


async def _own(request: Request) -> Resources:
    return _resources(request)


class _SignedIn(SecurityBase):
    """The caller. The scheme and the check are one dependency: solving a second one costs 15 µs a request."""

    model = bearer.model
    scheme_name = bearer.scheme_name

    async def __call__(self, request: Request) -> Identity:
        # Verified already where requests are counted (middleware/rate_limits.py).
        caller: Identity | AppError | None = request.scope["state"].get("caller")
        if caller is None:
            caller = await _resources(request).verifier.authenticate(request.headers.get("authorization"))
        if isinstance(caller, AppError):
            raise caller
        request.state.user_id = caller.user_id
        return caller


class _MaybeSignedIn(SecurityBase):
    """The caller, if any: on these routes an invalid token counts as none (contract section 3.1)."""

    model = bearer.model
    scheme_name = bearer.scheme_name

    async def __call__(self, request: Request) -> Identity | None:
        if request.headers.get("authorization") is None:
            return None
        try:
            return await _signed_in(request)
        except Unauthorized:
            return None


_signed_in = _SignedIn()


async def _operator(
    request: Request, _: Annotated[object, Security(bearer)], __: Annotated[object, Security(admin_key)]
) -> None:
    """Open in development and test; elsewhere the metrics token or the admin key."""
    resources = _resources(request)
    if resources.settings.is_local:
        return
    # These routes are not limited, but neither may they be where a key can be guessed without end.
    address = resources.client_addresses.key_of(request.scope)
    await resources.rate_limits.check_guesses(address)
    wrong = _wrong_credential(request, resources)
    if wrong is not None:
        if not {"x-admin-key", "authorization"}.isdisjoint(request.headers):
            await resources.rate_limits.count_guess(address)
        raise Unauthorized(wrong)


def _wrong_credential(request: Request, resources: Resources) -> str | None:
    """What is wrong with the operator's key or token, or None."""
    given_key = request.headers.get("x-admin-key")
    if given_key is not None:
        return None if _equals(given_key, resources.settings.admin_api_key) else "Invalid admin key"
    scheme, _, token = (request.headers.get("authorization") or "").partition(" ")
    is_right = scheme.lower() == "bearer" and _equals(token.strip(), resources.settings.metrics_token)
    return None if is_right else "Invalid metrics token"


async def _admin(request: Request, _: Annotated[object, Security(admin_key)]) -> None:
    """Whoever has the admin key; nobody where none is set."""
    given = request.headers.get("x-admin-key")
    if given is None or not _equals(given, _resources(request).settings.admin_api_key):
        raise Unauthorized("Invalid admin key")


def _equals(given: str, secret: Any) -> bool:
    """In constant time; an unset secret equals nothing."""
    if secret is None:
        return False
    return hmac.compare_digest(given.encode(), secret.get_secret_value().encode())


Services = Annotated[Resources, Depends(_own)]
Caller = Annotated[Identity, Security(_signed_in)]
OptionalCaller = Annotated[Identity | None, Security(_MaybeSignedIn())]
operator = Depends(_operator)
admin = Depends(_admin)


def _clean(value: Any) -> Any:
    """Request strings are trimmed; what no text can hold is refused (contract section 1.2)."""
    if isinstance(value, str):
        value = value.strip()
        if "\x00" in value:
            raise ValueError("The character U+0000 is not allowed")
    return value


def _storable(value: str) -> str:
    """An id that no database could hold is an unknown id."""
    if "\x00" in value:
        raise ValueError("not an id")
    return value


def _whole(value: Any) -> Any:
    """What pydantic takes for an integer and the contract does not: 5.0, true, "1_0"."""
    if isinstance(value, bool | float) or (isinstance(value, str) and not set("._").isdisjoint(value)):
        raise ValueError("Not an integer")
    return value


whole = BeforeValidator(_whole)

# Bounds stand before it, next to `str`: behind it they would speak of "items" instead of characters.
cleaned = BeforeValidator(_clean)
Text = Annotated[str, cleaned]
Id = Annotated[str, Field(min_length=1, max_length=255), cleaned]
PathId = Annotated[str, Path(min_length=1, max_length=255), AfterValidator(_storable)]


def absent_when_empty(default: Any) -> BeforeValidator:
    """An empty query parameter counts as absent."""
    return BeforeValidator(lambda value: default if value == "" else value)


MAX_KEY_CHARACTERS = 128


def checked_key(header: str | None) -> str | None:
    """The key in an `Idempotency-Key` header; blank counts as absent. Raises Invalid."""
    key = (header or "").strip() or None
    if key is not None and (len(key) > MAX_KEY_CHARACTERS or not key.isprintable()):
        raise Invalid.field(["header", "Idempotency-Key"], f"1 to {MAX_KEY_CHARACTERS} characters", "invalid_key")
    return key


# On what a repeated request gets (contract section 8.3), a refusal too.
REPLAYED = {"Idempotency-Replayed": "true"}

IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key")]
PageLimit20 = Annotated[int, Query(ge=1, le=100), whole, absent_when_empty(20)]
PageLimit50 = Annotated[int, Query(ge=1, le=100), whole, absent_when_empty(50)]
HistoryLimit = Annotated[int, Query(ge=1, le=200), whole, absent_when_empty(50)]
Offset = Annotated[int, Query(ge=0, le=2**31 - 1), whole, absent_when_empty(0)]
OptionalId = Annotated[Id | None, Query(), absent_when_empty(None)]


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`value` as it is: the objects of core/objects.py are already the wire's (tests hold them to the document)."""
    return Response(orjson.dumps(value), status, headers, "application/json")
