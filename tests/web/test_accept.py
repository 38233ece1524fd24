"""Who gets the page and who the JSON at `/`."""

import pytest

from yral_chat.web.accept import prefers_html

FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"


@pytest.mark.parametrize(
    "accept",
    [
        FIREFOX,
        CHROME,
        "text/html",
        "TEXT/HTML",
        "text/*",
        "text/html;charset=utf-8",
        "application/json;q=0.9, text/html",
        "application/json;q=0.5, text/html;q=0.501",
        "application/json;q=0, */*;q=0.1",
        "*/*;q=0.5, text/html ; q=0.7",
    ],
)
def test_the_page_goes_to_who_prefers_html(accept: str) -> None:
    assert prefers_html(accept)


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "",
        "*/*",
        "application/json",
        "application/*",
        "application/json, text/html",  # a tie
        "application/json, text/html;q=0.9",
        "text/html;q=0, */*",
        "text/html;q=0",
        "text/*;q=0.9, text/html;q=0.1, application/json;q=0.5",  # the more specific range counts
        "text/html;q=high",
        "text/html;q=1.5",
        "text/html;q=0.5000",
        "text/html;q=-1",
        "text/html;q=nan",
        ";;,,=",
        "image/webp",
    ],
)
def test_json_goes_to_everybody_else(accept: str | None) -> None:
    assert not prefers_html(accept)
