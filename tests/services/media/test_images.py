"""Pictures come out whole, upright and without anything beside the picture, or not at all."""

import io
import random
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageCms, ImageOps, ImageSequence, ImageStat

from tests.services.media import pictures
from tests.services.media.pictures import MAX_PIXELS, PROFILE_SECRET, SAMPLES, SECRET, Cleaner, encoded, opened, sample
from yral_chat.core.errors import PayloadTooLarge, UnsupportedMedia
from yral_chat.services.media.images import ALLOWED_IMAGES, clean_image
from yral_chat.services.media.images.pixel_budget import MAX_FRAMES

MIME_TYPES = {".jpg": "image/jpeg", ".png": "image/png", ".gif": "image/gif", ".webp": "image/webp"}
# Of the places in a file that are tried: some at each run, all in the long one.
EVERY = pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.long)])
# A corner of each colour, so that every way to turn is told from every other.
CORNERS = Image.new("RGB", (64, 32), "white")
CORNERS.paste((255, 0, 0), (0, 0, 32, 16))
CORNERS.paste((0, 160, 0), (32, 0, 64, 16))
CORNERS.paste((0, 0, 255), (0, 16, 32, 32))


@pytest.fixture
def clean(tmp_path: Path) -> Cleaner:
    return Cleaner(tmp_path)


def frames_of(data: bytes) -> list[Image.Image]:
    with Image.open(io.BytesIO(data)) as image:
        return [frame.convert("RGBA") for frame in ImageSequence.Iterator(image)]


