"""Media under signed and under permanent URLs (contract 12.2, 12.3), from a folder and from a bucket."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.client import PLAIN, Document, Json
from tests.object_stores import ACCESS_KEY, BUCKET, SECRET_KEY, Rclone, s3_settings
from tests.service import Service
from tests.waiting import until
from yral_chat.clients.storage import StorageService, load_signing_key, owner_prefix
from yral_chat.core.config import Settings
from yral_chat.middleware.limits import MAX_QUERY_BYTES

NAME = "0198f7c2-5d3e-7a41-9a55-3f5f0e9b1c22"
DATA = bytes(range(256)) * 100
FOREVER = "public, max-age=31536000, immutable"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture(scope="module")
def storage(running: Service) -> StorageService:
    """The running service's own files, and its key."""
    given = Settings(_env_file=None, data_dir=running.folder / "data", public_base_url=running.url)
    return StorageService(given, load_signing_key(given))


@pytest.fixture
async def client(running: Service) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=running.url, verify=PLAIN) as client:
        yield client


@pytest.fixture
async def url(storage: StorageService) -> str:
    await storage.put(f"a%40b/{NAME}.ogg", DATA, "audio/ogg")
    return storage.url(f"a%40b/{NAME}.ogg")


def check_error(response: httpx2.Response, status: int, code: str) -> Json:
    body: Json = response.json()
    assert (response.status_code, body["error"]) == (status, code)
    assert body["correlation_id"] == response.headers["x-correlation-id"]
    assert ("detail" in body) == (status == 403)
    assert response.headers["cache-control"] == "no-store"
    return body


async def test_a_signed_url_gives_the_file(client: httpx2.AsyncClient, url: str) -> None:
    response = await client.get(url, headers={"Accept-Encoding": "gzip", "Origin": "https://app.example"})
    assert (response.status_code, response.content) == (200, DATA)
    headers = response.headers
    assert headers["content-type"] == "audio/ogg"
    assert headers.get_list("x-content-type-options") == ["nosniff"]
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert headers["content-disposition"] == "inline"
    assert headers["accept-ranges"] == "bytes"
    assert headers["content-length"] == str(len(DATA))
    assert headers["access-control-allow-origin"] == "*"
    assert "content-encoding" not in headers
    scope, _, rest = headers["cache-control"].partition(", max-age=")
    assert scope == "private"
    assert 800 < int(rest) <= 900


