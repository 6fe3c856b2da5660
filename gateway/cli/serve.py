"""``gateway serve``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from gateway.cli.options import SettingsCommand, with_settings
from gateway.runtime import gc_tuning, log

if TYPE_CHECKING:
    from gateway.settings.loading import Loaded

EPILOG = """\b
Examples:
  gateway serve
  gateway serve --data-dir /var/lib/gateway --http 127.0.0.1:0
  GATEWAY_BROKER=mqtts://gateway:PASSWORD@broker.lan gateway serve

Each option can stand in the environment as GATEWAY_… (--data-dir is GATEWAY_DATA_DIR) and in the TOML file (data_dir).
Give a broker's URL in one of those: other users of the machine can read the options of a running program.
"""


@click.command(cls=SettingsCommand, epilog=EPILOG)
@with_settings()
def serve(loaded: Loaded) -> int:
    """Run the gateway.

    Registry, HTTP API with a page at /, and MQTT in one process, with a broker of its own unless --broker names
    another.
    It stops on Ctrl-C or SIGTERM.
    """
    from gateway.app import serve as run  # noqa: PLC0415 - the whole gateway, which no other command needs
    from gateway.runtime.loop_priority import LoopPriority  # noqa: PLC0415 - the same

    gc_tuning.keep_imported()
    log.configure(
        loaded.settings.log_level,
        loaded.settings.log_format,
        lines_per_second=loaded.settings.log_lines_per_second,
    )
    loop_priority = LoopPriority()
    with asyncio.Runner(loop_factory=loop_priority.new_loop) as runner:
        return runner.run(run(loaded, loop_priority))
