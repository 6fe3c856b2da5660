"""What commands print: tables and details for people, JSON for machines; and the question before what destroys.

Columns are as wide as what stands in them, on a terminal and through a pipe: no id is ever cut or folded.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

import click
from rich.cells import cell_len

from gateway.visible_text import escaped, isolated

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_NONE: Final = "-"


def cell(value: Any) -> str:
    """A value as it stands in a table: nothing in it moves the cursor, starts a line or turns its neighbours around."""
    if value is None or value == "":
        return _NONE
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return isolated(escaped(text))


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A heading and a line per row."""
    lines = [list(headings), *([cell(each) for each in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        padded = [text + " " * (width - cell_len(text)) for text, width in zip(line, widths, strict=True)]
        click.secho("  ".join(padded).rstrip(), bold=number == 0)


def details(facts: Mapping[str, Any]) -> None:
    """A line per fact."""
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {cell(value)}")


def as_json(document: Any) -> None:
    """One JSON document on one line."""
    click.echo(json.dumps(document))


def note(text: str) -> None:
    """A word to the person, on stderr, so that it is in the way of no program that reads stdout."""
    click.echo(text, err=True)


def confirm(what: str, *, yes: bool) -> None:
    """Ask before something that cannot be taken back.

    Raises:
        click.UsageError: nobody is there to ask, and ``--yes`` was not given.
        click.ClickException: the answer was no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{what} There is no terminal to ask on: add --yes if you mean it. Nothing was done.")
    if not click.confirm(f"{what} Go on?", err=True):
        raise click.ClickException("Nothing was done.")
