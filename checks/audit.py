"""Asks the advisories of the package index about every pinned package, with pip-audit.

Where they cannot be reached this is said in a line that counts what was not looked at, and the status is 0: whoever
works without a network is not kept from working. A known fault is status 1; so is a package that the index does not
know, while it knows others.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from checks.locks_in_step import pins

# Holds all of requirements.lock at the same versions, what the extras bring, and what developers run.
LOCK = Path(__file__).parents[1] / "requirements-dev.lock"
# Its advisories are old and many (CVE-2021-21330 the first): where none come, none would come for ours.
KNOWN_BAD = "aiohttp==3.7.3"
SECONDS = 180.0
PROGRAM = (sys.executable, "-m", "pip_audit", "--timeout", "10", "--progress-spinner", "off")


def audit(lock: Path, program: Sequence[str] = PROGRAM, seconds: float = SECONDS) -> int:
    """The exit status; `seconds` bounds each of two calls of `program`."""
    if not _can_reach_advisories(program, seconds):
        print(f"skipped: the advisories cannot be reached; {len(pins(lock.read_text()))} packages were not looked at")
        return 0
    command = [*program, "--strict", "--disable-pip", "--require-hashes", "-r", str(lock)]
    try:
        return int(subprocess.run(command, timeout=seconds, check=False).returncode != 0)
    except subprocess.TimeoutExpired:
        print(f"failed: no answer within {seconds:.0f} s, though the advisories can be reached")
        return 1


def _can_reach_advisories(program: Sequence[str], seconds: float) -> bool:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as asked:
        asked.write(KNOWN_BAD)
        asked.flush()
        command = [*program, "--disable-pip", "--no-deps", "-r", asked.name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return False
    # The status is 1 for everything that goes wrong; a table with the package is only printed for what is known of it.
    return done.returncode != 0 and KNOWN_BAD.partition("==")[0] in done.stdout


if __name__ == "__main__":
    sys.exit(audit(LOCK))
