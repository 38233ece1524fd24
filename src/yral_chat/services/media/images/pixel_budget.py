"""How many pixels a picture may have, told to its reader frame by frame so that it stops at the first too many."""

import msgspec

from yral_chat.core.errors import PayloadTooLarge
from yral_chat.services.media.damage import Damaged

# Decoding a frame costs something however small it is. Animations that people send rarely have more than 500.
MAX_FRAMES = 2000


class PixelBudget(msgspec.Struct, frozen=True):
    """`max_pixels` counts all frames together, each as large as the canvas, which is what a decoder paints."""

    max_pixels: int

    def check(self, width: int, height: int, frames: int = 1) -> None:
        """Raises PayloadTooLarge with `details` `{limit, unit}`, and Damaged for a picture without pixels."""
        if width < 1 or height < 1:
            raise Damaged("a picture without pixels")
        limit: dict[str, int | str] = {"limit": self.max_pixels, "unit": "pixels"}
        if width * height * frames > self.max_pixels:
            raise PayloadTooLarge("The picture has too many pixels", details=limit)
        if frames > MAX_FRAMES:  # clients know no unit but bytes and pixels (contract section 2)
            raise PayloadTooLarge("The picture has too many frames", details=limit)
