"""The pages of the documentation that come from the code: up to date, and complete."""

import json
import re
import shlex
from pathlib import Path

import pytest

from gateway.http.operation import AnyOperation
from gateway.http.resources.operations import OPERATIONS
from gateway.http.spec.reference import events_reference, http_reference
from gateway.models.event_catalogue import EVENT_TYPES
from gateway.models.events import EventType

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
FOLDER = Path(__file__).parents[3] / "docs" / "reference"


@pytest.mark.parametrize(("name", "text"), [("http.md", http_reference), ("events.md", events_reference)])
def test_the_pages_match_the_code(name: str, text: object) -> None:
    """``make docs`` writes them again."""
    assert callable(text)
    assert (FOLDER / name).read_text(encoding="utf-8") == text()


def test_every_operation_has_its_section() -> None:
    """Method and path of each stand there."""
    page = http_reference()
    for operation in OPERATIONS:
        assert f"`{operation.method} {operation.path}`" in page


def test_every_operation_has_valid_shell_samples() -> None:
    """The request in words of a shell, with the method, path and body of the operation, and what is answered."""
    sections = http_reference().split("\n### ")[1:]
    assert len(sections) == len(OPERATIONS)
    for section, operation in zip(sections, by_tag(), strict=True):
        assert f"`{operation.method} {operation.path}`" in section
        command, *answers = re.findall(r"^```\w+\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
        words = shlex.split(command.replace("\\\n", ""))
        assert words[0] == "curl"
        assert ("-X" in words, operation.method in words) == ((operation.method != "GET",) * 2)
        pattern = re.sub(r"\\{\w+\\}", "[^/?{}]+", re.escape(operation.path))
        assert [word for word in words if re.fullmatch(rf"\$GATEWAY{pattern}", word)], words
        if "-d" in words:
            operation.takes.model_validate_json(words[words.index("-d") + 1])
        kinds = [kind for status, kind in operation.answers.items() if status < 400]
        for kind, answer in zip([*kinds, *(None for _ in operation.other_media_types)], answers, strict=True):
            assert answer.strip()
            if kind is not None:
                assert set(json.loads(answer)) <= set(kind.model_fields)


def by_tag() -> list[AnyOperation]:
    """The operations in the order of the page."""
    tags = list(dict.fromkeys(each.tag for each in OPERATIONS))
    order = {name: number for number, name in enumerate(_paths())}
    return sorted(OPERATIONS, key=lambda each: (tags.index(each.tag), order[each.path], METHODS.index(each.method)))


def _paths() -> list[str]:
    return list(dict.fromkeys(each.path for each in OPERATIONS))


def test_every_type_of_event_is_explained() -> None:
    """None is missing and none is made up."""
    assert set(EVENT_TYPES) == set(EventType)
