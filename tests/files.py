"""Files to upload: small real images and recordings, and larger ones where a test needs them."""

import io
import wave
from typing import Any

import httpx2
from PIL import Image

from tests.client import Api, Json

UPLOAD = "/api/v1/media/upload"


def picture(colour: str = "teal", size: tuple[int, int] = (64, 48), **more: Any) -> bytes:
    """A JPEG; `more` goes to Pillow's `save`."""
    target = io.BytesIO()
    Image.new("RGB", size, colour).save(target, "JPEG", **more)
    return target.getvalue()


def recording(seconds: float = 1.0, rate: int = 8000) -> bytes:
    """A WAV file of silence."""
    target = io.BytesIO()
    with wave.open(target, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(rate)
        wav.writeframes(bytes(2 * round(seconds * rate)))
    return target.getvalue()


async def upload(api: Api, kind: str, content: bytes, name: str = "file") -> httpx2.Response:
    return await api.request("POST", UPLOAD, data={"type": kind}, files={"file": (name, content)})


async def uploaded(api: Api, kind: str, content: bytes | None = None) -> Json:
    """Uploads and expects it to work."""
    if content is None:
        content = picture() if kind == "image" else recording()
    response = await upload(api, kind, content)
    assert response.status_code == 200, response.text
    result: Json = response.json()
    return result


async def fetched(url: str) -> httpx2.Response:
    """What a browser gets for an address, without any header of ours."""
    async with httpx2.AsyncClient(timeout=20) as client:
        return await client.get(url)
