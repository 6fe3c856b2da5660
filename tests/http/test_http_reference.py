"""The pages of the documentation that come from the code: up to date, and complete."""

from pathlib import Path

import pytest

from gateway.event_meanings import MEANINGS
from gateway.http.manual import events_reference, http_reference
from gateway.http.table import OPERATIONS
from gateway.model import EventType

FOLDER = Path(__file__).parent.parent.parent / "docs" / "reference"


@pytest.mark.parametrize(("name", "text"), [("http.md", http_reference), ("events.md", events_reference)])
def test_the_pages_are_as_the_code_has_it(name: str, text: object) -> None:
    """``make docs`` writes them anew."""
    assert callable(text)
    assert (FOLDER / name).read_text(encoding="utf-8") == text()


def test_every_operation_has_its_section() -> None:
    """Method and path of each stand there."""
    page = http_reference()
    for operation in OPERATIONS:
        assert f"`{operation.method} {operation.path}`" in page


def test_every_type_of_event_is_explained() -> None:
    """None is missing and none is made up."""
    assert set(MEANINGS) == set(EventType)
