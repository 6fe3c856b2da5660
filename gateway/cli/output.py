"""Output of commands: tables and details for people, JSON for machines; and the question before destructive work.

Columns are as wide as their content: no id is ever cut or folded. On a terminal that is too narrow for a table each row
becomes a block with a line per column, and times are relative to now.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any, Final

import click
from rich.cells import cell_len

from gateway.core.text import relative_time
from gateway.core.visible_text import escaped, escaped_lines, isolated

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_NONE: Final = "-"
_GAP: Final = 2
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def cell(value: Any) -> str:
    """Return a value for a table: nothing in it moves the cursor, starts a line or turns its neighbours around."""
    if value is None or value == "":
        return _NONE
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return isolated(escaped(text))


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a heading and a line per row; a block per row where the terminal is narrower than that."""
    on_terminal = sys.stdout.isatty()
    shown = _cell_for_people if on_terminal else cell
    lines = [list(headings), *([shown(each) for each in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    if on_terminal and sum(widths) + _GAP * (len(widths) - 1) > shutil.get_terminal_size().columns:
        _blocks(lines)
        return
    for number, line in enumerate(lines):
        padded = [text + " " * (width - cell_len(text)) for text, width in zip(line, widths, strict=True)]
        click.secho("  ".join(padded).rstrip(), bold=number == 0)


def _blocks(lines: Sequence[Sequence[str]]) -> None:
    headings, *rows = lines
    width = max(map(cell_len, headings))
    for number, row in enumerate(rows):
        if number:
            click.echo()
        for name, text in zip(headings, row, strict=True):
            click.echo(f"{click.style(name.ljust(width), bold=True)}  {text}")


def _cell_for_people(value: Any) -> str:
    is_instant = isinstance(value, str) and _INSTANT.fullmatch(value)
    return relative_time(value) if is_instant else cell(value)


def details(facts: Mapping[str, Any]) -> None:
    """Print a line per fact."""
    width = max(map(len, facts))
    for name, value in facts.items():
        text = cell(value)
        if sys.stdout.isatty() and isinstance(value, str) and _INSTANT.fullmatch(value):
            text = f"{text} ({relative_time(value)})"
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {text}")


def as_json(document: Any) -> None:
    """Print one JSON document on one line."""
    click.echo(json.dumps(document))


def note(text: str) -> None:
    """Print a note on stderr, out of the way of programs that read stdout."""
    click.echo(escaped_lines(text), err=True)


def confirm(what: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone.

    Raises:
        click.UsageError: there is no terminal to ask at, and ``--yes`` was not given.
        click.ClickException: the answer was no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{what} There is no terminal to ask on: add --yes if you mean it. Nothing was done.")
    if not click.confirm(f"{escaped(what)} Go on?", err=True):
        raise click.ClickException("Nothing was done.")
