"""aiomqtt's client without two faults of its handler for lost connections.

Both log an error where nothing is wrong. A cancelled connect leaves a cancelled future. The handler asks it for its
exception, which raises CancelledError in the event loop. And a connection that is lost while its user leaves sets an
exception that is never retrieved.
"""

from __future__ import annotations

from typing import Any

import aiomqtt


class QuietClient(aiomqtt.Client):
    """A client that logs no error when a connection is lost during its connect or its disconnect."""

    def _on_disconnect(self, *args: Any, **kwargs: Any) -> None:
        if self._connected.cancelled():
            return
        super()._on_disconnect(*args, **kwargs)
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()  # who waits for it still gets it
