"""The largest pictures that are taken need little more memory than two of them, decoded."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.services.media import pictures

pytestmark = pytest.mark.long

LARGEST = (8000, 6250)  # 50 megapixels
HALF = (5000, 5000)  # two frames of it
MOST = 450 * 1024 * 1024

# A small picture of the same kind first, so that libraries, once loaded, do not count.
MEASURE = """
import resource, sys
from pathlib import Path
from yral_chat.services.media.images import clean_image

def peak():
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024

folder = Path(sys.argv[1])
def clean(name):
    clean_image(folder / name, folder / "target", folder / "copy", max_pixels=50_000_000)
clean("small")
before = peak()
clean("large")
print(peak() - before)
"""


def gradients(size: tuple[int, int], mode: str) -> Image.Image:
    across, down = Image.radial_gradient("L").resize(size), Image.linear_gradient("L").resize(size)
    return Image.merge(mode, [across, down, across, down][: len(mode)])


def write(path: Path, size: tuple[int, int], mode: str, kind: str, options: dict[str, object]) -> None:
    image = gradients(size, "RGB" if mode == "P" else mode)
    image = image.convert("P") if mode == "P" else image
    if size == HALF:
        options = options | {"save_all": True, "append_images": [image.transpose(Image.Transpose.ROTATE_180)]}
    image.save(path, kind, **options)


PLAIN: dict[str, object] = {}
TURNED: dict[str, object] = {"exif": pictures.exif(6)}
FAST: dict[str, object] = {"method": 0}
PROGRESSIVE: dict[str, object] = {"progressive": True, "subsampling": 0}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", PLAIN),
        ("JPEG", "RGB", TURNED),
        ("JPEG", "CMYK", TURNED),
        ("JPEG", "RGB", PROGRESSIVE),
        ("JPEG", "RGB", PROGRESSIVE | TURNED),
        ("JPEG", "CMYK", PROGRESSIVE | TURNED),
        ("PNG", "RGB", PLAIN),
        ("PNG", "RGBA", {"compress_level": 1}),
        ("PNG", "RGB", {"compress_level": 1} | TURNED),
        ("PNG", "RGBA", {"compress_level": 1} | TURNED),
        ("GIF", "P", PLAIN),
        ("WEBP", "RGB", FAST),
        ("WEBP", "RGB", FAST | TURNED),
        ("WEBP", "RGBA", FAST | TURNED),
        ("WEBP", "RGBA", FAST | {"lossless": True}),
    ],
)
def test_the_largest_still_fits(tmp_path: Path, kind: str, mode: str, options: dict[str, object]) -> None:
    write(tmp_path / "small", (8, 8), mode, kind, options)
    write(tmp_path / "large", LARGEST, mode, kind, options)
    assert extra_bytes(tmp_path) < MOST


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kind", "mode", "options"), [("GIF", "P", {"disposal": 2}), ("WEBP", "RGBA", FAST)])
def test_the_largest_animation_fits(tmp_path: Path, kind: str, mode: str, options: dict[str, object]) -> None:
    write(tmp_path / "small", (8, 8), mode, kind, options)
    write(tmp_path / "large", HALF, mode, kind, options)
    assert extra_bytes(tmp_path) < MOST


def extra_bytes(folder: Path) -> int:
    done = subprocess.run([sys.executable, "-c", MEASURE, folder], check=True, capture_output=True, text=True)
    return int(done.stdout)
