"""What a provider hands over: bytes, or an address from which they are fetched with suspicion."""

from binascii import Error, a2b_base64
from typing import NamedTuple
from urllib.parse import urlsplit

from yral_chat.clients.language_model import ModelFailure
from yral_chat.clients.vendor_answers import Demand, answer_to, plain_headers
from yral_chat.clients.vendor_http import VendorHttp

# A lossless PNG of four megapixels has 12 MB; nobody needs more in a chat.
MAX_PICTURE_BYTES = 25 * 1024 * 1024
# As base64 inside an object, with room for what else the object says.
MAX_ENCODED_BYTES = MAX_PICTURE_BYTES * 4 // 3 + 64 * 1024
FETCH_SECONDS = 30.0


class Origin(NamedTuple):
    scheme: str
    host: str
    port: int | None


def origin_of(url: str) -> Origin:
    """To which server `url` leads. Raises ModelFailure when that cannot be read from it."""
    try:
        parts = urlsplit(url)
        return Origin(parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme))
    except ValueError as error:
        raise ModelFailure("empty", "an address that cannot be read") from error


async def picture_at(
    http: VendorHttp, url: str, *, base_url: str, key: str | None, deadline: float, correlation_id: str
) -> bytes:
    """The picture that `url` leads to: a data URL, https anywhere, or http on the host of `base_url`.

    The key goes to the origin of `base_url` alone, redirects are refused. Raises ModelFailure.
    """
    if url.startswith("data:"):
        return checked(_in_data_url(url))
    origin, home = origin_of(url), origin_of(base_url)
    if not origin.host or (origin.scheme != "https" and (origin.scheme != "http" or origin.host != home.host)):
        raise ModelFailure("empty", "the output's address is not a safe one")
    headers = plain_headers(correlation_id, key if origin == home else None)
    demand = Demand(
        url=url,
        headers={**headers, "Accept": "image/*"},
        method="GET",
        timeout_seconds=FETCH_SECONDS,
        max_bytes=MAX_PICTURE_BYTES,
    )
    try:
        return checked(await answer_to(http, demand, deadline))
    except ModelFailure as failure:
        if failure.outcome in ("rejected", "model_gone"):
            # Says something about the file, nothing about the model or about our key.
            raise ModelFailure("empty", f"the output cannot be fetched: {failure.reason}") from failure
        raise


def checked(data: bytes) -> bytes:
    """`data`, when it begins as a picture does. Raises ModelFailure."""
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    if not is_webp and not data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")):
        raise ModelFailure("empty", "the output is not a picture")
    if len(data) > MAX_PICTURE_BYTES:
        raise ModelFailure("empty", "the output is beyond the size limit")
    return data


def _in_data_url(url: str) -> bytes:
    head, _, encoded = url.partition(",")
    if not head.endswith(";base64"):
        raise ModelFailure("empty", "the output is not a picture")
    try:
        return a2b_base64(encoded, strict_mode=True)
    except (Error, ValueError) as error:
        raise ModelFailure("empty", "the output is not a picture") from error
