"""Pictures with things in them that nobody should get to see, and what is needed to look at the cleaned ones."""

import io
import zlib
from pathlib import Path

from PIL import Image, ImageCms

from yral_chat.services.media.images import ImageFacts, clean_image

FOLDER = Path(__file__).parents[2] / "data" / "images"
SAMPLES = sorted(path.name for path in FOLDER.iterdir() if path.suffix != ".md")
MAX_PIXELS = 50_000_000

SECRET = b"PLANTED-51.5007N-0.1246W"
# What profiles say in two bytes per letter, of the length of what it replaces.
PROFILE_SECRET = "PLANTED-NAME!".encode("utf-16-be")
ORIENTATION, GPS = 0x0112, 0x8825


class Cleaner:
    """Cleans bytes in a folder of its own; gives back facts, the cleaned bytes and the copy for models."""

    def __init__(self, folder: Path) -> None:
        self.source, self.target, self.copy = (folder / name for name in ("source", "target", "copy"))

    def __call__(self, data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[ImageFacts, bytes]:
        for path in (self.source, self.target, self.copy):
            path.unlink(missing_ok=True)  # writing over a file waits for the disk, thousands of times
        self.source.write_bytes(data)
        facts = clean_image(self.source, self.target, self.copy, max_pixels=max_pixels)
        return facts, self.target.read_bytes()


def sample(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int = 1) -> bytes:
    """With a place, a thumbnail's worth of text, and the way the camera was held."""
    made = Image.Exif()
    made[ORIENTATION] = orientation
    made[0x010E] = SECRET.decode()
    made.get_ifd(GPS)[2] = (51.0, 30.0, 2.5)
    made.get_ifd(GPS)[29] = SECRET.decode()
    return made.tobytes()


def profile() -> bytes:
    """sRGB, described by somebody's name."""
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    named = plain.replace("sRGB built-in".encode("utf-16-be"), PROFILE_SECRET)
    assert PROFILE_SECRET in named
    return named


def png_chunk(name: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")


def png_header(width: int, height: int) -> bytes:
    described = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 6, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", described)


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def webp_chunk(name: bytes, body: bytes) -> bytes:
    return name + len(body).to_bytes(4, "little") + body + bytes(len(body) % 2)


def webp_file(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def extended_webp(width: int, height: int, flags: int, *chunks: bytes) -> bytes:
    header = bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return webp_file(webp_chunk(b"VP8X", header), *chunks)


def gif_extension(label: int, *blocks: bytes) -> bytes:
    return bytes([0x21, label]) + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"
