"""Fails when a module of yral_chat cannot be reached from the places where a process enters: dead code is deleted.

Imports inside functions count (heavy ones are made there), and so do those for type checking only.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import grimp

PACKAGE = "yral_chat"
# Where the command line, an ASGI server and Alembic enter.
ENTRY_MODULES = ("yral_chat.cli", "yral_chat.cli.__main__", "yral_chat.main", "yral_chat.db.migrations.env")
# Alembic loads its scripts by their path; they are in no package, and import nothing of ours.
LOADED_BY_PATH = Path("db/migrations/versions")


def entry_points(graph: grimp.ImportGraph) -> set[str]:
    """The entry modules; raises LookupError when one is not in the graph, for then everything would pass or fail."""
    missing = [name for name in ENTRY_MODULES if name not in graph.modules]
    if missing:
        raise LookupError(f"entry points that do not exist: {', '.join(missing)}")
    return set(ENTRY_MODULES)


def with_parents(module: str) -> Iterable[str]:
    """The module and the packages that Python runs before it."""
    parts = module.split(".")
    return (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def unreachable_modules(graph: grimp.ImportGraph, entries: set[str]) -> list[str]:
    """Modules that no chain of imports from `entries` leads to, sorted."""
    reached: set[str] = set()
    waiting = set(entries)
    while waiting:
        added = {name for module in waiting for name in with_parents(module)} - reached
        reached |= added
        waiting = {name for module in added for name in graph.find_modules_directly_imported_by(module)} - reached
    return sorted(graph.modules - reached)


def unseen_files(graph: grimp.ImportGraph, root: Path) -> list[str]:
    """Python files that are in no package, so that neither this check nor the import rules see them."""
    unseen = []
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        name = ".".join((PACKAGE, *inside.with_suffix("").parts)).removesuffix(".__init__")
        if name not in graph.modules and inside.parent != LOADED_BY_PATH:
            unseen.append(str(path))
    return unseen


def main() -> int:
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    root = Path(__file__).parents[1] / "src" / PACKAGE
    findings = [f"unreachable: {name}" for name in unreachable_modules(graph, entry_points(graph))]
    findings += [f"in no package (an __init__.py is missing): {path}" for path in unseen_files(graph, root)]
    for finding in findings:
        print(finding)
    if not findings:
        print(f"every one of {len(graph.modules)} modules can be reached")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
