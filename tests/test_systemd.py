"""The units in deploy/systemd: what the manager says of them, and that they fit the service."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from yral_chat.clients.backup_store import REQUEST_SECONDS
from yral_chat.clients.litestream import KILLED_SECONDS, SHUTDOWN_SECONDS
from yral_chat.core.config import Settings
from yral_chat.services.backups import service
from yral_chat.services.backups.replication import LAST_SECONDS

UNITS = Path(__file__).parents[1] / "deploy/systemd"
UNIT = UNITS / "yral-chat.service"
BACKUP = UNITS / "yral-chat-backup@.service"
# Of systemd's own scale, in tenths: 1.2 is what the unit has, 9.6 a unit without any protection.
MAX_EXPOSURE = 20


def values(name: str, unit: Path = UNIT) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.M)


def test_it_fits_the_service() -> None:
    (stop,) = values("TimeoutStopSec")
    litestream_seconds = LAST_SECONDS + SHUTDOWN_SECONDS + 5 + 2 * KILLED_SECONDS
    target_seconds = service.LAST_SECONDS + REQUEST_SECONDS  # of one that hangs: the log of erasures, and the lease
    grace = Settings.model_fields["shutdown_grace_seconds"].default + 5
    assert int(stop) >= grace + litestream_seconds + target_seconds
    assert values("KillMode") == ["mixed"], "Litestream would be ended before the last reply is written"
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


def test_backups_run_where_the_service_does() -> None:
    for name in ("User", "WorkingDirectory", "EnvironmentFile", "UMask", "Environment", "ProtectSystem"):
        assert values(name, BACKUP) == values(name), name
    assert values("ExecStart", BACKUP) == [f"{values('WorkingDirectory')[0]}/.venv/bin/yral-chat backup %i"]
    assert values("ReadWritePaths", BACKUP) == [f"/var/lib/{values('StateDirectory')[0]}"]


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze not installed")
    return found


@pytest.mark.parametrize("name", sorted(path.name for path in UNITS.iterdir()))
def test_the_manager_understands_every_line(analyze: str, tmp_path: Path, name: str) -> None:
    for unit in UNITS.iterdir():  # a timer is looked at together with what it starts
        text = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", unit.read_text(), flags=re.M)
        (tmp_path / unit.name.replace("@", "@media")).write_text(text)
    here = tmp_path / name.replace("@", "@media")
    done = subprocess.run([analyze, "verify", str(here)], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if here.name in line]) == (0, [])


def test_the_manager_finds_it_closed(analyze: str) -> None:
    command = [analyze, "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("systemd-analyze before 250 looks at running units only")
    assert done.returncode == 0, done.stdout
