"""``gateway version``."""

from __future__ import annotations

import platform
import sqlite3

import click

from gateway import __version__
from gateway.runtime import build_info
from gateway.store.schema import steps

EPILOG = """\b
Example:
  gateway version
"""


@click.command(epilog=EPILOG)
def version() -> None:
    """Print versions, for a report of a fault.

    The gateway's own with its commit, the schema of the registry that it works with,
    and those of what it stands on.
    """
    click.echo(f"gateway {__version__}")
    click.echo(f"commit {build_info.commit() or 'unknown'}")
    click.echo(f"schema {steps()[-1]}")
    click.echo(f"Python {platform.python_version()}")
    click.echo(f"SQLite {sqlite3.sqlite_version}")
    click.echo(f"{platform.system()} {platform.release()} {platform.machine()}")


def in_one_line() -> str:
    """Return the output of ``--version``."""
    return f"gateway {__version__} (commit {build_info.commit() or 'unknown'}, schema {steps()[-1]})"
