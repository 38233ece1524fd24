"""The shipped dashboard and alert rules: they ask for what there is, and say what to do."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.api.expecting import open_fresh
from tests.client import Api
from tests.programs import promtool_binary
from tests.service import Service
from tests.waiting import until

ROOT = Path(__file__).parent.parent.parent
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD = ROOT / "deploy/grafana/yral-chat.json"
PAGE = ROOT / "docs/monitoring.md"

# Made by Prometheus itself, or by whoever runs it.
OF_PROMETHEUS = {"up"}
LABELS_OF_PROMETHEUS = {"job", "instance"}
KEYWORDS = {"by", "and", "bool", "le", "sum", "rate", "min", "max", "count", "increase", "changes", "predict_linear",
            "histogram_quantile", "time"}  # fmt: skip


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def expressions_of_the_dashboard() -> list[str]:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    return asked + [annotation["expr"] for annotation in dashboard["annotations"]["list"]]


def expressions_of_the_rules() -> list[str]:
    return re.findall(r"expr: (\|\n(?: {10}.*\n)+|.*\n)", ALERTS.read_text())


def plain(expression: str) -> str:
    """As Prometheus gets it from Grafana."""
    return expression.replace("$__rate_interval", "5m").replace("$instance", ".*")


def asked_for(expression: str) -> tuple[set[str], set[str]]:
    """(names of series, labels) in an expression."""
    text = re.sub(r'"[^"]*"|\[[^]]*\]', "", plain(expression))
    labels = set(re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", text))
    for group in re.findall(r"by \(([^)]*)\)", text):
        labels |= {name.strip() for name in group.split(",")}
    text = re.sub(r"\{[^}]*\}|by \([^)]*\)", "", text)
    return set(re.findall(r"\b[a-z_]{2,}\b", text)) - KEYWORDS, labels


def promtool(*arguments: str | Path) -> None:
    binary = promtool_binary()
    if binary is None:  # also where all services are required: it is no service of ours
        pytest.skip("promtool not installed")
    done = subprocess.run([binary, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


# --- as Prometheus sees them


def test_the_rules_are_valid() -> None:
    promtool("check", "rules", ALERTS)


def test_the_example_of_a_configuration_is_valid() -> None:
    promtool("check", "config", "--syntax-only", ROOT / "deploy/prometheus/prometheus.yml")


def test_a_service_that_is_well_wakes_nobody_and_a_broken_one_for_everything() -> None:
    cases = Path(__file__).parent / "alerts_test.yml"
    promtool("test", "rules", cases)
    alerts = re.findall(r"- alert: (\w+)", ALERTS.read_text())
    broken = cases.read_text().rpartition("promql_expr_test:")[2]
    assert re.findall(r'alertname="(\w+)"', broken) == alerts, "an alert that no test makes fire"


def test_every_expression_of_the_dashboard_is_one(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": plain(expression)}
        for number, expression in enumerate(expressions_of_the_dashboard())
    ]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    promtool("check", "rules", path)


# --- as the service sees them


@pytest.fixture
async def exposition(api: Api, service: Service) -> str:
    """`/metrics` of a service that had traffic."""
    conversation = await open_fresh(api, service)
    await api.said(conversation["id"], "Hello")
    await api.get("/there/is/no/such/path")
    text = ""

    async def has_turn() -> bool:
        nonlocal text
        text = (await api.get("/metrics")).text
        return 'turns_total{model="gemini-2.5-flash",outcome="completed"' in text

    await until(has_turn, what="the turn to be counted")
    return text


def series_in(text: str) -> tuple[set[str], dict[str, set[str]]]:
    """(names of samples there are or can be, labels by name of those that there are)."""
    names: set[str] = set()
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M):
        names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    labels: dict[str, set[str]] = {}
    for name, found in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", text, re.M):
        labels.setdefault(name, set()).update(re.findall(r'(\w+)="', found))
    return names, labels


async def test_dashboard_and_rules_ask_only_for_series_that_exist(exposition: str) -> None:
    names, labels = series_in(exposition)
    for expression in expressions_of_the_dashboard() + expressions_of_the_rules():
        asked, by = asked_for(expression)
        assert asked, expression
        assert asked <= names | OF_PROMETHEUS, f"{asked - names}: {expression}"
        if all(name in labels for name in asked):
            known = set[str]().union(*(labels[name] for name in asked), LABELS_OF_PROMETHEUS)
            assert by <= known, f"{by - known}: {expression}"


async def test_every_series_is_explained(exposition: str) -> None:
    explained = set(re.findall(r"^\| `(\w+)", PAGE.read_text(), re.M))
    of_the_runtime = re.compile(r"process_|python_")
    ours = {name for name in re.findall(r"^# TYPE (\w+)", exposition, re.M) if not of_the_runtime.match(name)}
    assert ours - explained == set()
    assert explained - set(re.findall(r"^# TYPE (\w+)", exposition, re.M)) == set()


# --- as people see them


def test_every_alert_says_what_to_do() -> None:
    alerts = re.findall(r"- alert: (\w+)", ALERTS.read_text())
    links = re.findall(r"runbook_url: (.*)", ALERTS.read_text())
    assert links == [f"docs/monitoring.md#{name.lower()}" for name in alerts]
    headings = re.findall(r"^### (\w+)$", PAGE.read_text(), re.M)
    assert headings == alerts
    assert set(re.findall(r"severity: (\w+)", ALERTS.read_text())) == {"page", "ticket"}
    assert ALERTS.read_text().count("severity: ") == len(alerts)


def test_the_panels_stand_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    titles = [panel["title"] for panel in panels()]
    assert len(titles) == len(set(titles))
