"""The programs of earlier revisions, out of the history of this repository."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.service import ROOT, Service

# The last commit whose tables were of that revision.
COMMITS = {
    "0001": "b603d728b4493a0b7836999039739f4d423a2faa",
    "0002": "56f1afbb297eeda74eaa0a0123c1f4c325562536",
    "0003": "d5b8692b951c68d87251d2d1a382872b0745c50c",
    "0004": "5e2bac0a451d0f1627220b731a7ddfbff6c5d5b5",
}


def source_of(revision: str) -> bytes | None:
    """The sources of that program as a tar; None where the history is not there, as in a shallow clone."""
    told = subprocess.run(
        ["git", "-C", str(ROOT), "archive", COMMITS[revision], "src"], capture_output=True, check=False
    )
    return told.stdout if told.returncode == 0 else None


def unpack(source: bytes, folder: Path) -> Path:
    """Returns what belongs on PYTHONPATH."""
    with tarfile.open(fileobj=io.BytesIO(source)) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # from 3.11.4 on
        archive.extractall(folder)  # noqa: S202 - our own history
    return folder / "src"


class OldService(Service):
    """That program, with the packages of today."""

    def __init__(self, folder: Path, sources: Path, **settings: str | None) -> None:
        super().__init__(folder, **settings)
        self.settings["PYTHONPATH"] = str(sources)
        self.environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command of it, to its end."""
        given = {name: value for name, value in self.settings.items() if value is not None}
        return subprocess.run(
            [sys.executable, "-m", "yral_chat.cli", *arguments],
            cwd=self.folder,
            env=self.environment | given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