@pytest.mark.parametrize("name", ["jpg", "png", "gif", "webp", "mp3", "m4a", "wav", "ogg", "webm"])
async def test_no_media_are_compressed(client: httpx2.AsyncClient, storage: StorageService, name: str) -> None:
    await storage.put(f"plain/{NAME}.{name}", bytes(5000), "ignored/here")
    response = await client.get(storage.url(f"plain/{NAME}.{name}"), headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in response.headers
    assert response.headers["content-type"].split("/")[0] in ("image", "audio")
    assert response.content == bytes(5000)


@pytest.mark.parametrize("user_id", ["a@b.example", "100%", "%2e%2e/..", "..", "public", "नमस्ते", "🙂" * 255, "a+b c"])
async def test_any_owner_has_working_urls(client: httpx2.AsyncClient, storage: StorageService, user_id: str) -> None:
    key = f"{owner_prefix(user_id)}/{NAME}.png"
    await storage.put(key, b"mine", "image/png")
    assert (await client.get(storage.url(key))).content == b"mine"


@pytest.mark.parametrize(
    ("wanted", "part", "told"),
    [
        ("bytes=0-9", DATA[:10], "bytes 0-9/25600"),
        ("bytes=25590-", DATA[-10:], "bytes 25590-25599/25600"),
        ("bytes=-10", DATA[-10:], "bytes 25590-25599/25600"),
        ("bytes=-99999", DATA, "bytes 0-25599/25600"),
        ("bytes=25599-99999", DATA[-1:], "bytes 25599-25599/25600"),
        ("Bytes=0-0", DATA[:1], "bytes 0-0/25600"),
    ],
)
async def test_a_part_is_given(client: httpx2.AsyncClient, url: str, wanted: str, part: bytes, told: str) -> None:
    response = await client.get(url, headers={"Range": wanted})
    assert (response.status_code, response.content) == (206, part)
    assert response.headers["content-range"] == told
    assert response.headers["content-length"] == str(len(part))
    assert response.headers["content-type"] == "audio/ogg"


@pytest.mark.parametrize("wanted", ["bytes=25600-", "bytes=99999-100000", "bytes=-0"])
async def test_a_part_that_is_not_there_is_416(client: httpx2.AsyncClient, url: str, wanted: str) -> None:
    response = await client.get(url, headers={"Range": wanted})
    check_error(response, 416, "bad_request")
    assert response.headers["content-range"] == "bytes */25600"


@pytest.mark.parametrize(
    "wanted",
    ["bytes=5-2", "bytes=", "bytes=-", "bytes=a-b", "bytes", "lines=0-1", "bytes=0-1,4-5", "bytes=0-1-2", "x" * 99],
)
async def test_a_range_that_cannot_be_read_is_ignored(client: httpx2.AsyncClient, url: str, wanted: str) -> None:
    response = await client.get(url, headers={"Range": wanted})
    assert (response.status_code, response.content) == (200, DATA)


async def test_conditions_are_kept(client: httpx2.AsyncClient, url: str) -> None:
    etag = (await client.get(url)).headers["etag"]
    known = await client.get(url, headers={"If-None-Match": f'"x", {etag}'})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", etag)
    assert known.headers["cache-control"].startswith("private, max-age=")
    assert (await client.get(url, headers={"If-None-Match": '"x"'})).status_code == 200
    for condition, status in ((etag, 206), ('"x"', 200)):
        part = await client.get(url, headers={"Range": "bytes=0-9", "If-Range": condition})
        assert part.status_code == status
    changed = await client.get(url, headers={"Range": "bytes=99999-", "If-Range": '"x"'})
    assert (changed.status_code, changed.content) == (200, DATA)


async def test_an_empty_file_is_a_file(client: httpx2.AsyncClient, storage: StorageService) -> None:
    await storage.put(f"plain/{NAME}-empty.ogg", b"", "audio/ogg")
    url = storage.url(f"plain/{NAME}-empty.ogg")
    assert (await client.get(url)).content == b""
    for wanted in ("bytes=0-", "bytes=-1"):
        assert (await client.get(url, headers={"Range": wanted})).status_code == 416


async def test_head_tells_the_same_without_a_body(
    client: httpx2.AsyncClient, storage: StorageService, url: str
) -> None:
    await storage.put(f"public/{NAME}.webp", b"face", "image/webp")
    for each in (url, storage.public_url(f"{NAME}.webp")):
        head, got = await client.head(each), await client.get(each)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-length", "content-type", "etag"):
            assert head.headers[name] == got.headers[name]


async def test_what_was_not_signed_is_refused(client: httpx2.AsyncClient, storage: StorageService, url: str) -> None:
    await storage.put(f"other/{NAME}.ogg", b"x", "audio/ogg")
    path, _, query = url.partition("?")
    given = Settings(_env_file=None, data_dir=storage.find_file(f"other/{NAME}.ogg").path.parents[2])
    expired = StorageService(given, load_signing_key(given), now=lambda: time.time() - 901)
    altered = [
        path,
        f"{path}?{query.partition('&')[0]}",
        f"{path}?{query.partition('&')[2]}",
        f"{path}?{query[:-1]}",
        url.replace("exp=", "exp=9"),
        url.replace("/a%2540b/", "/other/"),
        url.replace("/a%2540b/", "/a%40b/"),
        f"{path}?exp=&sig=",
        f"{path}?exp=%00&sig=%ff%fe",
        f"{path}?exp={'9' * 4000}&sig=x",
        f"{path}?{expired.url(f'a%40b/{NAME}.ogg').partition('?')[2]}",
    ]
    for each in altered:
        check_error(await client.get(each), 403, "forbidden")


async def test_a_missing_file_is_404(client: httpx2.AsyncClient, storage: StorageService) -> None:
    for url in (storage.url(f"plain/{NAME}-none.png"), storage.public_url(f"{NAME}-none.png")):
        check_error(await client.get(url), 404, "not_found")


async def test_public_files_are_for_ever_and_only_public_ones(
    client: httpx2.AsyncClient, storage: StorageService, url: str
) -> None:
    await storage.put(f"public/{NAME}.webp", b"face", "image/webp")
    response = await client.get(storage.public_url(f"{NAME}.webp"))
    assert (response.status_code, response.content) == (200, b"face")
    assert response.headers["cache-control"] == FOREVER
    assert response.headers["content-type"] == "image/webp"
    for path in (f"..%2Fa%2540b%2F{NAME}.ogg", f"%2e%2e/a%2540b/{NAME}.ogg", f"a%2540b/{NAME}.ogg", "%00", "x" * 5000):
        refused = await client.get(f"/media/public/{path}")
        assert refused.status_code in (403, 404), path


@pytest.mark.parametrize(
    "path",
    ["", "/", "..%2f..%2fetc/passwd", "%2Fetc%2Fpasswd", "a/%00.png", "a/b.html", "%ff/a.png", ".incoming/x.png"],
)
async def test_path_tricks_lead_nowhere(client: httpx2.AsyncClient, path: str) -> None:
    response = await client.get(f"/media/{path}?exp=1&sig=2")
    assert response.status_code in (403, 404)
    assert response.json()["error"] in ("forbidden", "not_found")


@settings(max_examples=200)
@given(st.text(max_size=60), st.text(max_size=20), st.text(max_size=20))
@example("../" * 20 + "etc/passwd", "1", "1")
@example("public/../a", "", "%ff")
@example("%", "٣", "x" * 8000)
def test_no_request_is_too_odd(running: Service, path: str, exp: str, sig: str) -> None:
    # With "%" as it is: half of an escape is what a client may send, too.
    odd = [quote(text, safe="/%") for text in (path, exp, sig)]
    connection = HTTPConnection(running.url.removeprefix("http://"))
    with closing(connection):
        query = "exp={}&sig={}".format(*odd[1:])
        connection.request("GET", f"/media/{odd[0]}?{query}")
        # What is no address of ours at all is refused before it is looked at.
        expected = (422,) if len(query) > MAX_QUERY_BYTES else (403, 404)
        assert connection.getresponse().status in expected


def test_the_document_names_what_can_happen(running: Service) -> None:
    paths = Document(httpx2.get(f"{running.url}/openapi.json", verify=PLAIN).json()).document["paths"]
    assert paths["/media/{key}"].keys() == {"get"}
    assert {"200", "206", "304", "403", "404", "416"} <= paths["/media/{key}"]["get"]["responses"].keys()
    assert {"200", "206", "304", "404", "416"} <= paths["/media/public/{key}"]["get"]["responses"].keys()
    assert "security" not in paths["/media/{key}"]["get"]


# --- from a bucket


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rclone, Service]]:
    with ExitStack() as stack:
        store = stack.enter_context(Rclone(tmp_path_factory.mktemp("rclone")))
        service = Service(
            tmp_path_factory.mktemp("service"),
            MEDIA_BACKEND="s3",
            S3_ENDPOINT_URL=store.url,
            S3_BUCKET=BUCKET,
            AWS_ACCESS_KEY_ID=ACCESS_KEY,
            AWS_SECRET_ACCESS_KEY=SECRET_KEY,
            BREAKER_FAILURES="1",
            BREAKER_OPEN_SECONDS="0.05",
        )
        yield store, stack.enter_context(service)