def difference(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of the pixels, 0 to 255, in the colour that differs most."""
    assert one.size == other.size
    return max(ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean)


def with_metadata(name: str) -> bytes:
    """The sample with EXIF, XMP, comments, unknown parts and a trailer planted everywhere its format has a place."""
    data, tail = sample(name), b"PK\x03\x04" + SECRET
    if name.endswith(".jpg"):
        planted = [
            pictures.jpeg_segment(0xE0, b"JFXX\0\x10" + SECRET),
            pictures.jpeg_segment(0xE1, b"Exif\0\0" + pictures.exif().removeprefix(b"Exif\0\0")),
            pictures.jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + SECRET),
            pictures.jpeg_segment(0xE2, b"MPF\0" + SECRET),
            pictures.jpeg_segment(0xED, b"Photoshop 3.0\0" + SECRET),
            pictures.jpeg_segment(0xEF, SECRET),
            pictures.jpeg_segment(0xFE, SECRET),
        ]
        return (
            data[:2]
            + b"".join(planted)
            + SECRET
            + data[2:-2]
            + pictures.jpeg_segment(0xFE, SECRET)
            + b"\xff\xd9"
            + tail
        )
    if name.endswith(".png"):
        text = pictures.png_chunk(b"tEXt", b"Comment\0" + SECRET)
        xmp = pictures.png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + SECRET)
        exif = pictures.png_chunk(b"eXIf", pictures.exif().removeprefix(b"Exif\0\0"))
        other = pictures.png_chunk(b"prVt", SECRET)
        return data[:33] + text + xmp + exif + other + data[33:-12] + text + data[-12:] + tail
    if name.endswith(".gif"):
        start = 13 + (3 << ((data[10] & 7) + 1))
        comment = pictures.gif_extension(0xFE, SECRET)
        xmp = pictures.gif_extension(0xFF, b"XMP DataXMP", SECRET)
        text = pictures.gif_extension(0x01, bytes(12), SECRET)
        return data[:start] + comment + xmp + text + data[start:-1] + comment + b";" + tail
    extra = [pictures.webp_chunk(name, SECRET) for name in (b"EXIF", b"XMP ", b"abcd")]
    if data[12:16] == b"VP8X":
        header = bytes([data[20] | 0x0C]) + data[21:30]
        return pictures.webp_file(pictures.webp_chunk(b"VP8X", header), data[30:], *extra) + tail
    width, height = opened(data).size
    return pictures.extended_webp(width, height, 0x0C, data[12:], *extra) + tail


@pytest.mark.parametrize("name", SAMPLES)
def test_a_picture_is_recognised_and_kept_as_it_was(clean: Cleaner, name: str) -> None:
    facts, cleaned = clean(sample(name))
    before, after = frames_of(sample(name)), frames_of(cleaned)
    assert facts.mime_type == MIME_TYPES[facts.extension] == MIME_TYPES[Path(name).suffix]
    assert (facts.width, facts.height) == before[0].size == opened(cleaned).size
    assert facts.frames == len(after) == (1 if name.endswith(".png") else len(before))
    assert [image.tobytes() for image in after] == [image.tobytes() for image in before[: len(after)]]
    assert opened(cleaned).mode == opened(sample(name)).mode


@pytest.mark.parametrize("name", SAMPLES)
def test_nothing_but_the_picture_survives(clean: Cleaner, name: str) -> None:
    planted = with_metadata(name)
    assert SECRET in planted
    _, cleaned = clean(planted)
    assert SECRET not in cleaned
    assert b"PK\x03\x04" not in cleaned
    assert not opened(cleaned).getexif()
    assert frames_of(cleaned)[0].tobytes() == frames_of(sample(name))[0].tobytes()
    assert clean(cleaned)[1] == cleaned, "a cleaned picture is clean"


def test_what_follows_the_pixels_inside_a_png_is_cut_off(clean: Cleaner) -> None:
    data = sample("rgb.png")
    start = data.index(b"IDAT") - 4
    length = int.from_bytes(data[start : start + 4], "big")
    longer = pictures.png_chunk(b"IDAT", data[start + 8 : start + 8 + length] + SECRET)
    more = pictures.png_chunk(b"IDAT", SECRET)
    _, cleaned = clean(data[:start] + longer + more + data[start + 12 + length :])
    assert SECRET not in cleaned
    assert cleaned == clean(data)[1]


def test_a_second_transparency_of_a_webp_is_left_out(clean: Cleaner) -> None:
    data = sample("lossless.webp")
    made = pictures.extended_webp(16, 12, 0x10, pictures.webp_chunk(b"ALPH", SECRET), data[12:])
    assert SECRET not in clean(made)[1]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_profile_keeps_its_colours_and_loses_its_texts(clean: Cleaner, kind: str) -> None:
    _, cleaned = clean(encoded(CORNERS, kind, icc_profile=pictures.profile()))
    kept = opened(cleaned).info["icc_profile"]
    assert PROFILE_SECRET not in kept
    assert PROFILE_SECRET not in cleaned
    before = ImageCms.ImageCmsProfile(io.BytesIO(pictures.profile())).profile
    after = ImageCms.ImageCmsProfile(io.BytesIO(kept)).profile
    assert (after.red_colorant, after.green_colorant, after.blue_colorant, after.media_white_point) == (
        before.red_colorant,
        before.green_colorant,
        before.blue_colorant,
        before.media_white_point,
    )
    ramp = Image.linear_gradient("L").convert("RGB")
    lab = ImageCms.createProfile("LAB")
    seen = [
        ImageCms.profileToProfile(ramp, ImageCms.ImageCmsProfile(io.BytesIO(one)), lab, outputMode="LAB")
        for one in (pictures.profile(), kept)
    ]
    assert seen[0] is not None
    assert seen[1] is not None
    assert seen[0].tobytes() == seen[1].tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("planted", [SECRET * 10, b"\0" * 128 + SECRET, b"acsp" * 200])
def test_what_only_poses_as_a_profile_is_dropped(clean: Cleaner, kind: str, planted: bytes) -> None:
    _, cleaned = clean(encoded(CORNERS, kind, icc_profile=planted))
    assert "icc_profile" not in opened(cleaned).info


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "mode"), [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P")]
)
def test_an_orientation_is_applied(clean: Cleaner, kind: str, mode: str, orientation: int) -> None:
    made = encoded(CORNERS.convert(mode), kind, exif=pictures.exif(orientation))
    upright = ImageOps.exif_transpose(opened(made))
    facts, cleaned = clean(made)
    after = opened(cleaned)
    assert (facts.width, facts.height) == after.size == upright.size
    assert after.mode == mode
    assert difference(after, upright) <= (5 if kind == "JPEG" else 0)
    assert difference(opened(clean.copy.read_bytes()), upright.convert("RGB")) <= 10
    assert not after.getexif()
    assert SECRET not in cleaned


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize(("mode", "extension"), [("RGB", ".jpg"), ("RGBA", ".png")])
def test_a_webp_with_an_orientation_becomes_another_format(
    clean: Cleaner, mode: str, extension: str, lossless: bool
) -> None:
    image = CORNERS.copy()
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    made = encoded(image, "WEBP", lossless=lossless, exif=pictures.exif(6), icc_profile=pictures.profile())
    facts, cleaned = clean(made)
    assert (facts.width, facts.height, facts.extension) == (32, 64, extension)
    upright = ImageOps.exif_transpose(opened(made))
    assert difference(opened(cleaned), upright) <= (2 if mode == "RGB" else 0)
    assert opened(cleaned).info["icc_profile"].startswith(b"\0\0")
    assert SECRET not in cleaned


@pytest.mark.parametrize("sampling", [0, 1, 2])
def test_a_turned_jpeg_keeps_its_subsampling_where_it_can(clean: Cleaner, sampling: int) -> None:
    from PIL.JpegImagePlugin import get_sampling

    after_flip = opened(clean(encoded(CORNERS, "JPEG", subsampling=sampling, exif=pictures.exif(3)))[1])
    after_turn = opened(clean(encoded(CORNERS, "JPEG", subsampling=sampling, exif=pictures.exif(6)))[1])
    assert (get_sampling(after_flip), get_sampling(after_turn)) == (sampling, 0 if sampling == 1 else sampling)


@pytest.mark.parametrize(
    "broken", [b"II*\0\xff\xff\xff\xff", b"MM\0*", b"II*\0\x08\0\0\0\xff\xff", b"XX", b"Exif\0\0", b""]
)
def test_a_broken_exif_means_upright(clean: Cleaner, broken: bytes) -> None:
    data = sample("rgb.png")
    facts, cleaned = clean(data[:33] + pictures.png_chunk(b"eXIf", broken) + data[33:])
    assert (facts.width, facts.height) == (16, 12)
    assert cleaned == clean(data)[1]


@pytest.mark.parametrize("name", ["animated.gif", "animated.webp"])
def test_an_animation_keeps_frames_times_and_repetitions(clean: Cleaner, name: str) -> None:
    facts, cleaned = clean(with_metadata(name))
    with Image.open(io.BytesIO(cleaned)) as image:
        durations = []
        for frame in ImageSequence.Iterator(image):
            frame.load()  # a WebP knows the duration only then
            durations.append(frame.info["duration"])
        assert (facts.frames, durations, image.info["loop"]) == (3, [100, 200, 300], 3)
    assert [one.tobytes() for one in frames_of(cleaned)] == [one.tobytes() for one in frames_of(sample(name))]


def test_sixteen_bits_stay_sixteen_bits(clean: Cleaner) -> None:
    _, cleaned = clean(sample("grey16.png"))
    assert opened(cleaned).mode == "I;16"
    assert opened(cleaned).tobytes() == opened(sample("grey16.png")).tobytes()
    assert (
        difference(
            opened(clean.copy.read_bytes()), opened(sample("grey16.png")).convert("I").point(_halved).convert("L")
        )
        <= 24
    )


def _halved(value: float) -> float:
    return value / 256


@pytest.mark.parametrize(("size", "small"), [((3000, 1500), (768, 384)), ((10, 5), (10, 5)), ((4000, 1), (768, 1))])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_models_get_a_small_still(clean: Cleaner, kind: str, size: tuple[int, int], small: tuple[int, int]) -> None:
    clean(encoded(CORNERS.resize(size), kind))
    copy = opened(clean.copy.read_bytes())
    assert (copy.format, copy.mode, copy.size) == ("JPEG", "RGB", small)
    assert difference(copy, CORNERS.resize(size).resize(small)) <= (6 if size[0] > 100 else 45)


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGBA"), ("PNG", "LA"), ("PNG", "P"), ("WEBP", "RGBA"), ("GIF", "P")]
)
def test_transparency_is_kept_and_is_white_to_models(clean: Cleaner, kind: str, mode: str) -> None:
    image = Image.new("RGBA", (40, 20), (0, 0, 0, 0)).convert(mode)
    options = {"transparency": 0} if mode == "P" else {}
    _, cleaned = clean(encoded(image, kind, **options))
    assert opened(cleaned).convert("RGBA").getpixel((5, 5))[3] == 0  # type: ignore[index]
    assert opened(clean.copy.read_bytes()).getpixel((5, 5)) == (255, 255, 255)


@EVERY
@pytest.mark.parametrize("name", SAMPLES)
def test_every_beginning_of_a_picture_is_refused(clean: Cleaner, name: str, step: int) -> None:
    data = sample(name)
    for length in range(len(data) - 1, -1, -step):
        with pytest.raises(UnsupportedMedia) as refused:
            clean(data[:length])
        assert refused.value.details == {"allowed": list(ALLOWED_IMAGES)}
        assert not clean.target.exists()
        assert not clean.copy.exists()


@EVERY
@pytest.mark.parametrize("name", SAMPLES)
def test_every_flipped_byte_is_taken_or_refused(clean: Cleaner, name: str, step: int) -> None:
    data = sample(name)
    for place in range(0, len(data), step):
        broken = bytearray(data)
        broken[place] ^= 0xFF
        try:
            clean(bytes(broken))
        except (UnsupportedMedia, PayloadTooLarge):
            assert not clean.target.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\xff\xd8\xff",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"BM" + bytes(100),
        b"II*\0" + bytes(100),
        b"\0\0\0\x18ftypavif" + bytes(100),
        b"RIFF\x24\0\0\0WAVEfmt " + bytes(100),
        b"OggS" + bytes(100),
    ],
)
def test_what_is_no_picture_is_refused(clean: Cleaner, data: bytes) -> None:
    with pytest.raises(UnsupportedMedia):
        clean(data)


@pytest.mark.parametrize("name", ["baseline.jpg", "rgb.png", "animated.gif", "lossy.webp"])
def test_random_bytes_behind_a_real_beginning_are_refused(clean: Cleaner, name: str) -> None:
    for seed in range(20):
        with pytest.raises((UnsupportedMedia, PayloadTooLarge)):
            clean(sample(name)[:30] + random.Random(seed).randbytes(3000))


@pytest.mark.parametrize("side", [50_000, 2**31 - 1])
def test_a_png_that_claims_too_many_pixels_is_refused_from_its_header(clean: Cleaner, side: int) -> None:
    bomb = pictures.png_header(side, side) + pictures.png_chunk(b"IDAT", b"x" * 900) + pictures.png_chunk(b"IEND", b"")
    with pytest.raises(PayloadTooLarge) as refused:
        clean(bomb)
    assert refused.value.details == {"limit": MAX_PIXELS, "unit": "pixels"}


@pytest.mark.parametrize("name", SAMPLES)
def test_pixels_of_all_frames_count_together(clean: Cleaner, name: str) -> None:
    frames = opened(sample(name))
    count = 1 if name.endswith(".png") else getattr(frames, "n_frames", 1)
    total = frames.width * frames.height * count
    clean(sample(name), max_pixels=total)
    with pytest.raises(PayloadTooLarge) as refused:
        clean(sample(name), max_pixels=total - 1)
    assert refused.value.details == {"limit": total - 1, "unit": "pixels"}
    assert not clean.target.exists()


def many_frames(name: str, count: int) -> bytes:
    """The animation with its last frame again and again."""
    data = sample(name)
    if name.endswith(".gif"):
        frame = data[data.rindex(b"\x21\xf9") : -1]
        return data[:-1] + frame * count + b";"
    frame = data[data.rindex(b"ANMF") :]
    return pictures.webp_file(data[12:] + frame * count)


@pytest.mark.parametrize("name", ["animated.gif", "animated.webp"])
def test_thousands_of_frames_are_refused(clean: Cleaner, name: str) -> None:
    facts, _ = clean(many_frames(name, 97))
    assert facts.frames == 100
    with pytest.raises(PayloadTooLarge) as refused:
        clean(many_frames(name, 3000), max_pixels=3000)
    assert refused.value.details == {"limit": 3000, "unit": "pixels"}
    with pytest.raises(PayloadTooLarge) as refused:
        clean(many_frames(name, MAX_FRAMES), max_pixels=50_000_000)
    assert "frames" in refused.value.message
    assert refused.value.details == {"limit": 50_000_000, "unit": "pixels"}


def test_a_small_canvas_with_a_large_picture_is_refused(clean: Cleaner) -> None:
    large = encoded(Image.new("RGB", (500, 500)), "WEBP")[12:]
    with pytest.raises(UnsupportedMedia):
        clean(pictures.extended_webp(10, 10, 0, large), max_pixels=1000)
    gif = bytearray(sample("still.gif"))
    place = gif.rindex(b"\x2c") + 5
    gif[place : place + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(PayloadTooLarge):
        clean(bytes(gif))


def test_a_jpeg_with_hundreds_of_scans_is_refused(clean: Cleaner) -> None:
    data = sample("progressive.jpg")
    last = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(UnsupportedMedia):
        clean(data[:-2] + last * 200 + b"\xff\xd9")


def test_a_gif_in_tiny_pieces_is_put_together(clean: Cleaner) -> None:
    image = Image.effect_noise((200, 100), 90).convert("P")
    data = encoded(image, "GIF")
    start = data.index(b"\x2c", 13 + 768) + 11
    packed, place = b"", start
    while data[place]:
        packed += data[place + 1 : place + 1 + data[place]]
        place += 1 + data[place]
    pieces = b"".join(bytes([1, byte]) for byte in packed)
    _, cleaned = clean(data[:start] + pieces + b"\0;")
    assert len(cleaned) < len(data) + 10
    assert opened(cleaned).convert("RGB").tobytes() == opened(data).convert("RGB").tobytes()


def test_a_picture_of_several_is_its_first(clean: Cleaner) -> None:
    """Phones put depth maps and brighter versions behind the picture (MPO, Ultra HDR)."""
    other = encoded(CORNERS.rotate(180), "JPEG", comment=SECRET)
    buffer = io.BytesIO()
    CORNERS.save(buffer, "MPO", save_all=True, append_images=[opened(other)])
    facts, cleaned = clean(buffer.getvalue())
    assert (facts.mime_type, facts.frames, opened(cleaned).format) == ("image/jpeg", 1, "JPEG")
    assert cleaned.count(b"\xff\xd8\xff") == 1
    assert difference(opened(cleaned), CORNERS) < 10


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_not_the_fault_of_the_picture(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    clean = Cleaner(tmp_path)
    clean.source.write_bytes(sample("rgb.png"))
    with pytest.raises(OSError, match="No space left"):
        clean_image(clean.source, tmp_path / "full", clean.copy, max_pixels=MAX_PIXELS)
