"""Server-sent events as they arrive: bytes in any split, out come the events' data.

The format: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

# A vendor's chunk is some hundred bytes; a line this long is not an answer, it is an attack or a mistake.
MAX_EVENT_BYTES = 8 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
_LF, _CR = 10, 13


class EventTooLarge(ValueError):
    """One event grew beyond the parser's limit; the stream cannot be read on."""


class EventParser:
    """Incremental parser that works on bytes: a character split over two packets needs no care.

    Names, ids and retry times of events are not used by any vendor of ours and are dropped, and so are comments
    and events without data.
    """

    __slots__ = ("_data", "_data_size", "_is_after_cr", "_is_first_line", "_limit", "_partial", "_partial_size")

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._partial: list[bytes] = []  # the pieces of a line that has not ended yet
        self._data: list[bytes] = []  # the data lines of an event that has not ended yet
        self._partial_size = 0
        self._data_size = 0
        self._is_after_cr = False
        self._is_first_line = True

    def feed(self, packet: bytes) -> list[bytes]:
        """The data of every event that `packet` completes, in order. Raises EventTooLarge."""
        if self._is_after_cr and packet:
            # CR ended a line at once; an LF that follows in the next packet belongs to it.
            self._is_after_cr = False
            if packet[0] == _LF:
                packet = packet[1:]
        if not packet:
            return []
        lines = packet.splitlines()  # for bytes: at CR, LF and CRLF only
        last = packet[-1]
        self._is_after_cr = last == _CR
        tail = b"" if last in (_LF, _CR) else lines.pop()
        if lines and self._partial:
            self._partial.append(lines[0])
            lines[0] = b"".join(self._partial)
            self._partial.clear()
            self._partial_size = 0
        events = self._take(lines) if lines else []
        if tail:
            self._partial.append(tail)
            self._partial_size += len(tail)
            self._check_size()
        return events

    def flush(self) -> list[bytes]:
        """What stands at the end of the stream without its blank line. The specification drops it; vendors forget
        the blank line, and whether the data is whole shows when it is decoded."""
        return self.feed(b"\n\n")

    def _take(self, lines: list[bytes]) -> list[bytes]:
        if self._is_first_line:
            self._is_first_line = False
            lines[0] = lines[0].removeprefix(_BOM)
        events: list[bytes] = []
        for line in lines:
            if not line:
                if event := b"\n".join(self._data):
                    events.append(event)
                self._data.clear()
                self._data_size = 0
            elif line.startswith(b"data:"):
                self._add(line[6:] if line.startswith(b"data: ") else line[5:])
            elif line == b"data":
                self._add(b"")
        return events

    def _add(self, value: bytes) -> None:
        self._data.append(value)
        self._data_size += len(value) + 1
        self._check_size()

    def _check_size(self) -> None:
        if self._partial_size + self._data_size > self._limit:
            raise EventTooLarge(f"an event of more than {self._limit} bytes")
