"""GIF files, block by block (GIF89a specification, CompuServe 1990)."""

from collections.abc import Iterator

from yral_chat.services.media.damage import Damaged
from yral_chat.services.media.images.containers import Container
from yral_chat.services.media.images.pixel_budget import PixelBudget

MAGICS = (b"GIF87a", b"GIF89a")
EXTENSION, IMAGE, TRAILER = 0x21, 0x2C, 0x3B
GRAPHIC_CONTROL, APPLICATION = 0xF9, 0xFF
LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
MAX_BLOCK = 255


class GifReader:
    """Walks over the blocks once; keeps what paints, in canonical form, and the number of repetitions."""

    def __init__(self, data: bytes, budget: PixelBudget) -> None:
        self._data = data
        self._budget = budget
        self._position = 0

    def read(self) -> Container:
        """Raises Damaged, and PayloadTooLarge at the first frame that is too many."""
        head = self._take(13)
        width, height = int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
        self._budget.check(width, height)
        parts = [head + self._colours(head[10])]
        frames, control = 0, b""
        while (kind := self._take(1)[0]) != TRAILER:
            if kind == EXTENSION:
                label = self._take(1)[0]
                if label == GRAPHIC_CONTROL:
                    control = self._control()
                elif label == APPLICATION:
                    parts.append(self._loop())
                else:
                    self._skip_blocks()  # comments; texts, which no browser shows
            elif kind == IMAGE:
                frames += 1
                width, height, frame = self._frame(width, height, frames)
                parts += [control, *frame]
                control = b""
            else:
                raise Damaged("an unknown block")
        if not frames:
            raise Damaged("no picture")
        return Container(width=width, height=height, parts=[*parts, bytes([TRAILER])], frames=frames)

    def _take(self, count: int) -> bytes:
        taken = self._data[self._position : self._position + count]
        self._position += count
        if len(taken) < count:
            raise Damaged("no end of the picture")
        return taken

    def _blocks(self) -> Iterator[bytes]:
        while size := self._take(1)[0]:
            yield self._take(size)

    def _skip_blocks(self) -> None:
        for _ in self._blocks():
            pass

    def _colours(self, flags: int) -> bytes:
        return self._take(3 << ((flags & 7) + 1)) if flags & 0x80 else b""

    def _control(self) -> bytes:
        """Duration, transparency and disposal of the frame that follows."""
        body = b"".join(self._blocks())
        return bytes([EXTENSION, GRAPHIC_CONTROL, 4]) + body + b"\0" if len(body) == 4 else b""

    def _loop(self) -> bytes:
        name, *rest = (*self._blocks(), b"")
        if name not in LOOPS or len(rest[0]) != 3 or rest[0][0] & 7 != 1:
            return b""
        return bytes([EXTENSION, APPLICATION, 11]) + LOOPS[0] + b"\x03\x01" + rest[0][1:] + b"\0"

    def _frame(self, width: int, height: int, frames: int) -> tuple[int, int, list[bytes]]:
        """The canvas, which a frame beyond its edge widens (as decoders do), and the frame."""
        place = self._take(9)
        left, top, across, down = (int.from_bytes(place[at : at + 2], "little") for at in (0, 2, 4, 6))
        width, height = max(width, left + across), max(height, top + down)
        self._budget.check(width, height, frames)
        head = bytes([IMAGE]) + place + self._colours(place[8]) + self._take(1)
        # Cut anew: blocks of one byte each would cost decoders a thousand times the work.
        packed = b"".join(self._blocks())
        cuts = (packed[start : start + MAX_BLOCK] for start in range(0, len(packed), MAX_BLOCK))
        return width, height, [head, *(bytes([len(cut)]) + cut for cut in cuts), b"\0"]


def read_gif(data: bytes, budget: PixelBudget) -> Container:
    """Raises Damaged, and PayloadTooLarge at the first frame that is too many."""
    return GifReader(data, budget).read()
