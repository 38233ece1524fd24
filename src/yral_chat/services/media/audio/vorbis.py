"""How long packets of Vorbis play (Vorbis I specification, sections 4.2 and 4.3)."""

from yral_chat.services.media.damage import Damaged

MODE_BITS = 41  # block flag 1, window type 16, transform type 16, mapping 8
MAX_MODES = 64


class VorbisBlocks:
    """Sizes of the blocks of one stream. Raises Damaged for headers that cannot be read."""

    def __init__(self, head: bytes) -> None:
        if len(head) < 30 or head[7:11] != bytes(4):
            raise Damaged("an unknown version of Vorbis")
        self.rate = int.from_bytes(head[12:16], "little")
        self._sizes = 1 << (head[28] & 15), 1 << (head[28] >> 4)
        if not 1000 <= self.rate <= 200_000 or not 64 <= self._sizes[0] <= self._sizes[1] <= 8192:
            raise Damaged("a kind of sound that is not taken")
        self._flags: list[int] = []
        self._previous = 0

    def set_up(self, setup: bytes) -> None:
        """Finds the modes, which end the setup header, from its end backwards: what lies before them is long.

        Going back, every plausible mode is taken; the six bits before the first one give their number less one.
        """
        bits = int.from_bytes(setup[-(MAX_MODES * MODE_BITS // 8 + 16) :], "little")
        place, count = bits.bit_length() - 1, 0  # the highest bit set is the framing bit
        flags: list[int] = []
        while place > MODE_BITS + 6 and len(flags) < MAX_MODES:
            place -= MODE_BITS
            mode = bits >> place
            if mode >> 33 & 0xFF > 63 or mode >> 1 & 0xFFFFFFFF:
                break
            flags.append(mode & 1)
            if (bits >> place - 6 & 63) + 1 == len(flags):
                count = len(flags)
        if not count:
            raise Damaged("no modes")
        self._flags = flags[:count][::-1]

    def packet_samples(self, packet: bytes) -> int:
        """What this packet adds: a quarter of the block before and a quarter of its own; the first adds nothing."""
        if not packet or packet[0] & 1:
            return 0  # not sound; decoders pass over it
        mode = packet[0] >> 1 & ((1 << (len(self._flags) - 1).bit_length()) - 1)
        if mode >= len(self._flags):
            raise Damaged("an unknown mode")
        size = self._sizes[self._flags[mode]]
        added = (self._previous + size) // 4 if self._previous else 0
        self._previous = size
        return added
