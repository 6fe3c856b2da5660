"""``gateway version``."""

from __future__ import annotations

import platform
import sqlite3

import click

from gateway import __version__

EPILOG = """\b
Example:
  gateway version
"""


@click.command(epilog=EPILOG)
def version() -> None:
    """Print versions, for a report of a fault.

    The gateway's own, and those of what it stands on.
    """
    click.echo(f"gateway {__version__}")
    click.echo(f"Python {platform.python_version()}")
    click.echo(f"SQLite {sqlite3.sqlite_version}")
    click.echo(f"{platform.system()} {platform.release()} {platform.machine()}")
