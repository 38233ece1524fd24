"""What an `Accept` header asks for (RFC 9110, section 12.5.1)."""

import re

QUALITY = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


def prefers_html(accept: str | None) -> bool:
    """True when the header gives `text/html` a higher weight than `application/json`.

    A tie, `*/*`, no header and an unreadable one mean JSON: an API client that says nothing gets what it got before
    there was a page, while every browser names `text/html` ahead of its wildcard.
    """
    if not accept:
        return False
    ranges = [_media_range(part) for part in accept.split(",")]
    return _weight("text/html", ranges) > _weight("application/json", ranges)


def _media_range(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            return name, _quality(value.strip())
    return name, 1.0


def _quality(value: str) -> float:
    # An unreadable weight counts as a refusal: it must not win against something that was said clearly.
    return float(value) if QUALITY.fullmatch(value) else 0.0


def _weight(media_type: str, ranges: list[tuple[str, float]]) -> float:
    """The weight of the most specific range that covers `media_type`, 0 when none does."""
    family = media_type.partition("/")[0] + "/*"
    for candidate in (media_type, family, "*/*"):
        found = [quality for name, quality in ranges if name == candidate]
        if found:
            return max(found)
    return 0.0
