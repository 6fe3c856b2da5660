"""Background publishers, and a guard around each: a fault is logged, and the connection to the broker stays.

Devices do not depend on what these publish. Only a lost connection, which ends everything, passes the guard.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from gateway.errors import StoreError
from gateway.mqtt.session import LinkError, PublishRefusedError, SubscriptionRefusedError
from gateway.mqtt.v3.cancellation import raise_if_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.domain.messages import Message
    from gateway.mqtt.session import Session

log = structlog.get_logger()

RETRY_SECONDS: Final = 30.0
"""Pause after a fault of the code or a refusal by the broker, before the publisher runs or compares again."""
STORE_RETRY_SECONDS: Final = 1.0
"""Pause after the registry could not be read or written. It may recover at any moment."""


class BackgroundPublisher(Protocol):
    """Publishes to others than devices over this connection. No device depends on it."""

    @property
    def name(self) -> str:
        """Return the name of its task."""

    def heard(self, message: Message) -> bool:
        """Return whether the broker sent this because :meth:`compare` subscribed to it."""

    async def compare(self, session: Session) -> None:
        """Read what the broker holds, and mark what differs.

        Raises:
            LinkError: the connection is gone.
        """

    async def run(self, session: Session) -> None:
        """Publish until the connection is gone.

        Raises:
            LinkError: it is gone.
        """


class GuardedPublisher:
    """A publisher whose faults of code or store never end the connection.

    ``ask_to_compare`` is called some time after a comparison failed.
    """

    def __init__(self, outlet: BackgroundPublisher, ask_to_compare: Callable[[], None]) -> None:
        self.name = outlet.name
        self._outlet = outlet
        self._ask_to_compare = ask_to_compare

    def heard(self, message: Message) -> bool:
        """Return whether the publisher subscribed to this message; False when it cannot read it."""
        try:
            return self._outlet.heard(message)
        except Exception:
            log.exception("outlet.message_not_read", outlet=self.name, topic=message.topic)
            return False

    async def compare(self, session: Session) -> None:
        """Compare with the broker; after a fault ask for another comparison later.

        Raises:
            LinkError: the connection is gone.
        """
        try:
            await self._outlet.compare(session)
        except Exception as error:
            if _is_link_lost(error):
                raise
            pause = self._tell("outlet.not_compared", error)
            asyncio.get_running_loop().call_later(pause, self._ask_to_compare)
            raise_if_cancelled()

    async def run(self, session: Session) -> None:
        """Publish until the connection is gone; after a fault pause and run again.

        Raises:
            LinkError: the connection is gone.
        """
        while True:
            try:
                return await self._outlet.run(session)
            except Exception as error:
                if _is_link_lost(error):
                    raise
                pause = self._tell("outlet.failed", error)
            raise_if_cancelled()  # a fault during the exit, such as a full disk, replaces the cancellation
            await asyncio.sleep(pause)

    def _tell(self, event: str, error: Exception) -> float:
        """Log a fault and return the pause after it. A fault of the registry is expected, so it has no traceback."""
        if isinstance(error, StoreError):
            log.warning(event, outlet=self.name, reason=error.message, retry_in_seconds=STORE_RETRY_SECONDS)
            return STORE_RETRY_SECONDS
        log.error(event, outlet=self.name, retry_in_seconds=RETRY_SECONDS, exc_info=error)
        return RETRY_SECONDS


def _is_link_lost(error: Exception) -> bool:
    """Return whether the connection is gone. After a refusal by the broker it is not."""
    return isinstance(error, LinkError) and not isinstance(error, PublishRefusedError | SubscriptionRefusedError)
