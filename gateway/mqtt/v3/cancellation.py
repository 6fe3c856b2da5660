"""A cancellation that was forgotten on the way up is remembered here.

In Python 3.11 ``asyncio.wait_for``, by which aiomqtt waits for answers, drops a cancellation that comes in the same
moment as the answer (python/cpython issue 86296; gone in 3.12). Whoever was cancelled would then just go on.
"""

from __future__ import annotations

import asyncio


def heed_cancellation() -> None:
    """Raise CancelledError if this task was cancelled and nobody has dealt with that yet."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
