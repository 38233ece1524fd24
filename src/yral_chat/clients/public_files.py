"""Fetches files from hosts that the operator allows, and from nowhere else."""

import asyncio
import ipaddress
import math
from collections.abc import Callable, Mapping
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from yral_chat.clients.circuits import reason_of
from yral_chat.clients.resilience import Admission, CircuitBreaker
from yral_chat.core.errors import MediaNotFound, PayloadTooLarge, StorageUnavailable
from yral_chat.core.tracing import outgoing_headers

TIMEOUT_SECONDS = 8.0
MAX_REDIRECTS = 3

# All that is routed to others (https://www.iana.org/assignments/ipv6-address-space). Outside of it lie, among more,
# forms of IPv4 addresses that Python takes for global: ::127.0.0.1, ::ffff:0:127.0.0.1, the local NAT64 of RFC 8215.
_UNICAST = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_ASSIGNED_V4 = ipaddress.ip_network("192.0.0.0/24")  # RFC 6890: of protocols, some clouds' metadata among them

IsAllowed = Callable[[str], bool]


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the internet at large, and not to this machine or its network.

    An IPv4 address that is wrapped in an IPv6 one (mapped, 6to4, Teredo, NAT64) is judged as what it wraps.
    """
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv4Address):
        return _is_public_v4(found)
    wrapped = [found.ipv4_mapped, found.sixtofour, *(found.teredo or ())]
    if found in _NAT64:
        wrapped.append(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF))
    if inner := [address for address in wrapped if address is not None]:
        return all(map(_is_public_v4, inner))
    return found in _UNICAST and found.is_global


def _is_public_v4(address: ipaddress.IPv4Address) -> bool:
    return address.is_global and not (address.is_multicast or address.is_reserved or address in _ASSIGNED_V4)


class _GuardedResolver(AbstractResolver):
    """Resolves names to allowed addresses only. The connection goes to what was checked: nobody looks it up again."""

    def __init__(self, is_allowed: IsAllowed, resolver: AbstractResolver | None) -> None:
        self._resolver = resolver or ThreadedResolver()
        self._is_allowed = is_allowed

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)  # type: ignore[arg-type]
        if not all(self._is_allowed(result["host"]) for result in found):
            raise OSError("the name leads to a private address")
        return found

    async def close(self) -> None:
        await self._resolver.close()


class PublicFiles:
    """GET without credentials, bounded in size and time; redirects stay on their host."""

    def __init__(
        self,
        is_allowed: IsAllowed = is_public,
        breakers: Mapping[str, CircuitBreaker] | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """`breakers` are circuits by host; a host without one is always asked. `resolver`: by default the system's."""
        self.breakers = breakers or {}
        self._resolver = resolver
        self._is_allowed = is_allowed
        self._session: aiohttp.ClientSession | None = None

    async def get(self, url: str, *, max_bytes: int) -> bytes:
        """The file at `url`. Raises MediaNotFound, PayloadTooLarge, StorageUnavailable."""
        breaker = self.breakers.get(urlsplit(url).hostname or "")
        if breaker is None:
            return await self._get(url, max_bytes)
        if (admission := breaker.admit()) is None:
            raise StorageUnavailable("The file cannot be fetched", retry_after=math.ceil(breaker.retry_after) or None)
        with admission:
            try:
                content = await self._get(url, max_bytes)
            except (MediaNotFound, PayloadTooLarge):
                admission.succeed()
                raise
            except StorageUnavailable as error:
                _settle(admission, error.__cause__)
                raise
            admission.succeed()
        return content

    async def _get(self, url: str, max_bytes: int) -> bytes:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                for _ in range(1 + MAX_REDIRECTS):
                    content, target = await self._ask(url, max_bytes)
                    if target is None:
                        return content
                    url = target
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            raise StorageUnavailable("The file cannot be fetched") from error
        raise StorageUnavailable("The file cannot be fetched")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _ask(self, url: str, max_bytes: int) -> tuple[bytes, str | None]:
        """(content, None) or (b"", where the host sends us)."""
        target = URL(url)
        self._check_literal(target, urlsplit(url).hostname)
        async with self._open().get(target, headers=outgoing_headers(), allow_redirects=False) as response:
            if response.status in (301, 302, 303, 307, 308):
                return b"", _on_same_host(url, response.headers.get("Location", ""))
            if response.status in (404, 410):
                raise MediaNotFound
            response.raise_for_status()
            content = bytearray()
            async for packet in response.content.iter_any():
                content += packet
                if len(content) > max_bytes:
                    raise PayloadTooLarge(details={"limit": max_bytes, "unit": "bytes"})
            return bytes(content), None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=_GuardedResolver(self._is_allowed, self._resolver), limit=16, use_dns_cache=False
            )
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    def _check_literal(self, target: URL, allowed_host: str | None) -> None:
        """An address in numbers is connected to without a resolver. Raises OSError when it is a private one, and when
        the client would ask another host than the one that was allowed: it turns ①②⑦.⓪.⓪.① into 127.0.0.1."""
        if target.scheme not in ("http", "https") or target.host is None or target.host != allowed_host:
            raise OSError("an address that can be read in two ways")
        try:
            ipaddress.ip_address(target.host)
        except ValueError:
            return
        if not self._is_allowed(target.host):
            raise OSError("a private address")


def _settle(admission: Admission, cause: BaseException | None) -> None:
    """What a failure says of its host. Whoever names files could name useless ones: what the host answers to one, and
    where it sends us, closes it to nobody else."""
    if isinstance(cause, aiohttp.ClientResponseError):
        is_outage = cause.status >= 500 or cause.status == 429
    else:
        is_outage = isinstance(cause, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError | TimeoutError)
    if is_outage and isinstance(cause, Exception):
        admission.fail(reason_of(cause))
    else:
        admission.succeed()


def _on_same_host(url: str, location: str) -> str:
    """The target of a redirect. Raises OSError when it leads to another host, or to another service of it."""
    target = urljoin(url, location)
    here, there = urlsplit(url), urlsplit(target)
    if there.scheme not in ("http", "https") or there.hostname != here.hostname or there.username is not None:
        raise OSError("a redirect to another host")
    if there.port not in (here.port, None, 80, 443):
        raise OSError("a redirect to another host")
    return target
