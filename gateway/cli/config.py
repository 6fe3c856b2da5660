"""``gateway config``."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.cli.options import SettingsCommand, with_settings
from gateway.settings.loading import FIELDS, group, plain, written

if TYPE_CHECKING:
    from gateway.settings.loading import Loaded

WIDTH_OF_A_PIPE: Final = 1000
EPILOG = """\b
Examples:
  gateway config
  gateway config --json
  gateway config --data-dir /var/lib/gateway
"""


@click.command(cls=SettingsCommand, epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings()
def config(loaded: Loaded, *, as_json: bool) -> None:
    """Show what is set, and by what.

    Each setting in force and where it came from; passwords are masked. With the options
    of serve it shows what serve would use.
    """
    if as_json:
        click.echo(json.dumps(as_document(loaded), indent=2))
    else:
        show(loaded)


def as_document(loaded: Loaded) -> dict[str, object]:
    """Return the settings with their sources, for JSON."""
    return {
        "config_file": None if loaded.config_file is None else str(loaded.config_file),
        "warnings": list(loaded.warnings),
        "settings": {
            name: {"value": plain(getattr(loaded.settings, name)), "source": loaded.sources[name]} for name in FIELDS
        },
    }


def show(loaded: Loaded) -> None:
    """Print the settings as tables, one per group. Through a pipe no line is cut or folded."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH_OF_A_PIPE
    for heading, names in itertools.groupby(FIELDS, key=group):
        console.print(Text(f"\n{heading}", style="bold"))
        console.print(table(loaded, list(names)))
    console.print(Text(f"\nFile: {loaded.config_file or 'none'}"))


def table(loaded: Loaded, names: list[str]) -> Table:
    """Return the table of one group: name, value, source; columns are equally wide in every group."""
    rows = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    rows.add_column(min_width=max(map(len, FIELDS)), no_wrap=True)
    rows.add_column(min_width=20, overflow="fold")
    rows.add_column(style="dim", overflow="fold")
    for name in names:
        rows.add_row(Text("  " + name), Text(written(getattr(loaded.settings, name))), Text(loaded.sources[name]))
    return rows
