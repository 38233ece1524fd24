"""What a request says of its caller, read from its ASGI scope: the token, and the address it came from."""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl

# Offered by browsers, which cannot set headers on a WebSocket: `Sec-WebSocket-Protocol: bearer, <token>`.
SUBPROTOCOL: Final = "bearer"

Scope = Mapping[str, Any]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LONGEST_ADDRESS: Final = 64
_UNKNOWN: Final = "unknown"


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of this name (in lower case)."""
    for given, value in scope["headers"]:
        if given == name:
            return str(value.decode("latin-1"))
    return None


def socket_token(scope: Scope) -> tuple[str | None, str | None]:
    """(token, subprotocol to answer with) of a WebSocket: after `bearer` in the subprotocols, or in the query."""
    offered = scope.get("subprotocols", [])
    if len(offered) >= 2 and offered[0] == SUBPROTOCOL:
        return offered[1], SUBPROTOCOL
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    return query.get("token") or None, None


class ClientAddresses:
    """From which address a request came: the socket's, or what trusted proxies say of it.

    `trusted` are networks. When the socket's address is in one of them, the right-most entry of `X-Forwarded-For` that
    is not a trusted proxy counts: it was written by the last proxy that we trust, and what stands left of it by the
    client. Where nothing readable stands there, it is the socket's address again.
    """

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted = tuple(ipaddress.ip_network(network) for network in trusted)

    def key_of(self, scope: Scope) -> str:
        """One text per client: the IPv4 address, or the /64 network of an IPv6 address.

        A /64 is what one subscriber gets (RFC 6177, RFC 7421), with 2^64 addresses to come from: a bucket for each
        address would limit nobody.
        """
        client = scope.get("client")
        peer = _address(client[0]) if client else None
        if peer is None:
            return _UNKNOWN
        return _key(self._forwarded(scope) or peer if self._is_trusted(peer) else peer)

    def _forwarded(self, scope: Scope) -> Address | None:
        for entry in _from_the_right(scope):
            address = _address(entry)
            if address is None or not self._is_trusted(address):
                return address
        return None

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def _from_the_right(scope: Scope) -> Iterator[str]:
    """The entries of all `X-Forwarded-For` headers: several lines are one list (RFC 9110, section 5.3)."""
    for name, value in reversed(scope["headers"]):
        if name == b"x-forwarded-for":
            yield from reversed(value.decode("latin-1").split(","))


@lru_cache(maxsize=4096)
def _address(text: str) -> Address | None:
    """`192.0.2.1`, `192.0.2.1:443`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:443`; None for everything else."""
    text = text.strip()
    if len(text) > _LONGEST_ADDRESS:
        return None
    if text.startswith("["):
        text, closing, port = text[1:].partition("]")
        is_whole = ":" in text and bool(closing) and (not port or _is_port(port))
    elif text.count(":") == 1:
        text, colon, port = text.partition(":")
        is_whole = _is_port(colon + port)
    else:
        is_whole = True
    if not is_whole:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def _is_port(text: str) -> bool:
    return text.startswith(":") and text[1:].isascii() and text[1:].isdigit()


def _key(address: Address) -> str:
    return str(address) if address.version == 4 else f"{int(address) >> 64:x}::/64"
