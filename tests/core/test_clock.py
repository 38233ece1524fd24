"""Times as texts."""

import pytest

from yral_chat.core.clock import from_text, stamp


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2026-03-01T09:30:00.999999Z", "20260301T093000Z"), ("1970-01-01T00:00:00Z", "19700101T000000Z")],
)
def test_a_stamp_is_the_second_of_a_time(text: str, expected: str) -> None:
    assert stamp(from_text(text)) == expected
