"""Which names there are, of a million as well."""

import hashlib
from array import array
from bisect import bisect_left
from typing import Final

NAME_BYTES: Final = 8


class Names:
    """A set of names in eight bytes each: of 10^13 strange names one seems to be among a million."""

    def __init__(self) -> None:
        self._parts = [array("Q") for _ in range(256)]

    def add(self, name: str) -> None:
        part, number = _number_of(name)
        self._parts[part].append(number)

    def seal(self) -> None:
        """Now, and not before, it can be asked."""
        for place, part in enumerate(self._parts):
            self._parts[place] = array("Q", sorted(part))

    def __contains__(self, name: str) -> bool:
        place, number = _number_of(name)
        part = self._parts[place]
        found = bisect_left(part, number)
        return found < len(part) and part[found] == number


def _number_of(name: str) -> tuple[int, int]:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=NAME_BYTES).digest()
    return digest[0], int.from_bytes(digest, "big")
