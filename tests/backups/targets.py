"""Places for backups, and services that back up to them."""

import hashlib
import shutil
import signal
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import psutil

from tests.clients.refusing import Refusing
from tests.object_stores import ACCESS_KEY, BUCKET, SECRET_KEY, ObjectStore
from tests.service import Service, children_of, token
from tests.waiting import there, until
from yral_chat.clients.backup_store import BackupStore, BackupStoreError, Target
from yral_chat.clients.litestream import Litestream, LitestreamError
from yral_chat.db.files import is_served
from yral_chat.services.backups.catalogue import LEASE, Catalogue, Entry, Generation
from yral_chat.services.backups.lease import Holder

ROOT = "backups/chat"
ANOTHER = msgspec.json.encode(Holder("somebody else", "another-machine", "2026-01-01T00:00:00.000000Z"))


def bucket(server: ObjectStore | Refusing, **changes: Any) -> Target:
    """A place in the bucket of a server on loopback."""
    given = {
        "bucket": BUCKET, "path": ROOT, "endpoint": server.url,
        "access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY,
    }  # fmt: skip
    return Target(**{**given, **changes})


def settings_of(target: Target) -> dict[str, str]:
    """What makes a service back up to it."""
    url = f"file://{target.path}" if target.bucket is None else f"s3://{target.bucket}/{target.path}"
    settings = {"LITESTREAM_ENABLED": "true", "BACKUP_URL": url}
    if target.bucket is not None:
        settings |= {
            "BACKUP_ENDPOINT_URL": target.endpoint or "",
            "BACKUP_ACCESS_KEY_ID": target.access_key_id,
            "BACKUP_SECRET_ACCESS_KEY": target.secret_access_key,
        }
    return settings


def hash_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


class Machine:
    """One machine with a service on it, which backs up; it can be lost."""

    def __init__(self, folder: Path, target: Target, **settings: str) -> None:
        folder.mkdir()
        self.folder = folder
        self.data = folder / "data"
        given = {"LOG_LEVEL": "INFO", "BACKUP_LEASE_SECONDS": "3", **settings_of(target), **settings}
        self.service = Service(folder, **given)

    def start(self, *options: str) -> None:
        self.service.command = [*self.service.command[:4], *options]
        self.service.start()

    def refuse(self, *options: str) -> str:
        """Tries to start it, which has to fail; what it says. What it has written stays as it was."""
        before = self.database()
        try:
            self.start(*options)
        except AssertionError as error:
            assert self.database() == before, "a start that was refused has changed the database"
            return str(error).splitlines()[-1]
        raise AssertionError("it has started")

    def database(self) -> tuple[int, str] | None:
        """By which one knows whether it is another one: its file, and what is in that where nobody serves it. One that
        is served changes whenever Litestream moves its log into it.
        """
        path = self.data / "yral_chat.db"
        if not path.exists():
            return None
        return path.stat().st_ino, "" if is_served(path) else hash_of(path)

    def cut_power(self) -> None:
        """Nothing is finished: its Litestream neither sends what is left nor moves the log into the file."""
        for litestream in litestreams_of(self):
            litestream.kill()
        self.service.kill()

    def lose(self) -> None:
        """Everything on it is gone, at once."""
        self.cut_power()
        shutil.rmtree(self.folder, ignore_errors=True)

    def client(self, user_id: str) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {token(user_id)}"}
        return httpx2.Client(base_url=self.service.url, headers=headers, timeout=30)


def litestreams_of(machine: Machine) -> list[psutil.Process]:
    """Of its service, while that runs; one at most."""
    running = machine.service.running
    if running is None or running.process.poll() is not None:
        return []
    return children_of(running.process.pid, "litestream")


async def litestream_of(machine: Machine) -> psutil.Process:
    """Once it runs, which is a moment after the service does."""
    await until(there(lambda: bool(litestreams_of(machine))), what="Litestream")
    (process,) = litestreams_of(machine)
    return process


def has_ended(process: psutil.Process) -> bool:
    """Whether it does nothing any more and has nothing open, its parent knowing that or not."""
    try:  # the first thread can be gone before the others: they hold the files until then
        return bool(process.status() == psutil.STATUS_ZOMBIE and process.num_threads() == 1)
    except psutil.NoSuchProcess:
        return True


async def give_to_another(target: Target) -> None:
    """Another service holds the lease. Whoever held it may just have looked and write over it: to be done again, then,
    until it has noticed.
    """
    store = BackupStore(target)
    stored = await store.get(LEASE)
    if stored is None or stored.data != ANOTHER:
        await store.put(LEASE, ANOTHER)


class Person:
    """Somebody who says things and knows what was acknowledged."""

    def __init__(self, machine: Machine, user_id: str = "somebody") -> None:
        self.user_id = user_id
        with machine.client(user_id) as client:
            influencer = client.get("/api/v1/influencers").json()["influencers"][0]["id"]
            answer = client.post("/api/v1/chat/conversations", json={"influencer_id": influencer})
            self.conversation: str = answer.json()["id"]
        self.said: list[str] = []

    def say(self, machine: Machine, *texts: str) -> None:
        with machine.client(self.user_id) as client:
            for text in texts:
                answer = client.post(
                    f"/api/v1/chat/conversations/{self.conversation}/messages",
                    json={"message_type": "text", "content": text},
                )
                assert answer.status_code == 200, answer.text
                self.said.append(text)

    def history(self, machine: Machine) -> list[str]:
        """What this person has said, as the service has it."""
        with machine.client(self.user_id) as client:
            answer = client.get(
                f"/api/v1/chat/conversations/{self.conversation}/messages", params={"limit": 100, "order": "asc"}
            )
            assert answer.status_code in (200, 404), answer.text
            messages = answer.json().get("messages", [])
        return [message["content"] for message in messages if message["role"] == "user"]


def health(machine: Machine) -> dict[str, Any]:
    with machine.client("operator") as client:
        entry: dict[str, Any] = client.get("/health").json()["services"]["backup"]
        return entry


def metric(machine: Machine, name: str) -> float:
    with machine.client("operator") as client:
        lines = client.get("/metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


async def replicated(machine: Machine, seconds: float = 60) -> None:
    """Waits until everything that was acknowledged has arrived at the backup, as Litestream itself says."""
    nowhere = Target(None, "/nowhere")
    litestream = Litestream("", machine.data / "yral_chat.db", nowhere, "", machine.data)

    async def has_arrived() -> bool:
        try:
            position = await litestream.wait_replicated(5)
        except LitestreamError:  # it is being started, or its bucket is away
            return False
        return position.replicated_txid >= position.txid > 0

    await until(has_arrived, what="everything to arrive at the backup", seconds=seconds)


async def lose_at_rest(machine: Machine) -> None:
    """Loses it in a moment in which everything it had has arrived: Litestream may make a snapshot of what it is yet to
    send, and a drill names what is missing then.
    """
    machine.service.process.process.send_signal(signal.SIGSTOP)  # nothing is committed any more
    await replicated(machine)
    machine.lose()


async def noted(store: BackupStore) -> tuple[Entry, Generation]:
    """The newest generation, once it is written down that something of it has arrived."""

    async def look() -> tuple[Entry, Generation] | None:
        try:
            entry = await Catalogue(store).current()
        except BackupStoreError:  # rclone shows what is half written
            return None
        return (entry, entry.generations[-1]) if entry is not None and entry.generations[-1].has_arrived else None

    return await until(look, what="it to be noted")


async def keys(store: BackupStore, prefix: str = "") -> list[str]:
    return sorted([key async for key, _, _ in store.list(prefix)])
