"""The checklist of docs/firmware.md, and the page that lists the tests of the MicroPython firmware for each line.

A test names the lines that it holds by ``@pytest.mark.checklist("C7")``, or by several ids.
``python -m tests.support.checklist`` prints docs/firmware-tests.md. It fails when a test names an id that the checklist
lacks, or when a line has no test that runs the MicroPython firmware, which is what tests/firmware holds.
"""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.guarantees import MarkedTest, marked_tests

MARKER = "checklist"
_ROOT = Path(__file__).parents[2]
_ON_THE_DEVICE = "tests/firmware/"
_LINE = re.compile(r'^- \[ \] <a id="c\d+"></a>\*\*(?P<id>C\d+)\*\* (?P<text>.+(?:\n  .+)*)', re.MULTILINE)
_SENTENCE = re.compile(r"(?<=\.)\s")
_HEAD = """\
# Which tests hold which line of the checklist

The [checklist](firmware.md#checklist) says what a device has to do. A test names the lines that it holds by
`@pytest.mark.checklist("C1")`. `make docs` collects this page from the tests. `make check` fails when a line has no
test that runs the [MicroPython firmware](micropython.md) on a real MicroPython.

Beside these, the [conformance kit](conformance.md) goes through every line against the firmware:
`tests/firmware/test_conformance.py`.
"""


@dataclass(frozen=True)
class Line:
    """One line of the checklist: its id, and its first sentence."""

    id: str
    text: str


class ChecklistError(Exception):
    """Checklist and tests do not match; the text names each case."""


def lines() -> list[Line]:
    """Return the lines in the order of docs/firmware.md."""
    text = (_ROOT / "docs" / "firmware.md").read_text(encoding="utf-8")
    return [Line(each["id"], _first_sentence(each["text"])) for each in _LINE.finditer(text)]


def _first_sentence(text: str) -> str:
    return _SENTENCE.split(" ".join(text.split()))[0].rstrip(".;:")


def faults(known: Iterable[str], tests: Iterable[MarkedTest]) -> list[str]:
    """Return what does not match: an id that docs/firmware.md lacks, and a line without a test on the device."""
    known, tests = list(known), list(tests)
    named = [(test.place, each) for test in tests for each in test.numbers]
    held = {each for place, each in named if place.startswith(_ON_THE_DEVICE)}
    unknown = [f"{place} names {each}, which docs/firmware.md lacks" for place, each in named if each not in known]
    return unknown + [
        f"no test in {_ON_THE_DEVICE} holds {each} of docs/firmware.md" for each in known if each not in held
    ]


def page() -> str:
    """Return the text of docs/firmware-tests.md.

    Raises:
        ChecklistError: a line has no test of the MicroPython firmware, or a test names an id without a line.
    """
    wanted, tests = lines(), marked_tests(MARKER)
    if found := faults((each.id for each in wanted), tests):
        raise ChecklistError("\n".join(found))
    return _HEAD + "".join(_section(each, [test for test in tests if each.id in test.numbers]) for each in wanted)


def _section(line: Line, tests: list[MarkedTest]) -> str:
    listed = "".join(f"- `{test.place}`: {test.summary}\n" for test in tests)
    return f"\n## {line.id}\n\n[{line.id}](firmware.md#{line.id.lower()}): {line.text}\n\n{listed}"


def refuse_unknown(items: Iterable[pytest.Item]) -> None:
    """Refuse a run in which a test names a line that docs/firmware.md lacks."""
    known = {each.id for each in lines()}
    for item in items:
        for mark in item.iter_markers(MARKER):
            if unknown := [each for each in mark.args if each not in known]:
                raise pytest.UsageError(f"{item.nodeid} names {unknown}, which docs/firmware.md lacks")


if __name__ == "__main__":
    try:
        sys.stdout.write(page())
    except ChecklistError as error:
        sys.exit(str(error))
