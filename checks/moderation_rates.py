"""Measures the rules and the output filter with the packs of tests/data/moderation, and keeps docs/security.md in step.

Prints the tables; `--write` puts them between the marks of the document. Without it the exit status says whether the
document says what was measured.
"""

import sys
from pathlib import Path

from tests.services.moderation.leaking import CUTS, GREETING, INSTRUCTIONS, LEAKS
from tests.services.moderation.packs import attacks, benign, judged_benign, refused_benign, stopped_by
from yral_chat.services.moderation.leaks import OutputFilter, Secret
from yral_chat.services.moderation.rules import load_rules

DOCUMENT = Path(__file__).parent.parent / "docs" / "security.md"
BEGIN = "<!-- measured: begin -->\n"
END = "<!-- measured: end -->\n"


def measured() -> str:
    """The tables as Markdown."""
    stopped = sum(count for count, _ in stopped_by("kind").values())
    count, refused = len(benign()), len(refused_benign())
    lines = [
        f"Rules version {load_rules().version}: {stopped} of {len(attacks())} attacks stopped before a model is "
        f"called, {refused} of {count} benign texts refused ({refused / count:.2%}), {judged_benign()} shown to the "
        "judge.",
        "",
        *_table("Attacks by kind", stopped_by("kind")),
        "",
        *_table("Attacks by language", stopped_by("language")),
        "",
        *_table("Attacks by form", stopped_by("form")),
        "",
        "| A model that leaks, says it | Stopped |",
        "|---|---|",
        *(f"| {name} | {'yes' if is_stopped(text) else 'no'} |" for name, (text, _) in LEAKS.items()),
        "",
    ]
    return "\n".join(lines)


def _table(title: str, rows: dict[str, tuple[int, int]]) -> list[str]:
    return [
        f"| {title} | Stopped | Of |",
        "|---|---|---|",
        *(f"| {name} | {a} | {b} |" for name, (a, b) in rows.items()),
    ]


def is_stopped(text: str) -> bool:
    """However the text is cut."""
    for cut in CUTS.values():
        output = OutputFilter(Secret.of(INSTRUCTIONS, [GREETING]))
        for piece in cut(text):
            output.feed(piece)
        output.end()
        if not output.is_leak:
            return False
    return True


def is_in_step() -> bool:
    """Whether the document says what is measured."""
    return _document(measured()) == DOCUMENT.read_text(encoding="utf-8")


def _document(table: str) -> str:
    text = DOCUMENT.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    return head + BEGIN + table + END + rest.split(END)[1]


def main() -> int:
    table = measured()
    print(table)
    if "--write" in sys.argv:
        DOCUMENT.write_text(_document(table), encoding="utf-8")
        return 0
    if not is_in_step():
        print("docs/security.md says something else: python -m checks.moderation_rates --write")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
