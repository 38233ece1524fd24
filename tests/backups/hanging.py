"""A file on a disk that does not answer, as a network disk that is away: whoever opens it waits."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def hanging(path: Path) -> Iterator[None]:
    """So it is in the block; afterwards it is as it was, and whoever waits is let go."""
    data = path.read_bytes()
    # Outside, and moved: nobody sees the folder without the file, or with another one.
    pipe = path.parent.parent / f"{path.name}-pipe"
    os.mkfifo(pipe)
    pipe.replace(path)
    try:
        yield
    finally:
        path.replace(pipe)
        path.write_bytes(data)
        with suppress(OSError):  # nobody waits
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        pipe.unlink()
