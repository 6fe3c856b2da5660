"""The guarantees of docs/protocol.md, their tests, and the page that brings both together."""

from pathlib import Path

from tests.support.guarantees import MarkedTest, faults, guarantees, marked_tests, page

DOCS = Path(__file__).parents[2] / "docs"
HELD = MarkedTest("tests/test_x.py::test_x", "It holds.", ("G1",))


def test_the_page_is_up_to_date() -> None:
    """``make docs`` writes it."""
    assert (DOCS / "guarantees.md").read_text(encoding="utf-8") == page()


def test_every_row_of_the_protocol_is_a_guarantee() -> None:
    """The numbers rise by one from G1, so that no row is left out."""
    section = (DOCS / "protocol.md").read_text(encoding="utf-8").partition("## What the gateway guarantees")[2]
    rows = [
        line for line in section.partition("\n## ")[0].splitlines() if line.startswith("| ") and "| no. |" not in line
    ]
    assert [each.number for each in guarantees()] == [f"G{number}" for number in range(1, len(rows) + 1)]


def test_every_test_of_a_guarantee_has_a_summary() -> None:
    """The first line of its docstring stands on the page."""
    assert [test.place for test in marked_tests() if not test.summary] == []


def test_unknown_and_untested_guarantees_are_named() -> None:
    """A guarantee without a test, and a test of a guarantee that there is not."""
    assert faults(["G1"], [HELD]) == []
    assert faults(["G1", "G2"], [HELD]) == ["no test holds G2 of docs/protocol.md"]
    missing = "tests/test_x.py::test_x names G1, which docs/protocol.md lacks"
    assert faults(["G2"], [HELD]) == [missing, "no test holds G2 of docs/protocol.md"]
