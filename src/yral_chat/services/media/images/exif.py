"""The one thing that is read from EXIF before it is thrown away."""

import struct

ORIENTATION_TAG = 0x0112
SHORT = 3
UPRIGHT = 1


def read_orientation(exif: bytes) -> int:
    """How a camera was held, 1–8 as EXIF 2.32 section 4.6.4 numbers them; 1 (upright) when that cannot be read.

    `exif` begins with the TIFF header, or with `Exif\\0\\0` before it.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return UPRIGHT
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, count, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == ORIENTATION_TAG:
                return value if kind == SHORT and count == 1 and 1 <= value <= 8 else UPRIGHT
    except struct.error:
        pass  # an address or a table beyond the end
    return UPRIGHT
