"""CSV (RFC 4180) that a spreadsheet may open: text that looks like a formula is defused."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any, Final

from gateway.core.visible_text import escaped

MEDIA_TYPE: Final = "text/csv"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a cell that a spreadsheet takes for a formula (OWASP, CSV injection)."""
_FULL_WIDTH: Final = ("\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The same in full width, which some spreadsheets take for the plain ones."""


def line(cells: Iterable[Any]) -> str:
    """Return one record, with CRLF at its end. None is an empty cell; a number is written as it is."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow([_cell(each) for each in cells])
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Return a cell. Text that begins like a formula gets an apostrophe; invisible characters are written out."""
    if not isinstance(value, str):
        return "" if value is None else value
    shown = escaped(value)
    return f"'{shown}" if value.startswith((*_FORMULA, *_FULL_WIDTH)) else shown
