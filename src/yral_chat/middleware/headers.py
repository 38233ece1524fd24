"""What every response tells browsers about how far to trust it. A route that says something itself is not overruled.

After https://cheatsheetseries.owasp.org/cheatsheets/REST_Security_Cheat_Sheet.html (security headers). The pages have a
policy of their own (web/routes.py), and so have files that people have uploaded (api/media.py).
"""

from typing import Final

from yral_chat.core.config import Settings

Header = tuple[bytes, bytes]

_SAFE: Final[tuple[Header, ...]] = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
# No page of another origin may have it drawn or played, which scripts could measure. Calls under CORS are unaffected.
_OWN_PAGES: Final[Header] = (b"cross-origin-resource-policy", b"same-origin")
# Pictures and recordings are shown by apps of any origin.
_ALL_PAGES: Final[Header] = (b"cross-origin-resource-policy", b"cross-origin")
_SHOWN_ELSEWHERE: Final = ("/media/", "/static/personas/")
# One year, for this host alone: what else the domain has is not ours to decide.
_TLS_ONLY: Final[Header] = (b"strict-transport-security", b"max-age=31536000")


class SafeHeaders:
    """Made once, because each response asks for them."""

    def __init__(self, *, is_https: bool = False) -> None:
        """`is_https`: clients come through TLS, so that browsers may be told never to come otherwise (RFC 6797)."""
        common = (*_SAFE, _TLS_ONLY) if is_https else _SAFE
        self._own = (*common, _OWN_PAGES)
        self._shown = (*common, _ALL_PAGES)

    def of(self, path: str) -> tuple[Header, ...]:
        return self._shown if path.startswith(_SHOWN_ELSEWHERE) else self._own


def safe_headers(settings: Settings) -> SafeHeaders:
    return SafeHeaders(is_https=settings.base_url.startswith("https://"))
