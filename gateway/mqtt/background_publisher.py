"""Background publishers, and the guard around each: its faults are logged, and the connection to the broker stays.

Devices do not depend on what outlets publish. So only a lost connection, which ends everything, passes this guard.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from gateway.errors import StoreError
from gateway.mqtt.session import LinkError, PublishRefusedError, SubscriptionRefusedError
from gateway.mqtt.v3.cancellation import heed_cancellation

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.domain.messages import Message
    from gateway.mqtt.session import Session

log = structlog.get_logger()

RETRY_SECONDS: Final = 30.0
"""Pause after a fault of the code or a refusal by the broker, before the outlet runs or compares again."""
STORE_RETRY_SECONDS: Final = 1.0
"""The same after the registry could not be read or written: it may be well again at any moment."""


class BackgroundPublisher(Protocol):
    """What the gateway tells others over this connection of its own accord: nothing that a device goes by."""

    @property
    def name(self) -> str:
        """For the task."""

    def heard(self, message: Message) -> bool:
        """Whether the broker sent this because :meth:`compare` asked for it."""

    async def compare(self, session: Session) -> None:
        """Find out what the broker holds, and have put right what differs.

        Raises:
            LinkError: the connection is gone.
        """

    async def run(self, session: Session) -> None:
        """Tell until the connection is gone.

        Raises:
            LinkError: it is gone.
        """


class GuardedPublisher:
    """An outlet that never ends the connection by a fault of its code or of the store.

    ``ask_to_compare`` is called some time after a comparison failed.
    """

    def __init__(self, outlet: BackgroundPublisher, ask_to_compare: Callable[[], None]) -> None:
        self.name = outlet.name
        self._outlet = outlet
        self._ask_to_compare = ask_to_compare

    def heard(self, message: Message) -> bool:
        """Return whether the outlet asked for this message; False when it cannot read it."""
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
            heed_cancellation()

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
            heed_cancellation()  # a fault on the way out, such as a full disk, takes the place of the cancellation
            await asyncio.sleep(pause)

    def _tell(self, event: str, error: Exception) -> float:
        """Log a fault; return the pause after it. One of the registry is foreseen, and told without a traceback."""
        if isinstance(error, StoreError):
            log.warning(event, outlet=self.name, reason=error.message, retry_in_seconds=STORE_RETRY_SECONDS)
            return STORE_RETRY_SECONDS
        log.error(event, outlet=self.name, retry_in_seconds=RETRY_SECONDS, exc_info=error)
        return RETRY_SECONDS


def _is_link_lost(error: Exception) -> bool:
    """Return whether the connection is gone; after a refusal by the broker it is not."""
    return isinstance(error, LinkError) and not isinstance(error, PublishRefusedError | SubscriptionRefusedError)
