"""Signed local URLs: HMAC-SHA256 over key and expiry, in hexadecimal."""

import hashlib
import hmac
from typing import Final

from yral_chat.clients.storage.keys import is_key
from yral_chat.core.errors import BadSignature

BLOCK_BYTES: Final = 64  # of SHA-256
# Unix seconds until the year 33658.
MAX_EXPIRES_DIGITS: Final = 12


class UrlSigner:
    """HMAC as in RFC 2104, with the two blocks of the secret hashed once.

    A page of messages is signed on a database thread: this takes 1.2 µs, `hmac.digest` 3 and `HMAC.copy` 5.
    """

    def __init__(self, secret: bytes) -> None:
        block = (hashlib.sha256(secret).digest() if len(secret) > BLOCK_BYTES else secret).ljust(BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def sign(self, key: str, expires: str) -> str:
        """The line break, which no key has, keeps the two parts apart."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(f"{key}\n{expires}".encode())
        outer.update(inner.digest())
        return outer.hexdigest()

    def verify(self, key: str, expires: str | None, signature: str | None, now: float) -> int:
        """The seconds, at least 1, until `expires`. Raises BadSignature for everything that was not signed here."""
        if expires is None or signature is None or not is_key(key):
            raise BadSignature
        if not (expires.isascii() and expires.isdigit() and len(expires) <= MAX_EXPIRES_DIGITS):
            raise BadSignature
        right = self.sign(key, expires).encode()
        if not hmac.compare_digest(right, signature.encode("utf-8", "surrogatepass")):
            raise BadSignature
        left = int(expires) - int(now)
        if left <= 0:
            raise BadSignature
        return left
