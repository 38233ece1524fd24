"""Nobody makes the service ask a machine of its own network (server-side request forgery)."""

import socket
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from tests.fakes.switched import SwitchedServer
from yral_chat.clients.public_files import PublicFiles, is_public
from yral_chat.core.errors import Invalid, StorageUnavailable
from yral_chat.services.media.references import References

PRIVATE = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0",  # noqa: S104 - nothing is bound
    "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "192.0.0.192", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1",
    "::", "::1", "::1%lo", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1",
    "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:7f00:1::",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
# What a browser or a C library takes for 127.0.0.1 or 169.254.169.254.
DISGUISES = [
    "http://127.0.0.1/", "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://127.1/", "http://0/",
    "http://0x7f.0.0.1/", "http://017700000001/", "http://127.0.0.1./", "http://localhost/", "http://localhost./",
    "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[0:0:0:0:0:0:0:1]/",
    "http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://user:secret@127.0.0.1/", "http://169.254.169.254/latest/",
    "http://2852039166/", "http://[fd00:ec2::254]/", "http://[::127.0.0.1]/", "http://allowed.example\\@127.0.0.1/",
]  # fmt: skip
OTHER_SCHEMES = [
    "file:///etc/passwd", "ftp://allowed.example/x", "gopher://allowed.example/_x", "data:image/png;base64,AAAA",
    "unix:///run/x.sock", "jar:http://allowed.example/x", "//allowed.example/x", "javascript:alert(1)", "",
]  # fmt: skip


class Resolver(AbstractResolver):
    """Answers with one address after the other, the last one again and again; remembers what it was asked."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        address = self.addresses.pop(0) if len(self.addresses) > 1 else self.addresses[0]
        return [ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        pass


Files = Callable[..., PublicFiles]


@pytest.fixture
async def files() -> AsyncIterator[Files]:
    made: list[PublicFiles] = []

    def make(is_allowed: Callable[[str], bool] = is_public, resolver: Resolver | None = None) -> PublicFiles:
        made.append(PublicFiles(is_allowed, resolver=resolver))
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def refused(files: PublicFiles, url: str) -> None:
    with pytest.raises(StorageUnavailable) as refusal:
        await files.get(url, max_bytes=100)
    assert refusal.value.message == "The file cannot be fetched", "nothing of the address or the reason"


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_of_a_network_is_private(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.fixture
async def inside() -> AsyncIterator[SwitchedServer]:
    """A server of the network, which redirects to what its query says."""

    async def answer(request: web.Request) -> web.Response:
        if target := request.query.get("to"):
            return web.Response(status=302, headers={"Location": target})
        return web.Response(text="a secret of the inside")

    async with SwitchedServer(answer) as server:
        yield server


@pytest.mark.parametrize("url", DISGUISES)
async def test_a_disguised_address_is_not_asked(files: Files, inside: SwitchedServer, url: str) -> None:
    port = inside.url.rpartition(":")[2]
    head, tail = url.rsplit("/", 1) if not url.endswith("latest/") else (url.removesuffix("/latest/"), "latest/")
    await refused(files(), f"{head}:{port}/{tail}")
    assert inside.count == 0


@pytest.mark.parametrize("url", OTHER_SCHEMES)
async def test_another_scheme_is_not_asked(files: Files, url: str) -> None:
    await refused(files(), url)


async def test_a_name_that_leads_inside_is_not_asked(files: Files, inside: SwitchedServer) -> None:
    port = inside.url.rpartition(":")[2]
    await refused(files(resolver=Resolver("127.0.0.1")), f"http://allowed.example:{port}/")
    assert inside.count == 0


async def test_what_was_checked_is_what_is_asked(files: Files, inside: SwitchedServer) -> None:
    """DNS rebinding: the name leads to the internet when it is checked, and inside a moment later."""
    port = inside.url.rpartition(":")[2]
    resolver = Resolver("127.0.0.1", "127.0.0.2")  # 127.0.0.1 stands for the internet here
    internet = files(lambda address: address == "127.0.0.1", resolver)
    assert await internet.get(f"http://allowed.example:{port}/", max_bytes=100) == b"a secret of the inside"
    assert resolver.asked == ["allowed.example"], "it was looked up once more between the check and the call"


async def test_a_redirect_is_checked_anew(files: Files, inside: SwitchedServer) -> None:
    """The same name, which meanwhile leads inside; the connection is not the old one, which the server has closed."""
    port = inside.url.rpartition(":")[2]
    resolver = Resolver("127.0.0.1", "127.0.0.2")
    internet = files(lambda address: address == "127.0.0.1", resolver)
    await refused(internet, f"http://allowed.example:{port}/?to=http://allowed.example:80/")
    assert resolver.asked == ["allowed.example"] * 2
    assert inside.count == 1


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/", "http://127.0.0.1/", "//127.0.0.1/", "http://[::1]/", "file:///etc/passwd",
        "http://user@allowed.example/", "http://allowed.example:22/", "http://allowed.example.evil.example/",
        "gopher://allowed.example/", "http://allowed.example@127.0.0.1/",
    ],
)  # fmt: skip
async def test_a_redirect_elsewhere_is_not_followed(files: Files, inside: SwitchedServer, target: str) -> None:
    port = inside.url.rpartition(":")[2]
    resolver = Resolver("127.0.0.1")
    await refused(files(lambda _: True, resolver), f"http://allowed.example:{port}/?to={target}")
    assert (inside.count, resolver.asked) == (1, ["allowed.example"])


@pytest.mark.parametrize(
    "url", [*DISGUISES, *OTHER_SCHEMES[:-1], "http://allowed.example:22/", "https://a@allowed.example/"]
)
def test_a_reference_to_a_host_that_is_not_listed_is_invalid(url: str) -> None:
    references = References(lambda _: None, ("allowed.example",))
    if "://" not in url:  # a storage key, which has to be somebody's
        assert references.reduce(url, ["body"]) == url
    else:
        with pytest.raises(Invalid):
            references.reduce(url, ["body"])
