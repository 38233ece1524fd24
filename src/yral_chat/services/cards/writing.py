"""Cards inside pictures."""

import base64
from io import BytesIO

from yral_chat.services.cards.mapping import as_v2, as_v3, to_json
from yral_chat.services.cards.shapes import Json
from yral_chat.services.media.images import png

# Of a picture that has to be made a PNG; the avatars of most programs are smaller.
MAX_SIDE = 1024
PLAIN_SIZE = (400, 600)
PLAIN_COLOUR = "#5b4a8a"


def to_png(card: Json, picture: tuple[str, bytes] | None) -> bytes:
    """The picture (mime type, cleaned bytes), a plain one when there is none, with the card in both versions."""
    image = _png_of(picture)
    end = image.rindex(b"IEND") - 4
    texts = [
        _text_chunk(b"ccv3", to_json(as_v3(card))),
        _text_chunk(b"chara", to_json(as_v2(card))),
    ]
    return image[:end] + b"".join(texts) + image[end:]


def _text_chunk(keyword: bytes, text: bytes) -> bytes:
    return png.chunk(b"tEXt", keyword + b"\0" + base64.b64encode(text))


def _png_of(picture: tuple[str, bytes] | None) -> bytes:
    if picture is not None and picture[0] == "image/png":
        return picture[1]
    from PIL import Image  # a tenth of a second of a start

    image: Image.Image
    if picture is None:
        image = Image.new("RGB", PLAIN_SIZE, PLAIN_COLOUR)
    else:
        with Image.open(BytesIO(picture[1])) as opened:
            opened.draft("RGB", (MAX_SIDE, MAX_SIDE))
            opened.thumbnail((MAX_SIDE, MAX_SIDE))
            image = opened.convert("RGBA")
    out = BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
