"""Small files that say how things stand."""

import os
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Over what is there, whole or not at all, and as it is on the disk when this returns. Raises OSError."""
    aside = path.with_name(f"{path.name}.new")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
