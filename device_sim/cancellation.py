"""Recovery of cancellations that a library lost.

In Python 3.11 ``asyncio.wait_for`` drops a cancellation that arrives together with the result (python/cpython issue
86296). aiomqtt uses it to wait for answers. On a broken link aiomqtt also replaces the cancellation with its own error.
The cancelled task would then continue.
"""

import asyncio


def raise_if_cancelled() -> None:
    """Raise CancelledError if this task was cancelled and the cancellation was lost."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
