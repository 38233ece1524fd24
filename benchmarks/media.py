"""Uploads, signed addresses, and pages that show them."""

import asyncio
import io
import time
import wave
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image

from benchmarks import seeding
from benchmarks.load import Connection, ask_all, get
from benchmarks.rig import Meter, Rig, cpu_of, median_of, tokens
from tests.service import Service, token
from yral_chat.clients.storage import StorageService
from yral_chat.core.config import Settings
from yral_chat.db.files import load_driver

MEGABYTE = 1024 * 1024
READERS = 8
PAGE = 50
# A photo as phones send it after their own scaling.
PHOTO = (1600, 1200)


async def measure(rig: Rig) -> dict[str, float]:
    counts = rig.counts
    folder = rig.stocked("media", seeding.Stock(users=READERS, messages=counts.messages))
    with rig.service(folder) as service:
        found = await _pages(rig, service)
        found |= await _uploads(rig, service)
    return found | {"presign": _presign(rig.folder)}


async def _pages(rig: Rig, service: Service) -> dict[str, float]:
    """A page of texts and the same page with an image in each message, measured in turn."""
    counts, meter = rig.counts, Meter(service.pid)
    requests = [
        get(f"/api/v1/chat/conversations/{seeding.conversation(reader, 0)}/messages?limit={PAGE}", user)
        for reader, user in islice(cycle(enumerate(tokens(READERS))), counts.reads)
    ]
    load = partial(ask_all, service.url, counts.connections, requests)
    texts = await median_of(counts.rounds, partial(cpu_of, meter, load))
    driver = load_driver().connect(service.database_url.removeprefix("sqlite:///"))
    driver.execute("UPDATE messages SET message_type = 'image', images = json_array('bench/' || id || '.jpg')")
    driver.commit()
    driver.close()
    images = await median_of(counts.rounds, partial(cpu_of, meter, load))
    return {"image_page": images / max(texts, 1e-3)}


async def _uploads(rig: Rig, service: Service) -> dict[str, float]:
    counts, meter = rig.counts, Meter(service.pid)
    recording, photo = _upload("audio", _recording(counts.upload_megabytes)), _upload("image", _photo())
    connection = await _connect(service)
    try:
        audio = await median_of(counts.rounds, lambda: cpu_of(meter, lambda: connection.ask(recording)))
        image = await median_of(counts.rounds, lambda: cpu_of(meter, lambda: connection.ask(photo)))
        for _ in range(counts.uploads // 10):
            await connection.ask(photo)
        before = meter.resident()
        for _ in range(counts.uploads):
            await connection.ask(photo)
        after = meter.resident()
    finally:
        connection.close()
    return {
        "upload": counts.upload_megabytes / max(audio, 1e-3),
        "upload_image": image * 1000,
        "upload_memory": (after - before) / MEGABYTE,
    }


async def _connect(service: Service) -> Connection:
    address = urlsplit(service.url)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, str(address.hostname), address.port or 80)
    return connection


def _upload(kind: str, content: bytes) -> bytes:
    """The whole request."""
    body = (
        b'--b\r\nContent-Disposition: form-data; name="type"\r\n\r\n%b\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n%b\r\n--b--\r\n'
    ) % (kind.encode(), content)
    head = (
        b"POST /api/v1/media/upload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n"
    )
    return head % (token(seeding.user(0)).encode(), len(body)) + body


def _recording(megabytes: float) -> bytes:
    target = io.BytesIO()
    with wave.open(target, "wb") as wav:
        wav.setnchannels(2)
        wav.setsampwidth(2)
        wav.setframerate(48_000)
        wav.writeframes(bytes(round(megabytes * MEGABYTE) // 4 * 4))
    return target.getvalue()


def _photo() -> bytes:
    target = io.BytesIO()
    Image.effect_noise(PHOTO, 40).convert("RGB").save(target, "JPEG", quality=85)
    return target.getvalue()


def _presign(folder: Path) -> float:
    """Milliseconds of CPU for the addresses of a page, from S3; the best of some rounds."""
    settings = Settings(
        _env_file=None,
        data_dir=folder,
        media_backend="s3",
        s3_endpoint_url="http://127.0.0.1:9000",
        s3_bucket="media",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    storage = StorageService(settings, b"k" * 32)
    rounds = []
    for _ in range(20):
        started = time.process_time()
        for number in range(PAGE):
            storage.url(f"bench/{number:036d}.jpg")
        rounds.append((time.process_time() - started) * 1000)
    return min(rounds)
