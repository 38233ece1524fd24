"""Which locks of files a process holds, as the kernel knows it."""

from pathlib import Path

import pytest

needs_proc_locks = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="locks are asked of Linux")


def locks_on(path: Path, pid: int) -> list[str]:
    """The lines of /proc/locks about POSIX locks of this process on this file: SQLite has one on a database that is
    open, by which other programs know that its log is not to be deleted. See proc_locks(5).
    """
    inode = str(path.stat().st_ino)
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return [
        " ".join(fields)
        for fields in lines
        if fields[1] == "POSIX" and fields[4] == str(pid) and fields[5].rsplit(":", 1)[1] == inode
    ]
