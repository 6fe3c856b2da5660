"""The media type of an answer, by what the caller accepts."""

import pytest

from gateway.http.negotiation import NotAcceptableError, choose

JSON, CSV, HTML = "application/json", "text/csv", "text/html"
OFFERED = (JSON, CSV, HTML)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, JSON),
        ("", JSON),
        ("  ", JSON),
        ("*/*", JSON),
        (CSV, CSV),
        ("TEXT/CSV", CSV),
        ("text/csv; charset=utf-8", CSV),
        ("text/*", CSV),
        ("text/html, text/csv", CSV),
        ("text/csv;q=0.5, text/html;q=0.9", HTML),
        ("text/*;q=0.5, text/html", HTML),
        ("application/json;q=0, */*", CSV),
        ("application/json;q=0.1, text/csv;q=junk", JSON),
        ("image/png, application/json;q=0.2", JSON),
        (BROWSER, HTML),
    ],
)
def test_the_best_one_is_chosen(accept: str | None, chosen: str) -> None:
    """By quality, the most specific range first; without a preference the first that is offered."""
    assert choose(accept, OFFERED) == chosen


@pytest.mark.parametrize(
    "accept", ["image/png", "text/csv;q=0", "*/*;q=0", "text/csv;q=2", "csv", ";;,,", "text/csv;q=nan"]
)
def test_what_is_not_offered_is_refused(accept: str) -> None:
    """The error names the header and what there is."""
    with pytest.raises(NotAcceptableError) as refused:
        choose(accept, OFFERED)
    assert refused.value.details == {"field": "Accept", "offered": list(OFFERED)}
    assert "text/csv" in refused.value.message
