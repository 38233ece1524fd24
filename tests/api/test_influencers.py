"""The public reads of the catalogue, and the cache before them: contract section 11."""

import gzip
import json
from typing import Any

import httpx2
import pytest

from tests.api.conftest import MakeUser
from tests.api.expecting import refused
from tests.client import PLAIN, Api, Json
from tests.rows import add_influencer
from tests.service import Service, token
from yral_chat.core.clock import SECOND, now

LIST, TRENDING = "/api/v1/influencers", "/api/v1/influencers/trending"


async def listed(api: Api, path: str = LIST, **query: Any) -> Json:
    response = await api.get(path, params=query)
    assert response.status_code == 200, response.text
    page: Json = response.json()
    return page


def ids(page: Json) -> list[str]:
    return [influencer["id"] for influencer in page["influencers"]]


# --- lists


async def test_the_personas_that_ship_are_listed(impatient: Service, user_of: MakeUser) -> None:
    api = user_of(impatient)
    page = await listed(api, limit=100)
    shipped = [row for row in page["influencers"] if row["display_name"] != "Somebody"]
    assert len(shipped) >= 8
    for row in shipped:
        assert row["is_active"] == "active"
        assert row["avatar_url"].startswith(f"{impatient.url}/static/personas/")
        assert 3 <= len(row["suggested_messages"]) <= 4
        assert (row["system_prompt"], row["parent_principal_id"]) == (None, None)
        assert (await api.http.get(row["avatar_url"])).status_code == 200


async def test_the_list_has_active_before_coming_and_newest_first(impatient: Service, user_of: MakeUser) -> None:
    api = user_of(impatient)
    before = ids(await listed(api, limit=100))
    times = [now() + number * SECOND for number in range(3)]
    old, new = (add_influencer(impatient, created_at=at) for at in times[:2])
    coming = add_influencer(impatient, status="coming_soon", created_at=times[2])
    add_influencer(impatient, status="discontinued", created_at=times[2])
    same = sorted(add_influencer(impatient, created_at=times[2]) for _ in range(2))
    page = await listed(api, limit=100)
    active_before = [row for row in before if row not in (coming,)]
    assert [row for row in ids(page) if row not in active_before] == [*same, new, old, coming]
    statuses = [row["is_active"] for row in page["influencers"]]
    assert statuses == ["active"] * statuses.count("active") + ["coming_soon"] * statuses.count("coming_soon")
    assert page["total"] == len(before) + 5
    assert page["influencers"][ids(page).index(coming)]["is_active"] == "coming_soon"


async def test_trending_has_active_ones_by_messages(impatient: Service, user_of: MakeUser) -> None:
    api = user_of(impatient)
    before = await listed(api, TRENDING, limit=100)
    much = add_influencer(impatient, message_count=3_000_000_000)
    later = add_influencer(impatient, message_count=5000, created_at=now() + SECOND)
    sooner = add_influencer(impatient, message_count=5000)
    add_influencer(impatient, message_count=9_000_000_000, status="coming_soon")
    add_influencer(impatient, message_count=9_000_000_000, status="discontinued")
    page = await listed(api, TRENDING, limit=100)
    assert ids(page)[:3] == [much, later, sooner]
    assert page["total"] == before["total"] + 3
    counts = [row["message_count"] for row in page["influencers"]]
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize("path", [LIST, TRENDING])
async def test_pages_have_no_gap_and_no_repetition(impatient: Service, user_of: MakeUser, path: str) -> None:
    api = user_of(impatient)
    whole = await listed(api, path, limit=100)
    assert whole["has_more"] is False
    joined: list[str] = []
    for offset in range(0, whole["total"] + 3, 3):
        page = await listed(api, path, limit=3, offset=offset)
        assert (page["total"], page["limit"], page["offset"]) == (whole["total"], 3, offset)
        assert page["has_more"] == (offset + len(page["influencers"]) < whole["total"])
        joined += ids(page)
    assert joined == ids(whole)
    assert len(set(joined)) == len(joined) == whole["total"]


@pytest.mark.parametrize("path", [LIST, TRENDING])
@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 101}, {"limit": "x"}, {"offset": -1}], ids=str)
async def test_lists_refuse_what_is_out_of_range(api: Api, path: str, query: Json) -> None:
    refused(await api.get(path, params=query), 422, "validation_error")


async def test_a_list_has_defaults(api: Api) -> None:
    page = await listed(api, limit="", offset="", surprise="x")
    assert (page["limit"], page["offset"]) == (50, 0)


# --- one of them


async def test_a_single_influencer(api: Api, service: Service) -> None:
    bot = add_influencer(
        service,
        name="ahaanfitness",
        display_name="Ahaan",
        description="Trains you",
        category="fitness",
        owner_id="an-owner",
        source="user-created-influencer",
        suggested_messages='["Plan my week"]',
        voice="warm",
        avatar_url="https://pictures.example/a.png",
    )
    response = await api.get(f"{LIST}/{bot}")
    seen = response.json()
    assert seen == {
        "id": bot,
        "name": "ahaanfitness",
        "display_name": "Ahaan",
        "avatar_url": "https://pictures.example/a.png",
        "description": "Trains you",
        "category": "fitness",
        "is_active": "active",
        "is_nsfw": False,
        "parent_principal_id": "an-owner",
        "source": "user-created-influencer",
        "system_prompt": None,
        "suggested_messages": ["Plan my week"],
        "voice": "warm",
        "created_at": seen["created_at"],
        "updated_at": seen["updated_at"],
        "conversation_count": 0,
        "message_count": 0,
    }


