"""What the readers of JPEG, PNG, GIF and WebP find in a file without decoding a pixel."""

from collections.abc import Iterable

import msgspec


class Container(msgspec.Struct, frozen=True):
    """A picture's outline, and the same picture without anything beside it.

    `width` and `height` are of the canvas as stored, before `orientation` (1–8, EXIF) is applied. `parts`, joined, are
    the cleaned file; making them may raise Damaged. `is_buffered` tells of JPEGs whose coefficients a decoder must hold
    all at once; `has_alpha` of WebPs that can be transparent, `profile` what their colours mean, if they say so.
    """

    width: int
    height: int
    parts: Iterable[bytes]
    frames: int = 1
    orientation: int = 1
    is_buffered: bool = False
    has_alpha: bool = False
    profile: bytes | None = None
