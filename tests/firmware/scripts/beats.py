"""Prints how many heartbeats are due in three intervals, after a `Retry-After` that is over and was never used."""

import asyncio
import sys
import time

from board import Board
from flash import Flash
from runtime import Runtime

INTERVAL_SECONDS = 0.2


async def main(path):
    """Count what comes of the loop."""
    config = {"heartbeat_seconds": INTERVAL_SECONDS}
    runtime = Runtime(Flash(path), config, Board(config))
    runtime._ask_again_at = time.ticks_add(time.ticks_ms(), -1000)  # noqa: SLF001  # what a 429 sets
    end = time.ticks_add(time.ticks_ms(), int(3 * INTERVAL_SECONDS * 1000))
    due = []

    async def feed(event):
        due.append(event)

    runtime._feed = feed  # noqa: SLF001  # what passes an event to the state machine
    while time.ticks_diff(end, time.ticks_ms()) > 0:
        await runtime.step()
    print(due.count(("heartbeat_due",)))


asyncio.run(main(sys.argv[1]))
