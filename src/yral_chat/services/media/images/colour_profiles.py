"""Colour profiles, reduced to the numbers that colours need.

A profile is kept, because pictures of phones are in Display P3 and would look pale without it. It is rebuilt, because
profiles of monitors name the machine, its serial number and its owner, and because free text hides anything.
Layouts: ICC.1:2022, sections 7.2 (header), 7.3 (tag table) and 10 (types of tags).
"""

import struct

MAX_BYTES = 4 * 1024 * 1024
HEADER_BYTES = 128
MAX_TAGS = 100
SPACES = {b"RGB ", b"GRAY", b"CMYK"}
CLASSES = {b"mntr", b"scnr", b"prtr", b"spac"}
POINTS = {b"rXYZ", b"gXYZ", b"bXYZ", b"wtpt"}
CURVES = {b"rTRC", b"gTRC", b"bTRC", b"kTRC"}
TABLES = {b"A2B0", b"A2B1"}  # the way from the device's colours, which is the only one a viewer goes
TABLE_TYPES = {b"mft1", b"mft2", b"mAB "}
PARAMETERS = (1, 3, 4, 5, 7)  # of each function of a parametric curve
ILLUMINANT = struct.pack(">3i", 63190, 65536, 54061)  # D50, the only one allowed


def slim_profile(profile: bytes) -> bytes | None:
    """The same colours in a profile without texts, names and dates; None when it is no profile that viewers use."""
    if not HEADER_BYTES + 4 <= len(profile) <= MAX_BYTES or profile[36:40] != b"acsp":
        return None
    if profile[12:16] not in CLASSES or profile[16:20] not in SPACES:
        return None
    tags = _colour_tags(profile)
    return _rebuilt(profile, tags | _required_texts(profile[8])) if tags else None


def _colour_tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, HEADER_BYTES)
    tags = {}
    for index in range(min(count, MAX_TAGS, (len(profile) - HEADER_BYTES - 4) // 12)):
        name, offset, size = struct.unpack_from(">4sII", profile, HEADER_BYTES + 4 + 12 * index)
        kept = _kept(name, profile[offset : offset + size])
        if kept:
            tags[name] = kept
    return tags


def _kept(name: bytes, tag: bytes) -> bytes | None:
    """The part of a tag that holds numbers, None for a tag that has another purpose or another form."""
    kind = tag[:4]
    if name in POINTS and kind == b"XYZ ":
        return tag[:20]
    if name == b"chad" and kind == b"sf32":
        return tag[:44]
    if name in CURVES and kind == b"curv" and len(tag) >= 12:
        return tag[: 12 + 2 * int.from_bytes(tag[8:12], "big")]
    if name in CURVES and kind == b"para" and len(tag) >= 12 and tag[8] == 0 and tag[9] < len(PARAMETERS):
        return tag[: 12 + 4 * PARAMETERS[tag[9]]]
    return tag if name in TABLES and kind in TABLE_TYPES else None


def _required_texts(version: int) -> dict[bytes, bytes]:
    """Some viewers refuse a profile without a description and a copyright notice."""
    if version >= 4:
        text = b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, 2, 28) + b"\0-"
        return {b"desc": text, b"cprt": text}
    return {b"desc": b"desc" + struct.pack(">II", 0, 2) + b"-\0" + bytes(78), b"cprt": b"text\0\0\0\0-\0"}


def _rebuilt(profile: bytes, tags: dict[bytes, bytes]) -> bytes:
    offset = HEADER_BYTES + 4 + 12 * len(tags)
    table, contents = struct.pack(">I", len(tags)), b""
    places: dict[bytes, int] = {}  # the three curves are usually one
    for name, tag in tags.items():
        if tag not in places:
            places[tag] = offset + len(contents)
            contents += tag + bytes(-len(tag) % 4)
        table += struct.pack(">4sII", name, places[tag], len(tag))
    header = struct.pack(
        ">I4x4s4s4s4s12s4s24xI12s48x",
        offset + len(contents),
        profile[8:12],
        profile[12:16],
        profile[16:20],
        profile[20:24],
        struct.pack(">6H", 2000, 1, 1, 0, 0, 0),
        b"acsp",
        profile[67] & 3,  # rendering intent
        ILLUMINANT,
    )
    return header + table + contents
