"""`python -m benchmarks.drills [MEGABYTES]`: what a drill of a large database takes, beside its server, and a restore.

Drills as they are on most days, and with two whole objects to read, as on the first day of a backup. Not a part of
`make bench`: the database alone takes half a minute to make, and Litestream compacts the beginning every five minutes.
"""

import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import psutil

from benchmarks.large import fill
from tests.backups.commands import arguments, environment
from tests.backups.targets import Machine, Person, bucket, replicated
from tests.object_stores import Rclone
from tests.waiting import there, until
from yral_chat.services.backups.proof import Proof, load_proof

SAMPLE_SECONDS = 0.1
ROUNDS = 3
ARRIVAL_SECONDS = 600  # of the first snapshot
SETTLE_SECONDS = 10.0
COMPACTION_SECONDS = 330.0


class Used(msgspec.Struct):
    """Of the drill's process and those that it starts, together. Bytes at the most; seconds."""

    resident: int = 0
    private: int = 0  # what the machine would have more without them
    own: int = 0  # of `private` at its most, what the drill's process had
    cpu_seconds: float = 0
    seconds: float = 0

    def look(self, process: psutil.Process) -> None:
        resident = private = own = 0
        command = process.cmdline()
        for number, one in enumerate((process, *process.children(recursive=True))):
            try:
                if number and one.cmdline() == command:  # about to become a program, and until then in our memory
                    continue
                found = one.memory_full_info()
            except psutil.Error:  # it has just ended
                continue
            resident, private, own = resident + found.rss, private + found.uss, own or found.uss
        self.resident = max(self.resident, resident)
        if private > self.private:
            self.private, self.own = private, own


async def drill(machine: Machine) -> tuple[Used, Proof]:
    """One, watched."""
    used, started = Used(), time.perf_counter()
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*arguments("backup", "drill"), env=environment(machine), stdout=pipe)
    process, ended = psutil.Process(child.pid), asyncio.create_task(child.communicate())
    while not ended.done():
        try:
            used.look(process)
            times = process.cpu_times()
            used.cpu_seconds = sum((times.user, times.system, times.children_user, times.children_system))
        except psutil.Error:
            break
        await asyncio.wait([ended], timeout=SAMPLE_SECONDS)
    await ended
    used.seconds = time.perf_counter() - started
    proof = load_proof(machine.data)
    assert proof is not None
    assert proof.is_proven, proof.findings
    return used, proof


async def restore(machine: Machine) -> float:
    """Seconds that the whole command takes, with its look at what it has restored."""
    to, started = machine.folder / "restored.db", time.perf_counter()
    command = arguments("restore", "--latest", "--to", str(to))
    child = await asyncio.create_subprocess_exec(*command, env=environment(machine), stdout=asyncio.subprocess.DEVNULL)
    assert await child.wait() == 0
    seconds = time.perf_counter() - started
    to.unlink()
    return seconds


async def snapshot_made(objects: Path) -> None:
    """Litestream has made its first one; while it does, it may take a minute to say where it is."""

    def size() -> int:
        return sum(path.stat().st_size for path in objects.rglob("0009/*.ltx"))

    async def has_settled() -> bool:  # rclone shows what is being written, too
        before = size()
        await asyncio.sleep(SETTLE_SECONDS)
        return 0 < before == size()

    await until(has_settled, what="a snapshot", seconds=ARRIVAL_SECONDS)


def reads_two_whole(objects: Path) -> bool:
    """Whether a restore reads the first snapshot and, behind it, what Litestream has compacted of the beginning."""
    ends = {
        level: {
            end
            for path in objects.rglob(f"{level}/*.ltx")
            for first, end in [path.stem.split("-")]
            if int(first, 16) == 1
        }
        for level in ("0002", "0009")
    }
    return max(ends["0002"], default="") > max(ends["0009"], default="")


async def show_drills(machine: Machine, objects: Path) -> None:
    for _ in range(ROUNDS):
        count = 1 + reads_two_whole(objects)
        used, proof = await drill(machine)
        print(
            f"{proof.bytes / 1e6:.0f} MB, {proof.rows} rows, {count} whole to read, proven: {proof.is_proven},"
            f" compared: {proof.is_compared}, findings: {len(proof.findings)}; {used.seconds:.1f} s,"
            f" {used.cpu_seconds:.1f} s of CPU, recovery point {proof.recovery_point_seconds} s, recovery"
            f" {proof.recovery_seconds} s; memory {used.private / 1e6:.0f} MB private, of which the drill's"
            f" process has {used.own / 1e6:.0f}, {used.resident / 1e6:.0f} MB resident",
            flush=True,
        )


async def main(megabytes: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="yral-drill-"))
    try:
        with Rclone(folder / "s3", has_etags=False) as server:
            machine = Machine(folder / "machine", bucket(server), LOG_LEVEL="WARNING")
            machine.data.mkdir()
            fill(machine.data / "yral_chat.db", megabytes * 1_000_000)
            machine.start()
            try:
                await replicated(machine, ARRIVAL_SECONDS)
                Person(machine, "somebody")
                await snapshot_made(server.bucket)
                await show_drills(machine, server.bucket)
                await until(
                    there(lambda: any(server.bucket.rglob("0002/*.ltx"))), what="level 2", seconds=COMPACTION_SECONDS
                )
                await asyncio.sleep(SETTLE_SECONDS)
                if reads_two_whole(server.bucket):
                    await show_drills(machine, server.bucket)
                else:  # the five minutes of the clock ended before anything else had arrived
                    print(
                        "Litestream has compacted the beginning by itself: nothing reads two whole objects this time."
                    )
                size = (machine.data / "yral_chat.db").stat().st_size
                rates = [size / 1e6 / await restore(machine) for _ in range(ROUNDS)]
                print(f"restore --latest --to: {', '.join(f'{rate:.0f}' for rate in rates)} MB/s")
            finally:
                machine.service.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1150))
