"""The packs of texts that the rules are measured with (tests/data/moderation/README.md), and the measuring."""

import csv
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from yral_chat.services.moderation.rules import load_rules

DATA = Path(__file__).parents[2] / "data" / "moderation"


class Attack(NamedTuple):
    kind: str
    language: str
    form: str  # plain, or how it is disguised
    text: str


class Benign(NamedTuple):
    language: str
    text: str


def attacks() -> list[Attack]:
    return [Attack(*row) for row in _rows("attacks.tsv")]


def benign() -> list[Benign]:
    return [Benign(*row) for row in _rows("benign.tsv")]


def _rows(name: str) -> list[list[str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def is_stopped(attack: Attack) -> bool:
    """Refused, or answered with help: a model is not called."""
    tier = load_rules().judge(attack.text, "message").tier
    return tier == "crisis" if attack.kind == "crisis" else tier in ("block", "crisis")


def stopped_by(column: str) -> dict[str, tuple[int, int]]:
    """How many attacks are stopped, of how many, by `kind`, `language` or `form`."""
    stopped: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for attack in attacks():
        value = getattr(attack, column)
        total[value] += 1
        stopped[value] += is_stopped(attack)
    return {value: (stopped[value], total[value]) for value in total}


def refused_benign() -> list[Benign]:
    """The texts of the benign pack that would be refused or answered with help."""
    return [row for row in benign() if load_rules().judge(row.text, "message").tier in ("block", "crisis")]


def judged_benign() -> int:
    """How many texts of the benign pack a judge would look at."""
    return sum(load_rules().judge(row.text, "message").tier == "suspicious" for row in benign())
