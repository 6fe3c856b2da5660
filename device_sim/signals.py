"""End of a command by SIGINT or SIGTERM."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from device_sim.cli_errors import failure
from device_sim.errors import SimulatorError


def run_until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end, or until SIGINT or SIGTERM, which also end it cleanly."""
    try:
        asyncio.run(_stoppable(work))
    except* SimulatorError as errors:
        raise failure(_first(errors)) from None


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _stoppable(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