async def test_a_bucket_serves_what_is_private_itself(bucket: tuple[Rclone, Service], tmp_path: Path) -> None:
    _, service = bucket
    local = StorageService(s3_settings(tmp_path, service.url, media_backend="local"), b"k" * 32)
    async with httpx2.AsyncClient(base_url=service.url, verify=PLAIN) as client:
        for path in (f"/media/plain/{NAME}.png", local.url(f"plain/{NAME}.png").removeprefix("http://chat.test")):
            check_error(await client.get(path), 404, "not_found")


async def test_public_files_come_through_the_service(bucket: tuple[Rclone, Service]) -> None:
    store, service = bucket
    (store.bucket / "public").mkdir(exist_ok=True)
    (store.bucket / f"public/{NAME}.webp").write_bytes(DATA)
    async with httpx2.AsyncClient(base_url=service.url, verify=PLAIN) as client:
        response = await client.get(f"/media/public/{NAME}.webp", headers={"Accept-Encoding": "gzip"})
        assert (response.status_code, response.content) == (200, DATA)
        assert response.headers["cache-control"] == FOREVER
        assert response.headers["content-type"] == "image/webp"
        assert response.headers["content-length"] == str(len(DATA))
        etag = {"If-None-Match": response.headers["etag"]}
        for _ in range(3):
            assert (await client.get(f"/media/public/{NAME}.webp", headers=etag)).status_code == 304
        head = await client.head(f"/media/public/{NAME}.webp")
        assert (head.status_code, head.content) == (200, b"")
        check_error(await client.get("/media/public/none.webp"), 404, "not_found")
        check_error(await client.get("/media/public/..%2Fplain%2Fx.webp"), 404, "not_found")


async def test_a_bucket_that_is_down_is_503_and_shown_in_health(bucket: tuple[Rclone, Service]) -> None:
    store, service = bucket
    (store.bucket / "public").mkdir(exist_ok=True)
    (store.bucket / f"public/{NAME}.png").write_bytes(b"face")
    async with httpx2.AsyncClient(base_url=service.url, verify=PLAIN) as client:
        health = (await client.get("/health")).json()
        assert (health["services"]["storage"]["status"], health["services"]["storage"]["circuit"]) == ("up", "closed")
        store.stop()
        response = await client.get(f"/media/public/{NAME}.png")
        assert check_error(response, 503, "service_unavailable")["details"] == {"service": "storage"}
        assert int(response.headers["retry-after"]) >= 1
        health = (await client.get("/health")).json()
        assert health["status"] == "degraded"
        assert health["services"]["storage"]["circuit"] in ("open", "half_open")
        assert health["services"]["storage"]["error"].startswith("the object store fails: unreachable, since ")
        assert 'circuit_breaker_state{service="storage"}' in (await client.get("/metrics")).text
        store.start()

        async def is_served() -> bool:
            return (await client.get(f"/media/public/{NAME}.png")).status_code == 200

        await until(is_served, what="the file of a bucket that is back")
        assert (await client.get("/health")).json()["status"] == "healthy"
