"""Reference of the command line: ``python -m gateway.cli.docs_commands docs/cli.md`` writes the help texts into it."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from gateway.cli import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADING: Final = "\n## Commands\n"
_WIDTH: Final = 110


def manual() -> str:
    """Return the text below the heading: every command with its help."""
    return "".join(f"\n### {name}\n\n```\n{text}\n```\n" for name, text in _pages(cli, "gateway"))


def _pages(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    context = click.Context(command, info_name=name, terminal_width=_WIDTH, help_option_names=["-h", "--help"])
    yield name, inspect.cleandoc(command.get_help(context))
    if isinstance(command, click.Group):
        for word, below in command.commands.items():
            yield from _pages(below, f"{name} {word}")


def rewrite(file: Path) -> None:
    """Write the text below the heading again; the text above it stays."""
    above, heading, _ = file.read_text(encoding="utf-8").partition(HEADING)
    file.write_text(above + heading + manual(), encoding="utf-8")


if __name__ == "__main__":
    rewrite(Path(sys.argv[1]))
