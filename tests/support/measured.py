"""What tests measured, told at the end of a run: figures for people, never a reason to fail.

def test_something(record_property: Measured) -> None:
record_property(MEASURED, "12,000 messages/s offered")
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

MEASURED: Final = "measured"
Measured = Callable[[str, object], None]
"""What pytest's fixture ``record_property`` is."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print a line for each figure, below the test that it is of."""
    lines = list(_lines(terminalreporter.getreports("passed")))
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)


def _lines(reports: list[pytest.TestReport]) -> Iterator[str]:
    for report in sorted(reports, key=lambda each: each.nodeid):
        figures = [value for name, value in report.user_properties if name == MEASURED]
        if figures and report.when == "call":
            yield report.nodeid
            yield from (f"  {each}" for each in figures)
