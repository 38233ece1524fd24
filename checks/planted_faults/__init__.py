"""Known bugs of this kind of service, each as a replacement of text in one file, and which tests should catch it.

One file each in `faults/`: `about` is what it looks like in the field, `edits` are (file, old, new), `tests` are what
pytest is given to catch it: a path, perhaps with `::name`, and options.
"""

import tomllib
from pathlib import Path

import msgspec

FOLDER = Path(__file__).parent / "faults"


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Replaces `old`, which stands exactly once in `file`."""

    file: str
    old: str
    new: str


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One bug. `tests` has one string for each run of pytest."""

    name: str
    about: str
    edits: list[Edit]
    tests: list[str]


class DoesNotApply(Exception):
    """The code has moved on; the fault has to follow it."""


def load_faults() -> list[Fault]:
    """All of them, by name."""
    return [_load(path) for path in sorted(FOLDER.glob("*.toml"))]


def _load(path: Path) -> Fault:
    return msgspec.convert({"name": path.stem, **tomllib.loads(path.read_text(encoding="utf-8"))}, Fault)


def planted(fault: Fault, root: Path) -> dict[Path, str]:
    """The new texts of the files below `root` that the fault changes. Raises DoesNotApply."""
    texts: dict[Path, str] = {}
    for edit in fault.edits:
        path = root / edit.file
        text = texts[path] if path in texts else path.read_text(encoding="utf-8")
        if text.count(edit.old) != 1:
            raise DoesNotApply(f"{fault.name}: stands {text.count(edit.old)} times in {edit.file}: {edit.old!r}")
        texts[path] = text.replace(edit.old, edit.new)
    return texts