async def test_discontinued_and_unknown_ones_do_not_exist(api: Api, service: Service) -> None:
    gone = add_influencer(service, status="discontinued", owner_id=api.user_id)
    for influencer_id in (gone, "unknown"):
        error = refused(await api.get(f"{LIST}/{influencer_id}"), 404, "not_found")
        assert error["message"] == "Influencer not found"
    coming = add_influencer(service, status="coming_soon")
    assert (await api.get(f"{LIST}/{coming}")).json()["is_active"] == "coming_soon"


async def test_only_the_owner_sees_the_system_prompt(api: Api, other: Api, service: Service) -> None:
    bot = add_influencer(service, owner_id=api.user_id, system_instructions="The secret.")
    theirs = await other.get(f"{LIST}/{bot}")
    for _ in range(2):
        mine = await api.get(f"{LIST}/{bot}")
        assert mine.json()["system_prompt"] == "The secret."
        assert mine.headers["cache-control"] == "private, no-store"
        assert "etag" not in mine.headers
        theirs = await other.get(f"{LIST}/{bot}")
        assert theirs.json() == {**mine.json(), "system_prompt": None}
        assert theirs.headers["cache-control"] == "public, max-age=300"
    tag = theirs.headers["etag"]
    conditional = await api.get(f"{LIST}/{bot}", headers={"If-None-Match": tag})
    assert (conditional.status_code, conditional.json()["system_prompt"]) == (200, "The secret.")
    assert "The secret." not in (await api.get(LIST, params={"limit": 99})).text


@pytest.mark.parametrize("header", [None, "Bearer nonsense", "Basic x", "expired"])
async def test_a_bad_token_counts_as_none(api: Api, service: Service, header: str | None) -> None:
    bot = add_influencer(service, owner_id=api.user_id)
    if header == "expired":
        header = f"Bearer {token(api.user_id, ttl_seconds=-100)}"
    async with httpx2.AsyncClient(base_url=service.url, verify=PLAIN) as client:
        for path in (LIST, TRENDING, f"{LIST}/{bot}"):
            response = await client.get(path, headers={"Authorization": header} if header else {})
            assert response.status_code == 200
            assert response.headers["cache-control"] == "public, max-age=300"
            assert (response.json().get("influencers") or [response.json()])[0]["system_prompt"] is None


# --- conditional and compressed


@pytest.mark.parametrize("path", [LIST, TRENDING, "one"])
async def test_an_unchanged_answer_is_not_sent_again(api: Api, service: Service, path: str) -> None:
    # A page that no other test asks for and that no counter changes.
    path = f"{LIST}/{add_influencer(service)}" if path == "one" else f"{path}?offset=1000000"
    first = await api.get(path)
    tag = first.headers["etag"]
    assert tag.startswith('"')
    for held in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        response = await api.get(path, headers={"If-None-Match": held})
        assert (response.status_code, response.content) == (304, b""), held
        assert response.headers["etag"] == tag
        assert response.headers["cache-control"] == "public, max-age=300"
        assert "Authorization" in response.headers["vary"]
    for held in ('"other"', "nonsense", ""):
        response = await api.get(path, headers={"If-None-Match": held})
        assert (response.status_code, response.json()) == (200, first.json()), held


@pytest.mark.parametrize(
    ("accepted", "is_compressed"),
    [
        ("gzip", True),
        ("br, gzip;q=0.5", True),
        ("identity", False),
        ("br", False),
        ("", False),
    ],
)
async def test_a_list_is_compressed_for_those_who_can_read_it(
    api: Api, service: Service, accepted: str, is_compressed: bool
) -> None:
    path = f"{service.url}{LIST}?limit=8&offset=0"
    async with httpx2.AsyncClient(verify=PLAIN) as client:
        request = client.build_request("GET", path, headers={"Accept-Encoding": accepted})
        response = await client.send(request, stream=True)
        raw = b"".join([chunk async for chunk in response.aiter_raw()])
        await response.aclose()
    assert (response.headers.get("content-encoding") == "gzip") == is_compressed
    body = json.loads(gzip.decompress(raw) if is_compressed else raw)
    assert body["limit"] == 8
    assert "accept-encoding" in response.headers["vary"].lower()
    assert int(response.headers["content-length"]) == len(raw)


async def test_a_small_answer_is_not_compressed(api: Api, service: Service) -> None:
    response = await api.get(f"{LIST}/{add_influencer(service)}", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in response.headers


@pytest.mark.parametrize("path", [LIST, TRENDING, "one"])
async def test_head_is_get_without_the_body(api: Api, service: Service, path: str) -> None:
    path = f"{LIST}/{add_influencer(service)}" if path == "one" else f"{path}?offset=1000000"
    head, get = await api.http.head(path), await api.get(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("etag", "content-length", "content-type", "cache-control", "vary"):
        assert head.headers[name] == get.headers[name]
    assert (await api.http.head(f"{LIST}/unknown")).status_code == 404


# --- the cache


async def counted(api: Api) -> dict[str, float]:
    lines = (await api.get("/metrics")).text.splitlines()
    found = [line.split() for line in lines if line.startswith("cache_")]
    return {name: float(value) for name, value in found}


async def test_the_cache_counts_hits_and_misses(api: Api, service: Service) -> None:
    bot = add_influencer(service)
    before = await counted(api)
    await api.get(f"{LIST}/{bot}")
    first = await counted(api)
    hits, misses = 'cache_hits_total{cache="main"}', 'cache_misses_total{cache="main"}'
    assert first[misses] > before[misses]
    for _ in range(5):
        await api.get(f"{LIST}/{bot}")
    second = await counted(api)
    assert second[hits] >= first[hits] + 5
    assert second[misses] == first[misses]
    assert {'cache_evictions_total{cache="main"}', 'cache_items{cache="main"}'} <= second.keys()
