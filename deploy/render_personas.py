"""Makes the personas' pictures (512 x 512 WebP) from their SVG sources in `src/yral_chat/personas`.

Needs the development dependencies and an installed Chromium or Chrome. From the repository's root:

    .venv/bin/python deploy/render_personas.py                 # all of them
    .venv/bin/python deploy/render_personas.py kamlabua        # only the named ones
"""

import io
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

SOURCES = Path(__file__).resolve().parent.parent / "src" / "yral_chat" / "personas"
SIDE = 512
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def main(names: list[str]) -> None:
    sources = [SOURCES / f"{name}.svg" for name in names] or sorted(SOURCES.glob("*.svg"))
    missing = [source.name for source in sources if not source.is_file()]
    if missing:
        sys.exit(f"No such picture source in {SOURCES}: {', '.join(missing)}")
    render(sources)


def render(sources: Iterable[Path]) -> None:
    # Chromium refuses its sandbox to root; these pictures are our own files.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=arguments)
        page = browser.new_page(viewport={"width": SIDE, "height": SIDE})
        for source in sources:
            target = source.with_suffix(".webp")
            target.write_bytes(as_webp(screenshot(page, source)))
            sys.stdout.write(f"{target.name}  {target.stat().st_size / 1024:.1f} KB\n")
        browser.close()


def find_browser() -> str | None:
    """The system's browser, or None: then playwright looks for one that it installed itself."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def screenshot(page: Page, source: Path) -> bytes:
    page.set_content(f"<style>* {{ margin: 0 }} svg {{ display: block }}</style>{source.read_text(encoding='utf-8')}")
    return page.screenshot()


def as_webp(png: bytes) -> bytes:
    """Pixels only: the RGB image carries no metadata over."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    encoded = io.BytesIO()
    picture.save(encoded, "WEBP", quality=90, method=6)
    return encoded.getvalue()


if __name__ == "__main__":
    main(sys.argv[1:])
