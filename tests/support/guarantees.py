"""The guarantees of docs/protocol.md, and the page that lists the tests which hold each of them.

A test names what it holds by ``@pytest.mark.guarantee("G4")``, or by several numbers.
``python -m tests.support.guarantees`` prints docs/guarantees.md. It fails when a test names a number that the protocol
lacks, or when a guarantee has no test.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

MARKER = "guarantee"
_ROOT = Path(__file__).parents[2]
_ROW = re.compile(r'^\| <a id="g\d+"></a>(?P<number>G\d+) \| (?P<case>[^|]+) \| (?P<promise>.+) \|$', re.MULTILINE)
_HEAD = """\
# Which tests hold which guarantee

The gateway's guarantees stand in [the protocol](protocol.md#what-the-gateway-guarantees). A test names those that it
holds by `@pytest.mark.guarantee("G1")`. `make docs` collects this page from the tests. `make check` fails when a
guarantee has no test.
"""


@dataclass(frozen=True)
class Guarantee:
    """One row of the tables in docs/protocol.md."""

    number: str
    case: str
    promise: str


@dataclass(frozen=True)
class MarkedTest:
    """A test, by its path and name, with the first line of its docstring and the numbers that its marker names."""

    place: str
    summary: str
    numbers: tuple[str, ...]


class GuaranteeError(Exception):
    """Guarantees and tests do not match; the text names each case."""


def guarantees() -> list[Guarantee]:
    """Return the guarantees in the order of docs/protocol.md."""
    text = (_ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    return [_guarantee(*row.groups()) for row in _ROW.finditer(text)]


def _guarantee(number: str, case: str, promise: str) -> Guarantee:
    """Read a row of the first table, or one of the table of token states, which has a column more."""
    http, column, mqtt = promise.partition(" | ")
    return (
        Guarantee(number, f"token {case}", f"HTTP: {http}; MQTT: {mqtt}") if column else Guarantee(number, case, http)
    )


def marked_tests(marker: str = MARKER) -> list[MarkedTest]:
    """Return the tests with this marker, sorted by path, then in the order of their file."""
    return [test for path in sorted((_ROOT / "tests").rglob("test_*.py")) for test in _marked_in(path, marker)]


def _marked_in(path: Path, marker: str) -> Iterator[MarkedTest]:
    text = path.read_text(encoding="utf-8")
    if f"mark.{marker}(" not in text:
        return
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (numbers := _numbers(node, marker)):
            summary = (ast.get_docstring(node) or "").partition("\n")[0]
            yield MarkedTest(f"{path.relative_to(_ROOT).as_posix()}::{node.name}", summary, numbers)


def _numbers(test: ast.FunctionDef | ast.AsyncFunctionDef, marker: str) -> tuple[str, ...]:
    calls = (each for each in test.decorator_list if isinstance(each, ast.Call))
    named = [call.args for call in calls if ast.unparse(call.func) == f"pytest.mark.{marker}"]
    # A starred argument is a test of everything: it holds no number by its name, so each still needs a test.
    return tuple(
        ast.literal_eval(each) for arguments in named for each in arguments if not isinstance(each, ast.Starred)
    )


def faults(known: Iterable[str], tests: Iterable[MarkedTest]) -> list[str]:
    """Return what does not match: a number that docs/protocol.md lacks, and a guarantee that no test names."""
    known, tests = list(known), list(tests)
    named = [(test.place, number) for test in tests for number in test.numbers]
    held = {number for _, number in named}
    unknown = [f"{place} names {each}, which docs/protocol.md lacks" for place, each in named if each not in known]
    return unknown + [f"no test holds {number} of docs/protocol.md" for number in known if number not in held]


def page() -> str:
    """Return the text of docs/guarantees.md.

    Raises:
        GuaranteeError: a guarantee has no test, or a test names a number without a guarantee.
    """
    promised, tests = guarantees(), marked_tests()
    if found := faults((each.number for each in promised), tests):
        raise GuaranteeError("\n".join(found))
    return _HEAD + "".join(_section(each, [test for test in tests if each.number in test.numbers]) for each in promised)


def _section(guarantee: Guarantee, tests: list[MarkedTest]) -> str:
    lines = "".join(f"- `{test.place}`: {test.summary}\n" for test in tests)
    link = f"[{guarantee.number}](protocol.md#{guarantee.number.lower()})"
    return f"\n## {guarantee.number}: {guarantee.case}\n\n{link}: {guarantee.promise}\n\n{lines}"


def refuse_unknown(items: Iterable[pytest.Item]) -> None:
    """Refuse a run in which a test names a guarantee that docs/protocol.md lacks."""
    known = {each.number for each in guarantees()}
    for item in items:
        for mark in item.iter_markers(MARKER):
            if unknown := [each for each in mark.args if each not in known]:
                raise pytest.UsageError(f"{item.nodeid} names {unknown}, which docs/protocol.md lacks")


if __name__ == "__main__":
    try:
        sys.stdout.write(page())
    except GuaranteeError as error:
        sys.exit(str(error))
