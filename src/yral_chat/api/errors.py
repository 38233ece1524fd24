"""Every failure leaves in one shape (contract section 2): here errors become responses, and their documentation."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from yral_chat.core.errors import AppError, BadRequest, Invalid, NotFound, Overloaded, envelope
from yral_chat.core.logging import correlation_id, log

MAX_LISTED_ERRORS: Final = 50
# A location may contain keys that the client made up.
MAX_LOCATION_TEXT: Final = 100

_WITH_DETAIL: Final = frozenset({401, 403})
_WITH_RETRY_AFTER: Final = frozenset({429, 503, 504})
_DEFAULT_RETRY_AFTER: Final = 5

# What the framework refuses by itself. Our own refusals are AppErrors and bring their code.
_CODES: Final = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "payload_too_large",
    415: "unsupported_media_type",
    422: "validation_error",
    429: "rate_limit_exceeded",
    503: "service_unavailable",
}
_DESCRIPTIONS: Final = {
    400: "The request could not be read",
    401: "No valid credentials",
    403: "Not allowed for this caller",
    404: "No such resource",
    405: "No such method on this path",
    409: "The present state does not allow it",
    413: "The body is too large",
    415: "The content is not of an allowed type",
    422: "The request is not valid",
    429: "Too many requests",
    500: "Unexpected failure",
    503: "Not available right now",
    504: "Not ready in time",
}
_RETRY_AFTER: Final = {
    "Retry-After": {
        "description": "Seconds after which to send the same again",
        "schema": {"type": "integer", "minimum": 1},
    }
}


class ErrorBody(BaseModel):
    """The body of every failure."""

    error: str = Field(description="Stable code", examples=["not_found"])
    message: str = Field(description="Readable sentence", examples=["Conversation not found"])
    details: dict[str, Any] = Field(description="What the code brings with it, else empty")
    correlation_id: str = Field(description="The same as the header X-Correlation-ID")
    detail: str | SkipJsonSchema[None] = Field(None, description="Only with 401 and 403: repeats the message")


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For `responses=` of a route or router: these statuses answer with `ErrorBody`."""
    return {
        status: {"model": ErrorBody, "description": _DESCRIPTIONS[status]}
        | ({"headers": _RETRY_AFTER} if status in _WITH_RETRY_AFTER else {})
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Renders every error of `app` and corrects what its OpenAPI document says of validation errors."""
    app.exception_handler(AppError)(_on_app_error)
    app.exception_handler(MemoryError)(_on_memory_error)
    app.exception_handler(RequestValidationError)(_on_validation_error)
    app.exception_handler(HTTPException)(_on_http_exception)
    _document_validation_errors(app)


async def _on_app_error(request: Request, error: AppError) -> Response:
    if isinstance(error, Overloaded):
        request.state.overload_reason = error.reason  # for middleware/gate.py, which counts
    response = _rendered(request, error.status, error.code, error.message, error.details, error.retry_after)
    response.headers.update(error.headers)
    return response


async def _on_memory_error(request: Request, error: MemoryError) -> Response:  # noqa: ARG001 - Starlette's signature
    """What was asked for takes more memory than there is now; with its frames it is given back."""
    log.warning("request.out_of_memory", endpoint=getattr(request.scope.get("route"), "path", ""))
    return await _on_app_error(request, Overloaded("memory"))


async def _on_validation_error(request: Request, error: RequestValidationError) -> Response:
    found = error.errors()[:MAX_LISTED_ERRORS]
    if any(tuple(item["loc"][:1]) == ("path",) for item in found):
        return await _on_app_error(request, NotFound())  # an id of an odd form is an unknown id
    return await _on_app_error(request, Invalid(details={"errors": [_stated(item, error.body) for item in found]}))


async def _on_http_exception(request: Request, error: HTTPException) -> Response:
    """The framework's own refusals: unknown path, wrong method, unreadable body."""
    if isinstance(error.__cause__, AppError):  # raised while the body was read; FastAPI wrapped it
        return await _on_app_error(request, error.__cause__)
    if isinstance(error.__cause__, MemoryError):
        return await _on_memory_error(request, error.__cause__)
    if _is_unreadable_json(request, error):
        return await _on_app_error(request, _json_invalid(error.__cause__))
    code = _CODES.get(error.status_code, "internal_server_error" if error.status_code >= 500 else BadRequest.code)
    response = _rendered(request, error.status_code, code, error.detail, {}, None)
    response.headers.update(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["Allow"] = ", ".join(sorted(_methods_of_path(request)))
    return response


def _rendered(
    request: Request, status: int, code: str, message: str, details: Mapping[str, Any], retry_after: int | None
) -> Response:
    request.state.error_code = code  # for the access log
    body = envelope(code, message, dict(details), correlation_id.get(), with_detail=status in _WITH_DETAIL)
    response = Response(body, status, media_type="application/json")
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    if status in _WITH_RETRY_AFTER:
        response.headers["Retry-After"] = str(max(1, retry_after or _DEFAULT_RETRY_AFTER))
    return response


def _stated(item: Mapping[str, Any], document: Any) -> dict[str, Any]:
    """One validation error without the input that caused it."""
    kind: str = item["type"]
    loc, msg = list(item["loc"]), item["msg"]
    if kind == "json_invalid":
        loc = ["body", _byte_offset(document, loc[-1])]
        msg = f"Invalid JSON: {item.get('ctx', {}).get('error', msg)}"
    elif kind == "union_tag_invalid":
        msg = f"Expected one of the tags {item['ctx']['expected_tags']}"  # the original repeats the tag it found
    return {"type": kind, "loc": [_location(part) for part in loc], "msg": msg}


def _location(part: str | int) -> str | int:
    return part if isinstance(part, int) else part[:MAX_LOCATION_TEXT]


def _byte_offset(document: Any, characters: Any) -> int:
    """FastAPI counts the characters of the decoded document; the wire counts bytes."""
    if not isinstance(document, str) or not isinstance(characters, int):
        return 0
    return len(document[:characters].encode("utf-8", "surrogatepass"))


def _is_unreadable_json(request: Request, error: HTTPException) -> bool:
    """FastAPI answers 400 to what its JSON parser refuses in other ways than by a JSONDecodeError."""
    return (
        error.status_code == HTTPStatus.BAD_REQUEST
        and isinstance(error.__cause__, ValueError | RecursionError)  # not UTF-8, a number of 5000 digits; too deep
        and "json" in request.headers.get("content-type", "").lower()
    )


def _json_invalid(cause: BaseException | None) -> Invalid:
    if isinstance(cause, UnicodeDecodeError):
        return Invalid.field(["body", cause.start], "Invalid JSON: not UTF-8", "json_invalid")
    return Invalid.field(["body", 0], "Invalid JSON: beyond what can be read", "json_invalid")


def _methods_of_path(request: Request) -> Iterable[str]:
    """Starlette names the methods of the first route that fits the path; the header must name all."""
    methods: set[str] = set()
    for context in iter_route_contexts(request.app.routes):
        pattern = getattr(context, "path_regex", None)
        if pattern is not None and pattern.match(request.scope["path"]):
            methods |= context.methods or set()
    return methods


def _document_validation_errors(app: FastAPI) -> None:
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document.get("components", {}).get("schemas", {})
        if schemas.pop("HTTPValidationError", None) is not None:
            schemas.pop("ValidationError", None)
            schemas.setdefault("ErrorBody", ErrorBody.model_json_schema(mode="serialization"))
            for path in document["paths"].values():
                for operation in path.values():
                    _correct_validation_error(operation)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _correct_validation_error(operation: Any) -> None:
    response = operation.get("responses", {}).get("422") if isinstance(operation, dict) else None
    if response is not None:
        response["description"] = _DESCRIPTIONS[422]
        response["content"] = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
