"""Recognises, cleans and measures pictures (contract section 12.1).

The order is the defence. A reader of ours finds the outline (size, frames, orientation) and refuses what is too large
before a pixel is decoded; it copies only what paints. Pillow then sees the cleaned file alone: no EXIF, no texts, no
second picture, nothing behind the end. What is kept is what was decoded.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from yral_chat.core.errors import UnsupportedMedia
from yral_chat.services.media.damage import Damaged
from yral_chat.services.media.images import gif, jpeg, png, webp
from yral_chat.services.media.images.containers import Container
from yral_chat.services.media.images.exif import UPRIGHT
from yral_chat.services.media.images.pixel_budget import PixelBudget
from yral_chat.services.media.images.pixels import check_and_copy, turn_upright

# Pillow's name of a format: mime type and extension.
TYPES = {
    "JPEG": ("image/jpeg", ".jpg"),
    "PNG": ("image/png", ".png"),
    "GIF": ("image/gif", ".gif"),
    "WEBP": ("image/webp", ".webp"),
}
ALLOWED_IMAGES: tuple[str, ...] = tuple(mime_type for mime_type, _ in TYPES.values())


class ImageFacts(msgspec.Struct, frozen=True):
    """Of a cleaned picture, upright. `extension` begins with a dot. `frames` is 1 for a still."""

    mime_type: str
    extension: str
    width: int
    height: int
    frames: int


def clean_image(source: Path, target: Path, model_copy: Path, *, max_pixels: int) -> ImageFacts:
    """Writes the picture without metadata and upright to `target`, and a JPEG for models to `model_copy`.

    JPEG, PNG, GIF and WebP are recognised by content. The pixels stay as they were compressed, unless an orientation
    has to be applied. The copy is the first frame on white, at most 768 pixels wide and high.

    Raises UnsupportedMedia (`details` `{allowed}`) for anything else and for what is damaged, PayloadTooLarge
    (`details` `{limit, unit}`) for more than `max_pixels` in all frames together; neither file is left then.
    Takes at most 9 bytes per pixel beside the file, and is meant to run once at a time in a thread.
    """
    try:
        with _refusing():
            kind, container = _read(source.read_bytes(), PixelBudget(max_pixels))
            with target.open("wb") as file:
                file.writelines(container.parts)
            return _decoded(kind, container, target, model_copy)
    except BaseException:
        target.unlink(missing_ok=True)
        model_copy.unlink(missing_ok=True)
        raise


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except (Damaged, IndexError, struct.error) as error:
        raise UnsupportedMedia(details={"allowed": list(ALLOWED_IMAGES)}) from error


def _read(data: bytes, budget: PixelBudget) -> tuple[str, Container]:
    if data.startswith(jpeg.MAGIC):
        return "JPEG", jpeg.read_jpeg(data, budget)
    if data.startswith(png.MAGIC):
        return "PNG", png.read_png(data, budget)
    if data.startswith(gif.MAGICS):
        return "GIF", gif.read_gif(data, budget)
    if webp.is_webp(data):
        return "WEBP", webp.read_webp(data, budget)
    raise Damaged("not a picture")


def _decoded(kind: str, container: Container, target: Path, model_copy: Path) -> ImageFacts:
    width, height = container.width, container.height
    if container.orientation == UPRIGHT:
        check_and_copy(target, kind, container, model_copy)
    else:
        kind, width, height = turn_upright(target, kind, container, model_copy)
    mime_type, extension = TYPES[kind]
    return ImageFacts(mime_type=mime_type, extension=extension, width=width, height=height, frames=container.frames)
