"""Plants each fault alone in a copy of the checkout, and looks whether the suite notices.

    python -m checks.planted_faults [--all] [--no-baseline] [--list] [NAME…]

First the named tests run without any fault: they must pass, or they would prove nothing. Then, for each fault, those
that should catch it; with `--all`, and where they do not, the whole suite but the long tests. Exits with 1 when less
than nine in ten faults are caught, or when something could not be tried.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from checks.planted_faults import DoesNotApply, Fault, load_faults, planted

ROOT = Path(__file__).parent.parent.parent
LEAST_SHARE = 0.9
# Nothing that is named takes a tenth of it.
RUN_SECONDS = 1800.0
LONGEST_LINE = 300
# One database is enough to see a fault, and the other takes as long again.
OPTIONS = ["-q", "-x", "-n", "0", "-m", "not postgres", "-p", "no:cacheprovider"]
EVERYTHING = ["-q", "-x", "-n", "3", "--dist", "worksteal", "-m", "not long", "-p", "no:cacheprovider"]

# broken: the tests could not be run, so nothing was shown.
Outcome = Literal["caught", "survived", "broken"]
# pytest's exit codes: https://docs.pytest.org/en/stable/reference/exit-codes.html
OUTCOMES: dict[int, Outcome] = {0: "survived", 1: "caught"}


class Result(msgspec.Struct, frozen=True):
    """How one fault fared. `by` is what caught it, or what stood in the way."""

    fault: Fault
    outcome: Outcome
    by: str
    seconds: float


def share_caught(results: Sequence[Result]) -> float:
    return sum(result.outcome == "caught" for result in results) / max(1, len(results))


def is_good(results: Sequence[Result]) -> bool:
    """Enough are caught, and all could be tried."""
    return share_caught(results) >= LEAST_SHARE and all(result.outcome != "broken" for result in results)


def copy_checkout(target: Path) -> None:
    """What is under version control or could be, as it stands now, with an environment to run it in."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - whichever git there is
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source = ROOT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)

    make_environment(target)


def make_environment(checkout: Path) -> None:
    """An environment in `.venv` with the code of this copy in front of the packages of ours.

    Not PYTHONPATH: tests start programs with one of their own, or none, but always with `sys.executable`.
    """
    folder, ours = checkout / ".venv", Path(sys.executable).parent
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    packages.joinpath("planted.pth").write_text(
        f"{checkout / 'src'}\nimport site; site.addsitedir({sysconfig.get_path('purelib')!r})\n", encoding="utf-8"
    )
    for program in ours.iterdir():
        if not (beside := folder / "bin" / program.name).exists():
            beside.symlink_to(program)


def run_pytest(checkout: Path, arguments: list[str]) -> tuple[int, str]:
    """(exit status, last lines) of the tests of this copy, run on its own code."""
    try:
        done = subprocess.run(
            [_python_of(checkout), "-m", "pytest", *arguments],
            cwd=checkout,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=RUN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -1, "took too long"
    return done.returncode, "\n".join(line[:LONGEST_LINE] for line in done.stdout.strip().splitlines()[-30:])


def check_copy(checkout: Path) -> None:
    """Raises RuntimeError when the copy's tests would run somebody else's code, in which nothing was planted."""
    command = [_python_of(checkout), "-c", "import yral_chat; print(yral_chat.__file__)"]
    done = subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True)
    if not Path(done.stdout.strip()).is_relative_to(checkout):
        raise RuntimeError(f"the tests of {checkout} would run {done.stdout.strip()}")


def _python_of(checkout: Path) -> str:
    return str(checkout / ".venv" / "bin" / "python")


def try_one(fault: Fault, unsound: Mapping[str, str], *, with_all: bool) -> Result:
    """Plants the fault in a copy of its own and runs the tests there."""
    started = time.monotonic()
    if in_the_way := [unsound[tests] for tests in fault.tests if tests in unsound]:
        return Result(fault, "broken", "\n".join(in_the_way), 0.0)
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        checkout = Path(folder).resolve()
        copy_checkout(checkout)
        check_copy(checkout)
        try:
            for path, text in planted(fault, checkout).items():
                path.write_text(text, encoding="utf-8")
        except DoesNotApply as error:
            return Result(fault, "broken", str(error), 0.0)
        outcome, by = _try_runs(checkout, [[*OPTIONS, *tests.split()] for tests in fault.tests])
        if outcome == "survived" and with_all:
            outcome, by = _try_runs(checkout, [EVERYTHING])
    return Result(fault, outcome, by, time.monotonic() - started)


def _try_runs(checkout: Path, runs: list[list[str]]) -> tuple[Outcome, str]:
    for arguments in runs:
        status, output = run_pytest(checkout, arguments)
        outcome = OUTCOMES.get(status, "broken")
        if outcome == "caught":
            failed = next((line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))), "")
            return outcome, failed.partition(" - ")[0].removeprefix("FAILED ")
        if outcome == "broken":
            return outcome, f"pytest ended with {status}:\n{output}"
    return "survived", ""


def find_unsound(faults: Sequence[Fault]) -> dict[str, str]:
    """Named tests that fail without any fault, and what they say."""
    runs = list(dict.fromkeys(tests for fault in faults for tests in fault.tests))
    unsound = {}
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        checkout = Path(folder).resolve()
        copy_checkout(checkout)
        check_copy(checkout)
        for tests in runs:
            status, output = run_pytest(checkout, [*OPTIONS, *tests.split()])
            if status != 0:
                unsound[tests] = f"{tests} ended with {status} without any fault:\n{output}"
    return unsound


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m checks.planted_faults", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="only these")
    parser.add_argument("--all", action="store_true", help="run the whole suite where the named tests do not notice")
    parser.add_argument("--no-baseline", action="store_true", help="the named tests are known to pass without a fault")
    parser.add_argument("--list", action="store_true", help="say what there is, and plant nothing")
    options = parser.parse_args(arguments)
    known = {fault.name: fault for fault in load_faults()}
    if unknown := [name for name in options.names if name not in known]:
        say(f"unknown: {', '.join(unknown)}")
        return 2
    faults = [fault for name, fault in known.items() if not options.names or name in options.names]
    if options.list:
        for fault in faults:
            say(f"{fault.name:40} {fault.about}")
        return 0
    unsound = {} if options.no_baseline else find_unsound(faults)
    return report([_told(try_one(fault, unsound, with_all=options.all)) for fault in faults])


def _told(result: Result) -> Result:
    say(f"{result.outcome:8} {result.fault.name:40} {result.seconds:5.0f} s  {result.by}")
    return result


def report(results: Sequence[Result]) -> int:
    """Says how many were caught; returns the exit status."""
    caught = sum(result.outcome == "caught" for result in results)
    say(f"\n{caught} of {len(results)} planted faults were caught ({share_caught(results):.0%})")
    for result in results:
        if result.outcome != "caught":
            say(f"{result.outcome}: {result.fault.name}: {result.fault.about}")
    return 0 if is_good(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
