"""The checks of `make check` find what they are for."""

import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import grimp
import pytest

from checks import locks_in_step, migrations_in_step, unreachable_modules
from tests.plugins.skips import skip_reason, skip_summary
from yral_chat.db.migrations import migrate

ROOT = Path(__file__).parents[1]


@pytest.fixture
def graph() -> grimp.ImportGraph:
    """cli -> services.chat -> core; nothing imports services.forgotten, which imports core."""
    graph = grimp.ImportGraph()
    for name in ("app", "app.cli", "app.services", "app.services.chat", "app.services.forgotten", "app.core"):
        graph.add_module(name)
    graph.add_import(importer="app.cli", imported="app.services.chat")
    graph.add_import(importer="app.services.chat", imported="app.core")
    graph.add_import(importer="app.services.forgotten", imported="app.core")
    return graph


def test_a_module_that_nothing_imports_is_unreachable(graph: grimp.ImportGraph) -> None:
    assert unreachable_modules.unreachable_modules(graph, {"app.cli"}) == ["app.services.forgotten"]


def test_what_a_package_imports_in_its_init_is_reached_with_any_of_its_modules(graph: grimp.ImportGraph) -> None:
    graph.add_import(importer="app.services", imported="app.services.forgotten")
    assert unreachable_modules.unreachable_modules(graph, {"app.cli"}) == []


def test_a_renamed_entry_point_is_an_error_and_not_a_pass(graph: grimp.ImportGraph) -> None:
    with pytest.raises(LookupError, match=r"yral_chat\.cli"):
        unreachable_modules.entry_points(graph)


def test_a_file_outside_all_packages_is_found(graph: grimp.ImportGraph, tmp_path: Path) -> None:
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "script.py").touch()
    assert unreachable_modules.unseen_files(graph, tmp_path) == [str(tmp_path / "loose" / "script.py")]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the files that the lock check reads."""
    for name in ("pyproject.toml", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_dependency_that_is_not_locked_is_found(project: Path) -> None:
    rewrite(project / "pyproject.toml", "dependencies = [", 'dependencies = [\n  "left-behind>=1",')
    assert [line.split(";")[0] for line in locks_in_step.findings(project)] == [
        "requirements.lock: left-behind is not in it",
        "requirements-dev.lock: left-behind is not in it",
    ]


def test_a_pin_older_than_what_the_project_asks_for_is_found(project: Path) -> None:
    rewrite(project / "pyproject.toml", '"orjson>=', '"orjson>=1000.')
    assert [line.split(":")[0] for line in locks_in_step.findings(project)] == [
        "requirements.lock",
        "requirements-dev.lock",
    ]


def test_a_pin_that_differs_between_the_locks_is_found(project: Path) -> None:
    rewrite(project / "requirements-dev.lock", "fastapi==", "fastapi==1")
    assert locks_in_step.findings(project) == [
        "requirements-dev.lock: fastapi differs from requirements.lock; run `make lock`"
    ]


@pytest.mark.parametrize("line", ["--index-url somewhere", "-f wheels", "# from https://example.org/simple"])
def test_a_lock_that_names_where_it_came_from_is_found(project: Path, line: str) -> None:
    lock = project / "requirements.lock"
    lock.write_text(f"{line}\n{lock.read_text()}")
    assert locks_in_step.findings(project) == [f"requirements.lock:1: names an index or a host: {line}"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("ALTER TABLE jobs ADD COLUMN forgotten TEXT", "only in the migrations: column of jobs: forgotten"),
        ("DROP INDEX ix_messages_unread", "only in tables.py: index of messages: CREATE INDEX ix_messages_unread"),
        ("DROP TABLE counters", "only in tables.py: column of counters: name"),
    ],
)
def test_a_table_that_the_migrations_make_differently_is_found(tmp_path: Path, change: str, found: str) -> None:
    migrated, created = (f"sqlite:///{tmp_path / name}.db" for name in ("migrated", "created"))
    migrate(migrated)
    connection = sqlite3.connect(tmp_path / "migrated.db")
    connection.execute(change)
    connection.close()
    assert [line for line in migrations_in_step.compare(migrated, created) if line.startswith(found)]


def report(reason: str) -> pytest.TestReport:
    return pytest.TestReport("test.py::test", ("test.py", 1, "test"), {}, "skipped", ("test.py", 1, reason), "setup")


def test_skips_are_counted_by_reason_the_commonest_first() -> None:
    reasons = Counter({"Skipped: PostgreSQL server not installed": 3, "Skipped: Chromium not installed": 1})
    reports = [report(reason) for reason in reasons.elements()]
    assert skip_summary([skip_reason(skipped) for skipped in reports]) == (
        "skipped: 4 (PostgreSQL server not installed: 3, Chromium not installed: 1)"
    )
