"""The service with a clock that a test moves: `python moved_clock.py FILE ARGUMENT…`; FILE holds the seconds."""

import sys
import time
from pathlib import Path

from yral_chat.cli import app
from yral_chat.core import clock


def main() -> None:
    """Runs `yral-chat ARGUMENT…`."""
    offset = Path(sys.argv.pop(1))
    clock.use(lambda: time.time_ns() + int(offset.read_text()) * 1_000_000_000)
    app()


if __name__ == "__main__":
    main()
