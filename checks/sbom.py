"""Writes a CycloneDX bill of materials of requirements.lock, with the licences that installed packages declare.

    python -m checks.sbom dist/sbom.cdx.json

The lock says what is delivered, for all platforms; cyclonedx-py reads it, and the licences come from the metadata of
this environment, which has none for packages of other platforms.
"""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"

# What older packages call their licence, in their own words or as a trove classifier (the last part).
_SPDX = {
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
# zlib/libpng in the words of their repositories; the wheels say nothing.
_UNSAID = {"pysqlite3": "Zlib"}


def licence_of(name: str) -> str | None:
    """The SPDX expression of an installed package; None where it is not installed, or says nothing."""
    try:
        found = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    if "License-Expression" in found:
        return found["License-Expression"]
    classified = [
        line.rpartition(" :: ")[2] for line in found.get_all("Classifier") or [] if line.startswith("License ::")
    ]
    named = sorted({_SPDX[line] for line in classified if line in _SPDX})
    said = "".join(found.get_all("License") or [])
    return " OR ".join(named) or _SPDX.get(said) or (said if said and "\n" not in said else None) or _UNSAID.get(name)


def make(lock: Path = LOCK) -> str:
    """The document as JSON. Raises ValueError when it is not a valid one."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements", str(lock), "--output-reproducible",
         "--pyproject", str(ROOT / "pyproject.toml"), "--sv", "1.6", "--of", "JSON", "-o", "-"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    document: dict[str, Any] = json.loads(done.stdout)
    for component in document["components"]:
        component.pop("description", None)  # the line of the lock, with all of its hashes
        if licence := licence_of(component["name"]):
            component["licenses"] = [{"expression": licence, "acknowledgement": "declared"}]
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    if (error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)) is not None:
        raise ValueError(f"not a valid document: {str(error.data)[:500]}")
    return text


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(make())
    print(target)
