"""``gateway docs``: the documentation that came with this version, on the terminal.

A wheel carries the pages in ``gateway/docs``, so that messages can name a page without a checkout or a network; in a
checkout they are read from ``docs/``.
"""

from __future__ import annotations

import difflib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from gateway.cli.output import table

if TYPE_CHECKING:
    from collections.abc import Mapping

EPILOG = """\b
Examples:
  gateway docs                    list the pages
  gateway docs mosquitto          read one
  gateway docs runbook | less     as Markdown, through a pipe
"""
_PACKAGE: Final = Path(__file__).parent.parent
_PLACES: Final = (_PACKAGE / "docs", _PACKAGE.parent / "docs")
_COMMENT: Final = re.compile(r"^<!-- .*? -->\n", re.MULTILINE)


def pages() -> Mapping[str, Path]:
    """Return the file of each page by its name: its path below ``docs/``, without ``.md``."""
    folder = next((each for each in _PLACES if (each / "index.md").is_file()), None)
    if folder is None:
        return {}
    return {each.relative_to(folder).with_suffix("").as_posix(): each for each in sorted(folder.rglob("*.md"))}


def _title(text: str) -> str:
    return next((line[2:].strip() for line in text.splitlines() if line.startswith("# ")), "")


def _complete(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    del context, parameter  # click's signature
    return [name for name in pages() if name.startswith(typed)]


@click.command(epilog=EPILOG)
@click.argument("page", required=False, shell_complete=_complete)
@click.option("--raw", is_flag=True, help="Print Markdown on a terminal, too.")
def docs(page: str | None, *, raw: bool) -> None:
    """Read the documentation of this version.

    Without a page: the list of them. On a terminal a page is formatted and shown in the pager; through a pipe it is
    Markdown.
    """
    found = pages()
    if not found:
        raise click.ClickException("This installation has no documentation: install the wheel, or use a checkout.")
    if page is None:
        table(("PAGE", "WHAT IT HOLDS"), ((name, _title(file.read_text("utf-8"))) for name, file in found.items()))
        return
    name = page.removeprefix("docs/").removesuffix(".md")
    if name not in found:
        raise click.UsageError(f"There is no page {page!r}.{_did_you_mean(name, list(found))}")
    text = _COMMENT.sub("", found[name].read_text("utf-8"))
    if raw or not sys.stdout.isatty():
        click.echo(text, nl=False)
    else:
        _show(text)


def _did_you_mean(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else " 'gateway docs' lists them."


def _show(text: str) -> None:
    from rich.console import Console  # noqa: PLC0415 - 5 MB that no other command needs
    from rich.markdown import Markdown  # noqa: PLC0415 - the same

    console = Console()
    with console.pager(styles=console.color_system is not None):
        console.print(Markdown(text))
