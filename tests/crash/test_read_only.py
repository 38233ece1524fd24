"""An ordinary user who may write to DATA_DIR and to nothing else: all that the service needs."""

import os
import pwd
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.api.creating import created
from tests.crash.conftest import MakeUser
from tests.crash.disk import can_mount, own_namespace
from tests.files import uploaded
from tests.programs import folder_for, require
from tests.service import ROOT, START_SECONDS, Process, Service

# Makes every mount but the data's read-only in a namespace of its own, and tries it, before it becomes the service.
READ_ONLY = """
set -eu
data="$1"; shift
mount --bind "$data" "$data"
cut -d' ' -f2 /proc/self/mounts | while read -r place; do
    [ "$place" = "$data" ] || mount -o remount,bind,ro "$place" 2>/dev/null || true
done
for place in "$PWD" "$CHECKOUT" "$CHECKOUT/src/yral_chat" /tmp /var/tmp; do
    if touch "$place/.probe" 2>/dev/null; then echo "$place can be written to"; exit 1; fi
done
touch "$data/.probe" && rm "$data/.probe"
exec "$@"
"""


# No memory may become code, as MemoryDenyWriteExecute has it (PR_SET_MDWE is 65; before Linux 6.3 nothing happens).
NO_NEW_CODE = "import ctypes, os, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"


def nobody() -> pwd.struct_passwd | None:
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def rights_of(user: pwd.struct_passwd | None) -> list[str]:
    """The command that gives all rights away. What is kept is the right to read, because the checkout and the
    interpreter may lie in the home of root; whoever is no ordinary user otherwise needs no such command."""
    if user is None:
        return []
    may_read = "-all,+dac_read_search"
    return [
        "setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--no-new-privs",
        f"--inh-caps={may_read}", f"--ambient-caps={may_read}", f"--bounding-set={may_read}",
    ]  # fmt: skip


class ReadOnlyService(Service):
    """The service as the hardened unit runs it: `deploy/systemd/yral-chat.service`."""

    def start(self) -> Self:
        user, data = nobody(), Path(str(self.settings["DATA_DIR"]))
        data.mkdir(parents=True)
        if user is not None:
            os.chown(data, user.pw_uid, user.pw_gid)
        given = {name: value for name, value in self.settings.items() if value is not None}
        # Nothing keeps Python from writing bytecode, or libraries from using a home, but that they cannot.
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "CHECKOUT": str(ROOT)} | given
        python = [sys.executable, "-c", NO_NEW_CODE, sys.executable]
        service = [*rights_of(user), *python, "-m", "yral_chat.cli", "serve"]
        command = [*own_namespace(), "sh", "-c", READ_ONLY, "sh", str(data), *service]
        self.running = Process(command, environment, "open    http", self.folder)
        self.url = self.running.wait_for_marker(START_SECONDS).split()[-1]
        return self


@pytest.fixture
def read_only() -> Iterator[ReadOnlyService]:
    require("a tmpfs of one's own (root, or user namespaces)", can_mount())
    folder = folder_for(nobody()).resolve()
    try:
        with ReadOnlyService(folder, LOG_LEVEL="INFO", MEMORIES_ENABLED="true") as service:
            yield service
    finally:
        shutil.rmtree(folder)


def identity_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def test_it_runs_as_an_ordinary_user_on_a_read_only_system(
    read_only: ReadOnlyService, new_user: MakeUser
) -> None:
    if (user := nobody()) is not None:
        found = identity_of(read_only.pid)
        assert set(found["Uid"].split()) == {str(user.pw_uid)}
        assert (found["Groups"], found["NoNewPrivs"]) == ("", "1")
        assert int(found["CapEff"], 16) & ~(1 << 2) == 0, "only CAP_DAC_READ_SEARCH"
    somebody = new_user(read_only)
    conversation = await somebody.open()
    _, reply = await somebody.said(conversation["id"], "Hello")
    assert "offline" in reply["content"]
    image = await uploaded(somebody, "image")
    sent = await somebody.send(conversation["id"], "", message_type="image", media_urls=[image["storage_key"]])
    assert sent.status_code == 200, sent.text
    await created(somebody)
    assert (await somebody.get("/api/v1/users/me/export")).status_code == 200
    assert (await somebody.delete("/api/v1/users/me")).status_code == 200
    assert read_only.stop() == 0
    assert "Read-only file system" not in read_only.process.output
    assert "Permission denied" not in read_only.process.output
    written = {path.name for path in read_only.folder.iterdir()}
    assert written == {"data"}
    assert (read_only.folder / "data" / "yral_chat.db").exists()
