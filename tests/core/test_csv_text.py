"""CSV that a spreadsheet may open: RFC 4180, and no cell that it would run."""

import csv
import io

import pytest

from gateway.core import csv_text


def read(*records: list[object]) -> list[list[str]]:
    """What a reader of CSV finds."""
    return list(csv.reader(io.StringIO("".join(map(csv_text.line, records)), newline="")))


def test_a_record_is_quoted_as_rfc_4180_has_it() -> None:
    """CRLF at the end; commas, quotes and line breaks in quotes, quotes doubled; nothing is an empty cell."""
    assert csv_text.line(["a", 1, None, 'say "x", y']) == 'a,1,,"say ""x"", y"\r\n'
    cells: list[object] = ["a", 'quote " and , comma', "", "last"]
    assert read(cells, cells) == [cells, cells]


@pytest.mark.parametrize("beginning", ["=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_text_that_looks_like_a_formula_is_defused(beginning: str) -> None:
    """An apostrophe before it, so that a spreadsheet shows it."""
    ((cell,),) = read([f"{beginning}cmd|' /C calc'!A0"])
    assert cell.startswith("'")
    assert cell.endswith("cmd|' /C calc'!A0")


def test_numbers_and_other_text_stay_as_they_are() -> None:
    """A negative number is no formula; nor is a sign within a text."""
    assert read([-5, "a=b", "", "x -y", "Größe 3 €"]) == [["-5", "a=b", "", "x -y", "Größe 3 €"]]


def test_invisible_characters_are_written_out() -> None:
    """What turns the text around, and what begins a line."""
    assert read(["eu\u202ednop", "a\nb", "a\u200bb"]) == [["eu\\u202ednop", "a\\x0ab", "a\\u200bb"]]
