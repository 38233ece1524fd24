"""The picture of the offline demo: a placeholder that says that it is one. The same prompt gives the same picture."""

import asyncio
import textwrap
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING

from yral_chat.clients.images.model import MadePicture
from yral_chat.clients.language_model import CallRecord, ModelCall, ModelFailure, Picture, Usage
from yral_chat.clients.resilience import CircuitBreaker, seconds_left

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

SIDE = 768  # pixels
MARGIN = 64
LINE_CHARACTERS = 30
MAX_LINES = 4

TITLE = "A placeholder"
LINES = ("This is the offline demo: no image model", "is connected. You asked for:")


class LocalRenderer:
    """An `ImageModel` without a model. It takes no reference: there is nobody in its pictures."""

    provider = "offline"
    model = "local-renderer"

    @property
    def models(self) -> tuple[str, ...]:
        return (self.model,)

    async def make(
        self,
        prompt: str,
        reference: Picture | None,  # noqa: ARG002 - see the class
        *,
        deadline: float,
        correlation_id: str,  # noqa: ARG002 - nobody else takes part
        calls: list[ModelCall],
    ) -> MadePicture:
        with CallRecord(calls, self.provider, self.model, "image_generation") as record:
            if seconds_left(deadline) <= 0:
                raise ModelFailure("timeout", "no time left", is_outage=False)
            data = await asyncio.to_thread(render, prompt)
            record.call.usage = Usage(pictures=1)
            record.close("completed")
        return MadePicture(data, self.provider, self.model)

    def circuits(self) -> dict[str, CircuitBreaker]:
        return {}

    async def close(self) -> None:
        """Holds nothing open."""


def render(prompt: str) -> bytes:
    """A PNG of SIDE × SIDE pixels. Takes 50 ms."""
    # Only here: who asks for no picture needs no imaging library.
    from PIL import ImageDraw

    seed = sha256(prompt.encode("utf-8", "surrogatepass")).digest()
    image = _background(seed)
    _moons(image, seed)
    draw = ImageDraw.Draw(image)
    _label(draw, prompt)
    out = BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _colour(seed: int, lightness: int) -> tuple[int, int, int]:
    from PIL.ImageColor import getrgb

    red, green, blue = getrgb(f"hsl({seed * 360 // 256}, 45%, {lightness}%)")[:3]
    return red, green, blue


def _background(seed: bytes) -> "Image":
    """From one dusky colour at the top to a neighbour of it at the bottom."""
    from PIL import Image

    top = Image.new("RGB", (SIDE, SIDE), _colour(seed[0], 22))
    bottom = Image.new("RGB", (SIDE, SIDE), _colour((seed[0] + 40) % 256, 48))
    return Image.composite(bottom, top, Image.linear_gradient("L").resize((SIDE, SIDE)))


def _moons(image: "Image", seed: bytes) -> None:
    """Three translucent discs, so that pictures can be told apart at a glance."""
    from PIL import ImageDraw

    draw = ImageDraw.Draw(image, "RGBA")
    for at in (1, 4, 7):
        radius = 60 + seed[at] // 2
        x, y = MARGIN + seed[at + 1] * 5 // 2, seed[at + 2] * 3 // 2
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(*_colour(seed[at], 70), 70))


def _label(draw: "ImageDraw", prompt: str) -> None:
    from PIL import ImageFont

    y = SIDE // 2
    draw.text((MARGIN, y), TITLE, font=ImageFont.load_default(56), fill="white")
    y += 80
    for line in LINES:
        draw.text((MARGIN, y), line, font=ImageFont.load_default(26), fill=(255, 255, 255))
        y += 34
    y += 14
    for line in first_words(prompt):
        draw.text((MARGIN, y), line, font=ImageFont.load_default(32), fill=(255, 244, 214))
        y += 42


def first_words(prompt: str) -> list[str]:
    """The beginning of `prompt` in lines that fit. The built-in font has Latin letters only: words in other scripts
    are shown as an ellipsis."""
    words = [word if all(letter <= "ÿ" and letter.isprintable() for letter in word) else "…" for word in prompt.split()]
    shown = [word for at, word in enumerate(words) if word != "…" or at == 0 or words[at - 1] != "…"]
    return textwrap.wrap(" ".join(shown), LINE_CHARACTERS, max_lines=MAX_LINES, placeholder=" …", break_long_words=True)
