"""Decodes cleaned pictures: proves that they are whole, turns them upright, makes the small still for models.

Memory is what this file is written for. A decoded picture has 4 bytes per pixel (200 MB for 50 megapixels), and only
turning needs two of them; everything else goes in bands, in the decoder (JPEG) or through encoders that write row by
row.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, JpegImagePlugin

from yral_chat.services.media.damage import Damaged
from yral_chat.services.media.images.containers import Container
from yral_chat.services.media.images.webp_pixels import decode_still_webp

# Pixels are counted from the headers before anything is opened here, so Pillow need not warn at a number of its own.
Image.MAX_IMAGE_PIXELS = None

# Gemini counts 258 tokens for each tile of 768 × 768 (https://ai.google.dev/gemini-api/docs/tokens, "Image tokens").
MODEL_SIDE = 768
MODEL_QUALITY = 80
UPRIGHT_QUALITY = 93  # phones write 90–96; above it files grow without a difference to be seen
BAND_PIXELS = 2 * 1024 * 1024
DECODE_BUDGET = 400 * 1024 * 1024
SIDEWAYS = 5  # from this orientation on, width and height change places
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@contextmanager
def decoding() -> Iterator[None]:
    """Whatever Pillow says about bad bytes becomes Damaged; a disk that fails stays what it is."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        raise Damaged(str(error)) from error
    except (
        *(SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, AttributeError, OverflowError),
        *(struct.error, zlib.error, Image.DecompressionBombError),
    ) as error:
        raise Damaged(str(error)) from error


def check_and_copy(picture: Path, kind: str, container: Container, model_copy: Path) -> None:
    """Decodes every frame and writes the small still of the first. `kind` is Pillow's name of the format."""
    if kind == "WEBP" and container.frames == 1 and (still := _still_webp(picture, container)):
        _write_small(still, model_copy)
        return
    with decoding(), Image.open(picture, formats=[kind]) as image:
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            image.draft(None, _twice_small(image.size))
        image.load()
        _write_small(image, model_copy)
        for frame in range(1, container.frames):
            image.seek(frame)
            image.load()
        _check_no_more(image, container.frames)


def turn_upright(picture: Path, kind: str, container: Container, model_copy: Path) -> tuple[str, int, int]:
    """Replaces the file by its upright picture and writes the small still; the format's name and the new size.

    A JPEG stays one. A WebP becomes a JPEG, or a PNG where it can be transparent: its own encoder needs 12 bytes per
    pixel, and no camera writes WebP with an orientation.
    """
    with decoding():
        image, options = _decoded(picture, kind, container)
        image = image.transpose(TURNS[container.orientation])  # frees the one that it was made from
        _write_small(image, model_copy)
        kind = "PNG" if kind == "PNG" or image.mode == "RGBA" else "JPEG"
        if image.mode == "RGBX":
            image = image.convert("RGB")
        picture.unlink()  # writing over a file makes some file systems wait for the disk
        image.save(picture, kind, **options)
        return kind, image.width, image.height


def _decoded(picture: Path, kind: str, container: Container) -> tuple[Image.Image, dict[str, object]]:
    """The picture, held by nobody else, and what its encoder is to be told."""
    quality: dict[str, object] = {"quality": UPRIGHT_QUALITY, "subsampling": 0}
    if kind == "WEBP" and (still := _still_webp(picture, container)):
        return still, {"icc_profile": container.profile} | ({} if container.has_alpha else quality)
    with Image.open(picture, formats=[kind]) as image:
        options = {"icc_profile": image.info.get("icc_profile")}
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            options |= quality | {"subsampling": _subsampling(image, container.orientation)}
            if container.is_buffered and _decoder_bytes(image) > DECODE_BUDGET:
                image.draft(None, (image.width // 2, image.height // 2))
        elif not container.has_alpha:
            options |= quality if kind == "WEBP" else {}
        image.load()
        return image, options


def _still_webp(picture: Path, container: Container) -> Image.Image | None:
    return decode_still_webp(picture.read_bytes(), container.width, container.height, has_alpha=container.has_alpha)


def _decoder_bytes(image: JpegImagePlugin.JpegImageFile) -> int:
    """What the decoder holds of a progressive JPEG: two bytes per coefficient, and then the picture."""
    areas = [across * down for _, across, down, _ in image.layer]
    per_pixel = 2 * sum(areas) / max(areas) + 4
    return round(per_pixel * image.width * image.height)


def _subsampling(image: JpegImagePlugin.JpegImageFile, orientation: int) -> int:
    """The picture's own, in Pillow's numbers; none where halved across would have to become halved down."""
    found = JpegImagePlugin.get_sampling(image)
    is_kept = found == 2 or (found == 1 and orientation < SIDEWAYS)
    return found if is_kept else 0


def _check_no_more(image: Image.Image, frames: int) -> None:
    found = getattr(image, "n_frames", 1)
    if found != frames:
        raise Damaged(f"{found} frames instead of {frames}")


def _twice_small(size: tuple[int, int]) -> tuple[int, int]:
    """What the decoder may shrink to: twice the small still, so that the rest can be done with care."""
    factor = max(1.0, max(size) / (2 * MODEL_SIDE))
    return max(1, int(size[0] / factor)), max(1, int(size[1] / factor))


def _write_small(image: Image.Image, target: Path) -> None:
    small = _reduced(image)
    small.thumbnail((MODEL_SIDE, MODEL_SIDE), Image.Resampling.LANCZOS)
    small.save(target, "JPEG", quality=MODEL_QUALITY)


def _reduced(image: Image.Image) -> Image.Image:
    """On white, 8 bits, RGB; at least twice the small still's size when the picture is. A band of rows at a time."""
    factor = max(1, max(image.size) // (2 * MODEL_SIDE))
    small = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    rows = max(1, BAND_PIXELS // (image.width * factor)) * factor
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        small.paste(_flattened(band).reduce(factor), (0, top // factor))
    return small


def _flattened(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16 bits of grey; a transparent shade of them is not worth its exactness in a copy for models.
        return image.convert("I").point(lambda value: value / 256).convert("L").convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    return white
