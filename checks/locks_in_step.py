"""Fails when pyproject.toml and the lock files disagree, or when a lock names the index it was made from.

The project is installed with `--no-deps` from the locks: a dependency that was added without `make lock` would be
missing only at run time.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
HOST = re.compile(r"://|^\s*-{1,2}(i|index-url|extra-index-url|find-links|f|trusted-host)\b")

# Nobody shall get what they did not ask for: packages under the MPL (certifi) and a program of 39 MB;
# requirements-dev.lock pins them.
EXTRAS_APART = frozenset({"litestream", "otel", "sentry"})

Pins = dict[str, list[Requirement]]


def pins(lock: str) -> Pins:
    """The pinned requirements of a lock's text by name. One name may have several, with markers that differ."""
    found: Pins = {}
    for line in lock.replace("\\\n", "").splitlines():
        if line and not line[0].isspace() and line[0] not in "#-":
            requirement = Requirement(line.split("--hash", 1)[0].strip())
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def version_of(pin: Requirement) -> str:
    return str(pin.specifier).removeprefix("==")


def wanted(
    project: dict[str, Any], *, groups: tuple[str, ...], apart: frozenset[str] = frozenset()
) -> list[Requirement]:
    """What a lock of these dependency groups, and of every extra that is not `apart`, must satisfy."""
    extras: dict[str, list[str]] = project["project"].get("optional-dependencies", {})
    lines = [*project["project"]["dependencies"]]
    lines += [line for name, lines in extras.items() if name not in apart for line in lines]
    lines += [line for group in groups for line in project["dependency-groups"][group]]
    return [Requirement(line) for line in lines]


def missing_pins(name: str, lock: Pins, requirements: list[Requirement]) -> Iterator[str]:
    for requirement in requirements:
        found = lock.get(canonicalize_name(requirement.name), [])
        if not found:
            yield f"{name}: {requirement.name} is not in it; run `make lock`"
        for pin in found:
            if not requirement.specifier.contains(version_of(pin), prereleases=True):
                yield f"{name}: {pin} is not {requirement}; run `make lock`"


def different_pins(runtime: Pins, dev: Pins) -> Iterator[str]:
    """Tests must run what users run: every pin of the runtime lock is in the other one, the same."""
    for name, found in runtime.items():
        if sorted(map(version_of, found)) != sorted(map(version_of, dev.get(name, []))):
            yield f"requirements-dev.lock: {name} differs from requirements.lock; run `make lock`"


def named_hosts(name: str, lock: str) -> Iterator[str]:
    for number, line in enumerate(lock.splitlines(), start=1):
        if HOST.search(line):
            yield f"{name}:{number}: names an index or a host: {line.strip()}"


def findings(root: Path) -> list[str]:
    project = tomllib.loads((root / "pyproject.toml").read_text())
    texts = {name: (root / name).read_text() for name in ("requirements.lock", "requirements-dev.lock")}
    runtime, dev = (pins(text) for text in texts.values())
    return [
        *missing_pins("requirements.lock", runtime, wanted(project, groups=("build",), apart=EXTRAS_APART)),
        *missing_pins("requirements-dev.lock", dev, wanted(project, groups=("build", "dev"))),
        *different_pins(runtime, dev),
        *(finding for name, text in texts.items() for finding in named_hosts(name, text)),
    ]


def main() -> int:
    found = findings(ROOT)
    print("\n".join(found) or "the lock files are in step with pyproject.toml")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
