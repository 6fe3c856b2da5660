"""Recovery of a cancellation that was lost.

In Python 3.11 ``asyncio.wait_for``, which aiomqtt uses, drops a cancellation that coincides with the answer
(python/cpython issue 86296; gone in 3.12). The cancelled task would then just go on.
"""

from __future__ import annotations

import asyncio


def raise_if_cancelled() -> None:
    """Raise CancelledError if this task was cancelled and the cancellation was lost."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
