"""aiomqtt's client without three faults.

On Python 3.11 its wait for an answer drops a cancellation that coincides with the answer (python/cpython issue 86296).
The task that subscribed would go on, and a stop of the gateway would wait for it without end.

Two more are in its handler for lost connections. Both log an error where nothing is wrong. A cancelled connect leaves a
cancelled future. The handler asks it for its exception, which raises CancelledError in the event loop. And a connection
that is lost while its user leaves sets an exception that is never retrieved.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from typing import Any, TypeVar

import aiomqtt

T = TypeVar("T")


class QuietClient(aiomqtt.Client):
    """A client that heeds each cancellation, and logs no error when a connection is lost as it begins or ends."""

    async def _wait_for(self, fut: Awaitable[T], timeout: float | None) -> T:  # noqa: ASYNC109 - aiomqtt's
        """Wait for an answer, by default for the ``timeout`` of the client. The base class uses ``asyncio.wait_for``.

        Raises:
            MqttError: it did not arrive within ``timeout`` seconds.
        """
        seconds = self.timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                return await fut
        except TimeoutError:
            raise aiomqtt.MqttError("Operation timed out") from None

    def _on_disconnect(self, *args: Any, **kwargs: Any) -> None:
        if self._connected.cancelled():
            return
        super()._on_disconnect(*args, **kwargs)
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()  # who waits for it still gets it
