"""Counts what a run did not try, by reason: a suite that is green because it skipped must say so.

skipped: 12 (PostgreSQL server not installed: 10, Chromium not installed: 2)
"""

from collections import Counter

import pytest
from _pytest.terminal import TerminalReporter


def skip_reason(report: pytest.CollectReport | pytest.TestReport) -> str:
    """The words given to `pytest.skip`, `skipif` or `importorskip`, without pytest's own prefix."""
    # A skip's longrepr is (file, line, "Skipped: why"); anything else is shown as pytest would.
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ").strip() or "no reason given"


def skip_summary(reasons: list[str]) -> str:
    """One line, the commonest reason first."""
    counted = sorted(Counter(reasons).items(), key=lambda item: (-item[1], item[0]))
    return f"skipped: {len(reasons)} ({', '.join(f'{reason}: {count}' for reason, count in counted)})"


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    # With xdist only the controlling process reports, and it holds the reports of all workers.
    reasons = [skip_reason(report) for report in terminalreporter.getreports("skipped")]
    if reasons:
        terminalreporter.write_line(skip_summary(reasons), yellow=True)
