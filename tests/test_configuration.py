"""`.env.example` and docs/configuration.md say what core/config.py does: the same settings, defaults and bounds."""

import json
import re
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import annotated_types
import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from yral_chat.core.config import Settings

ROOT = Path(__file__).parents[1]
FIELDS = {name.upper(): field for name, field in Settings.model_fields.items()}


class Row(NamedTuple):
    default: str
    allowed: str
    meaning: str


def written_default(field: FieldInfo) -> str:
    """The default as one would write it in a file; nothing for none."""
    match field.default:
        case None:
            return ""
        case bool(value):
            return str(value).lower()
        case tuple(values):
            return ",".join(values) if values or is_comma_list(field) else json.dumps(values)
        case value:
            return str(value)


def value_type(field: FieldInfo) -> Any:
    """The type without `| None` and annotations."""
    kinds = [part for part in get_args(field.annotation) if part is not NoneType] if is_optional(field) else []
    kind = kinds[0] if kinds else field.annotation
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def is_optional(field: FieldInfo) -> bool:
    return NoneType in get_args(field.annotation)


def is_comma_list(field: FieldInfo) -> bool:
    return bool(value_type(field) == tuple[str, ...])


def allowed_values(field: FieldInfo) -> str:
    """The cell of the table: choices, bounds, or the kind of text."""
    kind = value_type(field)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if is_comma_list(field):
        return "comma list"
    if get_origin(kind) is tuple:
        return "JSON list"
    if kind in (int, float, Decimal):
        return bounds(field)
    return {bool: "`true`, `false`", str: "text", SecretStr: "secret text", Path: "path"}[kind]


def bounds(field: FieldInfo) -> str:
    """`0 to 65535`, `above 0, up to 600`, `1 or more`."""
    low: float | None = None
    is_open, high = False, None
    for rule in field.metadata:
        match rule:
            case annotated_types.Ge(ge=int(value)):
                low = value
            case annotated_types.Gt(gt=int(value)):
                low, is_open = value, True
            case annotated_types.Le(le=int(value)):
                high = value
    if high is None:
        return f"above {low}" if is_open else f"{low} or more"
    return f"above {low}, up to {high}" if is_open else f"{low} to {high}"


@pytest.fixture
def documented() -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for line in (ROOT / "docs" / "configuration.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if match := re.fullmatch(r"`([A-Z0-9_]+)`", cells[0]):
            assert match[1] not in rows, f"{match[1]} is documented twice"
            rows[match[1]] = Row(*cells[1:])
    return rows


@pytest.fixture
def example() -> str:
    return (ROOT / ".env.example").read_text()


def test_the_page_lists_exactly_the_settings(documented: dict[str, Row]) -> None:
    assert list(documented) == list(FIELDS)


def test_the_page_gives_the_defaults_and_bounds_of_the_code(documented: dict[str, Row]) -> None:
    shown = {name: (row.default, row.allowed) for name, row in documented.items()}
    assert shown == {
        name: (f"`{default}`" if (default := written_default(field)) else "none", allowed_values(field))
        for name, field in FIELDS.items()
    }


def test_the_page_says_what_each_setting_means(documented: dict[str, Row]) -> None:
    assert [name for name, row in documented.items() if not re.fullmatch(r"\S.+[.]", row.meaning)] == []


def test_the_example_lists_exactly_the_settings_with_their_defaults(example: str) -> None:
    written = re.findall(r"^#?([A-Z0-9_]+)=(.*)$", example, re.MULTILINE)
    assert written == [(name, written_default(field)) for name, field in FIELDS.items()]


def test_the_example_is_commented_out_and_explains_each_setting(example: str) -> None:
    lines = example.splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []
    unexplained = [line for before, line in pairwise(lines) if re.match("#[A-Z0-9_]+=", line) and before[:2] != "# "]
    assert unexplained == []


def test_the_example_uncommented_changes_nothing(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FIELDS:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    written = tmp_path / "settings"
    written.write_text(re.sub(r"^#(?=[A-Z0-9_]+=)", "", example, flags=re.MULTILINE))
    assert Settings(_env_file=written) == Settings(_env_file=None)
