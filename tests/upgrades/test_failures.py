"""An upgrade that fails, wherever it does, leaves everything as it was, and says so."""

import json
import subprocess
import sys
from collections import Counter
from itertools import count
from pathlib import Path

import pytest

from tests.service import ROOT
from tests.upgrades.conftest import EARLIER, LeftBy, on_sqlite
from tests.upgrades.dumps import state_of
from tests.upgrades.faults import failing_after
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.migrations import HEAD, migrate

# From the first revision on, so that every migration has its turn; and the last step by itself.
FROM = (EARLIER[0], EARLIER[-1])
# Statements of a migration: one that does something, and one that says so.
FEWEST = 2
MOMENTS = 20
SIZE_STEP = 16 * 1024


@pytest.mark.parametrize("revision", FROM)
def test_a_fault_behind_any_operation_changes_nothing(left_by: LeftBy, revision: str) -> None:
    url = left_by(revision)
    before, said = state_of(url), ""
    for number in count(1):
        with failing_after(number), pytest.raises(DatabaseUnusable) as failed:
            migrate(url, has_copy=False)
        said = str(failed.value)
        assert said.startswith(f"The tables could not be brought from revision {revision} to {HEAD} (Planted). ")
        if "Nothing was changed: the version that you came from can start as before." not in said:
            break
        assert state_of(url) == before
    assert number > FEWEST * (int(HEAD) - int(revision))
    # The last of them is COMMIT, whose answer got lost.
    assert said.endswith("Either everything was changed, or nothing: start again, and it goes on from there.")
    assert state_of(url).revision == HEAD
    assert not migrate(url)


def trials(url: str, *arguments: str) -> list[dict[str, str]]:
    """See `dying`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.upgrades.dying", url, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.long
def test_a_death_at_any_statement_changes_nothing(left_by: LeftBy, dialect: str) -> None:
    revision = FROM[0] if dialect == "sqlite" else FROM[-1]
    found = trials(left_by(revision), "statements")
    assert {trial["state"] for trial in found[:-1]} == {"old"}
    assert found[-1]["state"] == "new"
    assert len(found) > FEWEST * (int(HEAD) - int(revision))


@pytest.mark.long
@on_sqlite
def test_a_death_at_any_moment_leaves_all_or_nothing(left_by: LeftBy, data: Path) -> None:
    found = trials(left_by(EARLIER[0]), "moments", str(MOMENTS))
    assert {trial["state"] for trial in found} == {"old", "new"}
    assert found[-1]["state"] == "new"
    left = sorted(path.name for path in data.glob("yral_chat.db*"))
    assert left == ["yral_chat.db", f"yral_chat.db.before-{HEAD}"], "nothing is left of those that were cut off"


@pytest.mark.long
@on_sqlite
def test_a_disk_that_is_full_at_any_point_changes_nothing(left_by: LeftBy, data: Path) -> None:
    found = trials(left_by(EARLIER[0]), "sizes", str(SIZE_STEP))
    assert {trial["state"] for trial in found[:-1]} == {"old"}
    assert all("changed" in trial["said"] or "untouched" in trial["said"] for trial in found[:-1])
    sentences = Counter(trial["said"].split(" (")[0].split("/")[0] for trial in found)
    assert sentences["Before its tables are upgraded "] >= 2, sentences
    assert sentences[f"The tables could not be brought from revision 0001 to {HEAD}"] >= 2, sentences
    assert found[-1]["state"] == "new"
    assert sorted(path.name for path in data.glob("yral_chat.db*")) == ["yral_chat.db"]
