"""A cancellation that got lost on the way up is heeded here.

In Python 3.11 ``asyncio.wait_for``, by which aiomqtt waits for answers, drops one that comes in the same moment as the
answer (python/cpython issue 86296), and aiomqtt puts an error of its own in the place of one that meets a broken link.
Whoever was cancelled would then just go on.
"""

import asyncio


def heed_cancellation() -> None:
    """Raise CancelledError if this task was cancelled and the cancellation was lost."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
