"""Secrets that the service makes for itself at its first start and keeps in a file."""

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

MIN_SECRET_BYTES: Final = 32


def load_kept_secret(path: Path) -> bytes:
    """The secret in `path`, 64 hexadecimal digits, made there when there is no such file; only the owner may read it.

    Raises ValueError when the file holds something else, and OSError.
    """
    if not path.exists():
        _create(path)
    secret = path.read_bytes().strip()
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"{path} is damaged: it holds no secret. Delete it; a new one is made at the next start.")
    return secret


def _create(path: Path) -> None:
    """Written aside and linked into place: whoever looks sees nothing or the whole, and the first of two wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first, and its secret is as good
            path.hardlink_to(aside)
    finally:
        aside.unlink()
