"""The checklist of docs/firmware.md, and the page that lists its tests."""

from pathlib import Path

from tests.support.checklist import MARKER, faults, lines, page
from tests.support.guarantees import MarkedTest, marked_tests

DOCS = Path(__file__).parents[2] / "docs"
ON_THE_DEVICE = MarkedTest("tests/firmware/test_x.py::test_x", "It holds.", ("C1",))
ELSEWHERE = MarkedTest("tests/device_sim/test_x.py::test_x", "It holds.", ("C1",))


def test_every_line_has_its_id() -> None:
    """The numbers rise by one from C1, so that no line is left out."""
    wanted = (DOCS / "firmware.md").read_text(encoding="utf-8").count("- [ ] ")
    assert [each.id for each in lines()] == [f"C{number}" for number in range(1, wanted + 1)]


def test_a_line_needs_a_test_on_the_device() -> None:
    """A test of the simulator alone does not hold a line, and an id that the checklist lacks is named."""
    assert faults(["C1"], [ON_THE_DEVICE, ELSEWHERE]) == []
    assert faults(["C1"], [ELSEWHERE]) == ["no test in tests/firmware/ holds C1 of docs/firmware.md"]
    assert faults(["C2"], [ON_THE_DEVICE]) == [
        "tests/firmware/test_x.py::test_x names C1, which docs/firmware.md lacks",
        "no test in tests/firmware/ holds C2 of docs/firmware.md",
    ]


def test_the_page_is_up_to_date() -> None:
    """``make docs`` writes it."""
    assert (DOCS / "firmware-tests.md").read_text(encoding="utf-8") == page()


def test_every_marked_test_says_what_it_shows() -> None:
    """The first line of its docstring stands on the page."""
    assert [test.place for test in marked_tests(MARKER) if not test.summary] == []
