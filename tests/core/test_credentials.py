"""Where a request came from, and where a socket's token stands."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yral_chat.core.credentials import ClientAddresses, header, socket_token

PROXIES = ("10.0.0.0/8", "192.0.2.7/32", "2001:db8:aaaa::/48")


def scope(peer: str | None, *forwarded: str) -> dict[str, Any]:
    headers = [(b"host", b"chat.test"), *((b"x-forwarded-for", line.encode("latin-1")) for line in forwarded)]
    return {"headers": headers, "client": (peer, 1234) if peer is not None else None}


def key_of(peer: str | None, *forwarded: str, trusted: tuple[str, ...] = PROXIES) -> str:
    return ClientAddresses(trusted).key_of(scope(peer, *forwarded))


@pytest.mark.parametrize(
    ("peer", "forwarded", "key"),
    [
        ("198.51.100.1", [], "198.51.100.1"),
        # nobody believes a stranger
        ("198.51.100.1", ["203.0.113.9"], "198.51.100.1"),
        ("192.0.2.8", ["203.0.113.9"], "192.0.2.8"),
        # a proxy of ours
        ("10.1.2.3", ["203.0.113.9"], "203.0.113.9"),
        ("10.1.2.3", [], "10.1.2.3"),
        ("192.0.2.7", ["203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.1.2.3", ["203.0.113.9"], "203.0.113.9"),
        ("10.1.2.3", ["::ffff:203.0.113.9"], "203.0.113.9"),
        # what the client wrote himself stands on the left
        ("10.1.2.3", ["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
        ("10.1.2.3", ["10.9.9.9, 203.0.113.9"], "203.0.113.9"),
        ("10.1.2.3", ["6.6.6.6,203.0.113.9 , 10.0.0.1,\t10.0.0.2"], "203.0.113.9"),
        ("10.1.2.3", ["6.6.6.6", "203.0.113.9", "10.0.0.1"], "203.0.113.9"),
        ("10.1.2.3", ["203.0.113.9, 6.6.6.6", "10.0.0.1"], "6.6.6.6"),
        # ports
        ("10.1.2.3", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.1.2.3", ["[2001:db8::5]:4711"], "20010db800000000::/64"),
        ("10.1.2.3", ["[2001:db8::5]"], "20010db800000000::/64"),
        # only proxies, nothing readable: as without the header
        ("10.1.2.3", ["10.0.0.1, 10.0.0.2"], "10.1.2.3"),
        ("10.1.2.3", ["6.6.6.6, unknown"], "10.1.2.3"),
        ("10.1.2.3", ["6.6.6.6, "], "10.1.2.3"),
        ("10.1.2.3", ["6.6.6.6, , 10.0.0.1"], "10.1.2.3"),
        ("10.1.2.3", ["6.6.6.6, 203.0.113.9:"], "10.1.2.3"),
        ("10.1.2.3", ["6.6.6.6, 203.0.113.9:x"], "10.1.2.3"),
        ("10.1.2.3", ["6.6.6.6, [203.0.113.9]"], "10.1.2.3"),
        ("10.1.2.3", ["6.6.6.6, [::1"], "10.1.2.3"),
        ("10.1.2.3", ["6.6.6.6, 1.2.3"], "10.1.2.3"),
        ("10.1.2.3", ["6.6.6.6, " + "1" * 100], "10.1.2.3"),
        # IPv6: the network of one subscriber
        ("2001:db8:1:2:3:4:5:6", [], "20010db800010002::/64"),
        ("2001:db8:aaaa::1", ["2001:db8:1:2::9"], "20010db800010002::/64"),
        ("fe80::1%eth0", [], "fe80000000000000::/64"),
        # no socket of the internet's
        (None, ["203.0.113.9"], "unknown"),
        ("testclient", ["203.0.113.9"], "unknown"),
    ],
)
def test_the_address_is_the_one_that_can_be_believed(peer: str | None, forwarded: list[str], key: str) -> None:
    assert key_of(peer, *forwarded) == key


def test_neighbours_in_a_network_are_one_and_other_networks_are_others() -> None:
    assert key_of("2001:db8:1:2::1") == key_of("2001:db8:1:2:ffff:ffff:ffff:ffff")
    assert key_of("2001:db8:1:2::1") != key_of("2001:db8:1:3::1")
    assert key_of("203.0.113.1") != key_of("203.0.113.2")


def test_without_trusted_proxies_no_header_counts() -> None:
    assert key_of("127.0.0.1", "203.0.113.9", trusted=()) == "127.0.0.1"


@given(lines=st.lists(st.text(st.characters(max_codepoint=255), max_size=80), max_size=4))
def test_no_header_breaks_it(lines: list[str]) -> None:
    assert key_of("10.1.2.3", *lines)
    assert key_of("198.51.100.1", *lines) == "198.51.100.1"


@given(written=st.text(st.characters(max_codepoint=255), max_size=80))
def test_what_a_client_writes_never_changes_his_key(written: str) -> None:
    assert key_of("10.1.2.3", f"{written}, 203.0.113.9, 10.0.0.1") == "203.0.113.9"
    assert key_of("10.1.2.3", written, "203.0.113.9") == "203.0.113.9"


def test_the_first_header_of_a_name_counts() -> None:
    given = {"headers": [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")]}
    assert header(given, b"authorization") == "Bearer a"
    assert header(given, b"x-admin-key") is None


@pytest.mark.parametrize(
    ("offered", "query", "expected"),
    [
        ([], b"", (None, None)),
        ([], b"token=a.b.c&since=4", ("a.b.c", None)),
        ([], b"token=", (None, None)),
        ([], b"token=a&token=b", ("b", None)),
        (["bearer", "a.b.c"], b"token=d", ("a.b.c", "bearer")),
        (["bearer"], b"", (None, None)),
        (["chat", "a.b.c"], b"", (None, None)),
    ],
)
def test_a_socket_brings_its_token(offered: list[str], query: bytes, expected: tuple[str | None, str | None]) -> None:
    assert socket_token({"subprotocols": offered, "query_string": query}) == expected
