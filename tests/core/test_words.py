"""Words beside a number."""

import pytest

from yral_chat.core.words import counted


@pytest.mark.parametrize(
    ("count", "says"), [(0, "0 findings"), (1, "1 finding"), (2, "2 findings"), (2000, "2,000 findings")]
)
def test_a_word_agrees_with_its_number(count: int, says: str) -> None:
    assert counted(count, "finding", "findings") == says
