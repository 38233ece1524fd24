"""The unit in deploy/systemd: what the manager says of it, and that it fits the service."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from yral_chat.core.config import Settings

UNIT = Path(__file__).parents[1] / "deploy/systemd/yral-chat.service"
# Of systemd's own scale, in tenths: 1.2 is what the unit has, 9.6 a unit without any protection.
MAX_EXPOSURE = 20


def values(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.M)


def test_it_fits_the_service() -> None:
    (stop,) = values("TimeoutStopSec")
    assert int(stop) >= Settings.model_fields["shutdown_grace_seconds"].default + 15
    (state,) = values("StateDirectory")
    assert f"DATA_DIR=/var/lib/{state}" in values("Environment")[0].split()
    assert values("ExecStart") == [f"{values('WorkingDirectory')[0]}/.venv/bin/yral-chat serve"]


def test_it_may_write_to_its_data_and_is_nobody() -> None:
    assert values("ProtectSystem") == ["strict"]
    assert values("ReadWritePaths") == []
    assert values("User") == ["yral-chat"]
    assert values("CapabilityBoundingSet") == values("AmbientCapabilities") == [""]
    assert values("UMask") == ["0077"]
    for name in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "MemoryDenyWriteExecute"):
        assert values(name) == ["true"], name


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze not installed")
    return found


def test_the_manager_understands_every_line(analyze: str, tmp_path: Path) -> None:
    here = tmp_path / UNIT.name
    here.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text(), flags=re.M))
    done = subprocess.run([analyze, "verify", str(here)], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if UNIT.name in line]) == (0, [])


def test_the_manager_finds_it_closed(analyze: str) -> None:
    command = [analyze, "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("systemd-analyze before 250 looks at running units only")
    assert done.returncode == 0, done.stdout
