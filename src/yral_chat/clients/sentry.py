"""Crashes for Sentry, or what speaks its protocol (the extra `sentry`): kind and place of an error, and a few ids.

Nothing of the SDK hooks itself in: no integration, no breadcrumbs, no request, no local variables. Texts of exceptions
that are not ours stay here (core/tracebacks.py says why).
"""

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from yral_chat.core.config import Settings
from yral_chat.core.logging import correlation_id
from yral_chat.core.trace_context import trace
from yral_chat.core.tracebacks import safe_text
from yral_chat.core.version import VERSION

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint

CLOSE_SECONDS: Final = 2.0
MISSING: Final = "SENTRY_DSN is set, but its package is missing: install yral-chat[sentry], or unset it."
_KEPT: Final = frozenset(
    {"event_id", "timestamp", "level", "platform", "exception", "release", "environment", "tags", "sdk", "transaction"}
)


class SentryReporter:
    """See `CrashReporter`. Raises ValueError when the package is missing or the DSN is none."""

    def __init__(self, settings: Settings) -> None:
        assert settings.sentry_dsn is not None  # noqa: S101 - whoever makes this has looked
        try:
            import sentry_sdk
            from sentry_sdk.utils import BadDsn, event_from_exception
        except ModuleNotFoundError as error:
            raise ValueError(MISSING) from error
        try:
            self._client = sentry_sdk.Client(
                dsn=settings.sentry_dsn.get_secret_value(),
                release=f"yral-chat@{VERSION}",
                environment=settings.environment,
                default_integrations=False,
                auto_enabling_integrations=False,
                auto_session_tracking=False,
                send_default_pii=False,
                send_client_reports=False,
                include_local_variables=False,
                max_request_body_size="never",
                max_breadcrumbs=0,
                shutdown_timeout=CLOSE_SECONDS,
                before_send=_without_content,
            )
        except BadDsn:
            raise ValueError("SENTRY_DSN is no DSN: it looks like https://key@host/number") from None
        # Not through a scope, which would ask the process's own client, and that is for whoever else uses the SDK.
        self._event_of = event_from_exception

    def report(self, error: BaseException, where: str, tags: Mapping[str, str]) -> None:
        """Puts it into the queue of the SDK's thread; what a dead server does not take is dropped."""
        event, hint = self._event_of(error, client_options=self._client.options)
        place = trace.get()
        known = {"correlation_id": correlation_id.get(), "trace_id": place.trace_id if place else "", **tags}
        event["tags"] = {name: value for name, value in known.items() if value}
        event["transaction"] = where
        self._client.capture_event(event, hint)

    def close(self) -> None:
        """Sends what is left, for at most CLOSE_SECONDS and a little. Blocks."""
        thread = threading.Thread(target=self._client.close, name="sentry.close", daemon=True)
        thread.start()
        thread.join(CLOSE_SECONDS + 1)


def _without_content(event: "Event", hint: "Hint") -> "Event":
    """Only what is known to be harmless leaves."""
    kept: Any = {name: value for name, value in event.items() if name in _KEPT}
    texts = _safe_texts(hint)
    for value in kept.get("exception", {}).get("values", ()):
        value["value"] = texts.get(value.get("type"), "")
        if isinstance(mechanism := value.get("mechanism"), dict):
            mechanism.pop("data", None)
    result: Event = kept
    return result


def _safe_texts(hint: "Hint") -> dict[str, str]:
    """What the exceptions of a chain say, by the name of their kind, as far as it may be said."""
    texts: dict[str, str] = {}
    error: BaseException | None = (hint.get("exc_info") or (None, None, None))[1]
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        texts[type(error).__name__] = safe_text(error)
        error = error.__cause__ or error.__context__
    return texts
