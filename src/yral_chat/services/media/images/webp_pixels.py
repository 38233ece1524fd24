"""Decodes a still WebP into memory that is written once.

Pillow decodes every WebP as an animation: two canvases, a copy for Python and its own image are 16 bytes per pixel,
800 MB for 50 megapixels. The library under it needs 4 (8 while it unpacks a lossless picture), and is loaded already.
"""

import ctypes

from PIL import Image

from yral_chat.services.media.damage import Damaged

BYTES_PER_PIXEL = 4


def decode_still_webp(data: bytes, width: int, height: int, *, has_alpha: bool) -> Image.Image | None:
    """A picture of mode RGBA, or RGBX when it cannot be transparent. Raises Damaged.

    None where Pillow was built in a way that keeps libwebp's functions to itself.
    `WebPDecodeRGBAInto` is of libwebp's simple API (webp/decode.h), unchanged since its first release; it returns NULL
    for whatever it cannot decode, and never writes more than it was told there is room for.
    """
    try:
        from PIL import _webp

        decode = ctypes.CDLL(_webp.__file__).WebPDecodeRGBAInto
    except (ImportError, AttributeError, OSError):
        return None
    decode.restype = ctypes.c_void_p
    decode.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    stride = width * BYTES_PER_PIXEL
    pixels = bytearray(stride * height)
    room = (ctypes.c_char * len(pixels)).from_buffer(pixels)
    if not decode(data, len(data), ctypes.addressof(room), len(pixels), stride):
        raise Damaged("pixels that cannot be decoded")
    del room
    mode = "RGBA" if has_alpha else "RGBX"
    return Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1)
