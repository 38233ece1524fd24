"""Where the history is checked on both databases, and for how long."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On PostgreSQL in the long run."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        if item.nodeid.startswith("tests/history/") and callspec and callspec.params.get("dialect") == "postgresql":
            item.add_marker(pytest.mark.long)
