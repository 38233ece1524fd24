"""How requests name files (contract section 12.4): a storage key, an address of ours for one, or an allowed host."""

from collections.abc import Callable
from urllib.parse import urlsplit

from yral_chat.core.errors import Invalid
from yral_chat.core.objects import is_external

MAX_REFERENCE_CHARACTERS = 2048


class References:
    """Reduces what clients send, so that the same file is always named the same way."""

    def __init__(self, key_of: Callable[[str], str | None], allowed_hosts: tuple[str, ...]) -> None:
        """`key_of` finds the key in an address that this service issued."""
        self._key_of = key_of
        self._allowed_hosts = frozenset(allowed_hosts)

    def reduce(self, reference: str, place: list[str | int]) -> str:
        """A storage key, or the address of a file on an allowed host. Raises Invalid that names `place`."""
        if len(reference) > MAX_REFERENCE_CHARACTERS:
            raise Invalid.field(place, f"At most {MAX_REFERENCE_CHARACTERS} characters", "string_too_long")
        if "://" not in reference:
            return reference
        if (key := self._key_of(reference)) is not None:
            return key
        if not is_external(reference) or not self._is_allowed(reference):
            raise Invalid.field(place, "Not a file of this service, and not on an allowed host", "media_host")
        return reference

    def _is_allowed(self, address: str) -> bool:
        try:
            parts = urlsplit(address)
            has_credentials = parts.username is not None or parts.password is not None
            return parts.hostname in self._allowed_hosts and not has_credentials and parts.port in (None, 80, 443)
        except ValueError:
            return False
