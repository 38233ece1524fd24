"""What a key is, whom its first part stands for, and what of a URL is one."""

from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from yral_chat.clients.storage.keys import MEDIA_TYPES, is_key, key_in, media_type, owner_prefix, quoted

NAME = "0198f7c2-5d3e-7a41-9a55-3f5f0e9b1c22.png"
NOBODYS_PREFIXES = ("public", ".", "..", "")


@pytest.mark.parametrize(
    ("user_id", "prefix"),
    [
        ("principal-1_a.b~c", "principal-1_a.b~c"),
        ("a@b.example", "a%40b.example"),
        ("a/../b", "a%2F..%2Fb"),
        ("public", "%70ublic"),
        ("Public", "%50ublic"),
        ("https://x", "%68ttps%3A%2F%2Fx"),
        ("..", "%2E."),
        ("~", "%7E"),
        ("नमस्ते", "%E0%A4%A8%E0%A4%AE%E0%A4%B8%E0%A5%8D%E0%A4%A4%E0%A5%87"),
    ],
)
def test_an_owner_is_percent_encoded(user_id: str, prefix: str) -> None:
    assert owner_prefix(user_id) == prefix


def test_a_long_owner_is_a_hash_that_nobody_can_take() -> None:
    prefix = owner_prefix("🙂" * 255)
    assert len(prefix) == 65
    assert owner_prefix(prefix) != prefix
    assert owner_prefix("x" * 200) == "x" * 200
    assert owner_prefix("x" * 201)[0] == "~"


@given(st.text(st.characters(), max_size=255))
@example("%70ublic")
@example("%2e%2e/%2e%2e")
def test_every_owner_makes_keys(user_id: str) -> None:
    prefix = owner_prefix(user_id)
    assert prefix not in NOBODYS_PREFIXES
    assert not prefix.lower().startswith(("http", ".", "public/"))
    assert is_key(f"{prefix}/{NAME}")
    if not prefix.startswith("~"):
        assert unquote(prefix, errors="surrogatepass") == user_id


@given(st.text(max_size=100), st.text(max_size=100))
@example("public", "%70ublic")
@example("~", "%7E")
def test_two_owners_never_share_a_prefix(one: str, other: str) -> None:
    assert (owner_prefix(one) == owner_prefix(other)) == (one == other)


@pytest.mark.parametrize(
    "key",
    [
        "", "/", "a", "a/", "/a.png", "//a.png", "../a.png", "./a.png", ".incoming/a.png", "a/../b.png", "a/b/c.png",
        "a/.png", "a/..png", "a/b", "a/b.svg", "a/b.html", "a/b.png/", "a/b.png\n", "a/b\x00.png", "a/b.PNG",
        "a\\b.png", "a/b.png%00", "a b/c.png", "ü/c.png", f"{'x' * 201}/a.png", f"a/{'x' * 101}.png", "a/b.jpg.png",
    ],
)  # fmt: skip
def test_what_is_no_key(key: str) -> None:
    assert not is_key(key)


@given(st.text(st.sampled_from("ab./%~-_\\\x00 é?#"), max_size=30))
def test_no_key_leads_out_of_its_folder(text: str) -> None:
    for key in (text, f"{text}/a.png", f"a/{text}.png", f"{text}/../a.png"):
        if is_key(key):
            owner, name = key.split("/")
            assert not owner.startswith(".")
            assert not name.startswith(".")


def test_a_type_comes_from_the_extension() -> None:
    assert {media_type(f"a.b/c{extension}") for extension in MEDIA_TYPES} == set(MEDIA_TYPES.values())


@given(st.text(st.characters(), min_size=1, max_size=80))
def test_a_key_survives_its_url(user_id: str) -> None:
    key = f"{owner_prefix(user_id)}/{NAME}"
    assert quoted(key) == quote(key, safe="/~")
    for rest in ("", "?exp=1&sig=2", "#x", "?", "?a#b?c"):
        assert key_in(f"http://chat.test/media/{quoted(key)}{rest}", "http://chat.test/media/") == key


@given(st.text(st.characters(), max_size=60))
@example("http://chat.test/media/%2e%2e/a.png")
@example("http://chat.test/media/a%2F..%2F..%2Fb.png")
@example("http://chat.test/media/a/b.png%00")
def test_no_text_is_too_odd_for_a_url(text: str) -> None:
    for url in (text, f"http://chat.test/media/{text}", f"http://chat.test/media/{text}/{NAME}"):
        key = key_in(url, "http://chat.test/media/")
        assert key is None or is_key(key)
