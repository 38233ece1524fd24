"""A recording as its readers see it: pieces at places, never the whole."""

from typing import BinaryIO

from yral_chat.services.media.damage import Damaged

# A file of 20 MB at 8 kbit/s has 300,000 frames. Hostile ones have millions, of nothing.
MAX_STEPS = 1_000_000


class Recording:
    """Reads from a buffered file of `size` bytes. Raises Damaged when there is no end to the pieces."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._steps = 0
        self.size = size

    def at(self, position: int, length: int) -> bytes:
        """Exactly `length` bytes from `position`. Raises Damaged when they are not there."""
        found = self.up_to(position, length)
        if len(found) < length:
            raise Damaged("no end of the recording")
        return found

    def up_to(self, position: int, length: int) -> bytes:
        """`length` bytes from `position`, fewer at the end of the file."""
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise Damaged("too many pieces")
        self._file.seek(position)
        return self._file.read(length)
