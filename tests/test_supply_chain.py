"""What is delivered: every pinned package is in the bill of materials, with a licence that lets everybody use it."""

import json
import re
import sys
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from checks import audit, sbom
from checks.locks_in_step import pins, version_of

ROOT = Path(__file__).parents[1]
RUNTIME = pins((ROOT / "requirements.lock").read_text())

PERMISSIVE = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Zlib",
}  # fmt: skip
# File by file, or beside us: what may be asked of whoever changes these packages themselves.
EXCEPTIONS = {
    "orjson": "MPL-2.0 AND (Apache-2.0 OR MIT)",  # the MPL part stays in its files, which we deliver unchanged
    "pathspec": "MPL-2.0",  # of hatchling: used while this project is installed, not while it runs
    "psycopg": "LGPL-3.0-only",  # the extra `postgres`, a library that anybody may replace
    "psycopg-binary": "LGPL-3.0-only",
}
ELSEWHERE = {"colorama", "win32-setctime"}  # Windows only


@pytest.fixture(scope="module")
def components() -> dict[str, dict[str, object]]:
    document = json.loads(sbom.make())
    assert document["metadata"]["component"]["name"] == "yral-chat"
    return {canonicalize_name(component["name"]): component for component in document["components"]}


@pytest.mark.long
def test_the_bill_of_materials_has_every_pinned_package(components: dict[str, dict[str, object]]) -> None:
    assert components.keys() == RUNTIME.keys()
    for name, component in components.items():
        assert component["version"] in {version_of(pin) for pin in RUNTIME[name]}
        assert str(component["purl"]).startswith(f"pkg:pypi/{name}@")


@pytest.mark.long
def test_the_bill_of_materials_names_the_licence_of_every_package_that_is_here(
    components: dict[str, dict[str, object]],
) -> None:
    assert {name for name, component in components.items() if "licenses" not in component} <= ELSEWHERE


@pytest.mark.parametrize("name", sorted(RUNTIME.keys() - ELSEWHERE))
def test_a_package_that_is_delivered_may_be_used_by_everybody(name: str) -> None:
    licence = sbom.licence_of(name)
    assert licence is not None
    if name in EXCEPTIONS:
        assert licence == EXCEPTIONS[name], "look at it again"
    else:
        assert set(re.findall(r"[\w.-]+", licence)) - {"AND", "OR"} <= PERMISSIVE


def test_the_lgpl_is_for_those_who_ask_for_it() -> None:
    chosen = re.search(r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    assert chosen is not None
    assert "psycopg" not in chosen[1]


# --- the audit, with a program in the place of pip-audit


def program(tmp_path: Path, probe: str, audited: str) -> list[str]:
    """`probe` is done when the known bad package is asked about, `audited` for our lock."""
    script = tmp_path / "audit.py"
    script.write_text(f"import sys, time\nif '--strict' in sys.argv:\n    {audited}\nelse:\n    {probe}\n")
    return [sys.executable, str(script)]


KNOWS = "print('aiohttp 3.7.3 CVE-2021-21330'); sys.exit(1)"
LOCK = ROOT / "requirements-dev.lock"


def test_an_audit_without_findings_passes(tmp_path: Path) -> None:
    assert audit.audit(LOCK, program(tmp_path, KNOWS, "sys.exit(0)")) == 0


def test_a_finding_fails_the_audit(tmp_path: Path) -> None:
    assert audit.audit(LOCK, program(tmp_path, KNOWS, "sys.exit(1)")) == 1


@pytest.mark.parametrize(
    "probe",
    ["sys.exit(1)", "sys.exit(0)", "print('aiohttp: not found', file=sys.stderr); sys.exit(1)", "time.sleep(60)"],
)
def test_without_advisories_it_is_said_how_much_was_not_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], probe: str
) -> None:
    assert audit.audit(LOCK, program(tmp_path, probe, "sys.exit(1)"), seconds=2 if "sleep" in probe else 30) == 0
    count = len(pins(LOCK.read_text()))
    assert capsys.readouterr().out == (
        f"skipped: the advisories cannot be reached; {count} packages were not looked at\n"
    )


def test_an_audit_that_hangs_half_way_fails(tmp_path: Path) -> None:
    assert audit.audit(LOCK, program(tmp_path, KNOWS, "time.sleep(60)"), seconds=5) == 1
