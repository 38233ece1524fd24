"""Sizes in bytes."""

from typing import Final

MEBIBYTE: Final = 1024 * 1024
