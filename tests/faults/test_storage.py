"""Between the service and its bucket: an upload is whole or was refused, chats go on, and it heals by itself."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.client import Api, Document
from tests.faults.books import balanced
from tests.faults.proxy import Fault, FaultProxy, Kind, Side
from tests.files import fetched, picture, upload, uploaded
from tests.object_stores import ACCESS_KEY, BUCKET, SECRET_KEY, Rclone
from tests.rows import fetch
from tests.service import FakeModel, Service
from tests.waiting import until
from yral_chat.db.tables import media_objects

pytestmark = pytest.mark.long

PICTURE = picture(size=(64, 48))


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    with Rclone(tmp_path_factory.mktemp("bucket")) as running:
        yield running


@pytest.fixture(scope="module")
def way(bucket: Rclone) -> Iterator[FaultProxy]:
    """The way to the bucket."""
    with FaultProxy(bucket.url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def keeping(
    way: FaultProxy, bucket: Rclone, model_process: FakeModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    settings = {
        "MEDIA_BACKEND": "s3",
        "S3_ENDPOINT_URL": way.in_place_of(bucket.url),
        "S3_BUCKET": BUCKET,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "BREAKER_FAILURES": "3",
        "BREAKER_OPEN_SECONDS": "0.5",
    }
    with Service(tmp_path_factory.mktemp("keeping"), **settings, **model_process.settings) as service:
        yield service


@pytest.fixture(scope="module")
def wire(keeping: Service) -> Document:
    return Document.of(keeping)


@pytest.fixture
async def person(keeping: Service, wire: Document, way: FaultProxy, model: FakeModel) -> AsyncIterator[Api]:
    api = Api(keeping.url, wire)
    try:
        yield api
        way.heal()
        await heals(api)
        await balanced(keeping)
    finally:
        await api.close()


async def heals(api: Api) -> None:
    """Waits until files are taken again, by the service's own doing."""

    async def is_taken() -> bool:
        return (await upload(api, "image", PICTURE)).status_code == 200

    await until(is_taken, what="an upload", seconds=30)
    health = (await api.get("/health")).json()
    assert health["services"]["storage"]["circuit"] == "closed"


def files(service: Service) -> int:
    """As many as can be used; nothing is left in the place of those that are on their way."""
    assert list((service.folder / "data" / "incoming").rglob("*")) == []
    return len(fetch(service, media_objects.select().where(media_objects.c.is_stored)))


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("kind", ["cut", "reset"])
async def test_an_upload_whose_connection_breaks_is_tried_again(
    person: Api, way: FaultProxy, kind: Kind, side: Side
) -> None:
    way.fault = Fault(kind, side, times=1)
    stored = await uploaded(person, "image", PICTURE)
    assert way.struck == 1
    found = await fetched(stored["url"])
    assert len(found.content) == stored["size"]


async def test_wherever_an_upload_breaks_it_is_whole(person: Api, way: FaultProxy) -> None:
    for after in range(0, 1600, 200):
        way.fault = Fault("reset", "client", after=after, times=1)
        stored = await uploaded(person, "image", PICTURE)
        way.heal()
        assert len((await fetched(stored["url"])).content) == stored["size"]


@pytest.mark.parametrize("fault", [None, Fault("reset", "client"), Fault("cut"), Fault("silence", "client")], ids=str)
async def test_a_bucket_that_is_away_refuses_files_and_nothing_else(
    person: Api, keeping: Service, way: FaultProxy, model: FakeModel, fault: Fault | None
) -> None:
    conversation = await person.open()
    known = await uploaded(person, "image", PICTURE)
    before = files(keeping)
    if fault is None:
        way.refuse()
    way.fault = fault
    response = await upload(person, "image", PICTURE)
    assert (response.status_code, response.json()["error"]) == (503, "service_unavailable"), response.text
    assert response.json()["details"] == {"service": "storage"}
    assert int(response.headers["retry-after"]) >= 1
    assert files(keeping) == before
    shown = {"message_type": "multimodal", "media_urls": [known["storage_key"]]}
    user, reply = await person.said(conversation["id"], "Look", **shown)
    assert (reply["content"], reply["status"]) == ("You said: [image]\nLook", "delivered")
    assert len(user["media_urls"]) == 1
    assert model.requests()[-1]["media"] == [], "it answers without the picture"


async def test_a_bucket_that_is_slow_is_waited_for(person: Api, way: FaultProxy) -> None:
    way.delay_seconds, way.bytes_per_second = 0.05, 20_000
    stored = await uploaded(person, "image", PICTURE)
    assert len((await fetched(stored["url"])).content) == stored["size"]
