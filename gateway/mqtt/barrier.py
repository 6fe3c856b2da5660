"""A barrier in the stream from the broker: a message that the gateway publishes and receives back.

A broker keeps one queue for the gateway's session. So when the gateway has committed everything up to its own message,
it has committed everything that the broker took before that message was published. Whoever must not decide on
old facts passes the barrier first: a cancel of a command, silence, the first use of a new credential.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from gateway.entropy import Entropy
from gateway.mqtt.session import LinkError, Session

MARK_BYTES: Final = 16


@dataclass(frozen=True, eq=False)
class _Attachment:
    """A connection over which marks travel; ``gone`` is done when it has ended."""

    session: Session
    gone: asyncio.Future[None]


class Barrier:
    """Publishes marks on ``topic``, to which the gateway's session is subscribed for as long as it runs."""

    def __init__(self, topic: str, entropy: Entropy) -> None:
        self.topic = topic
        self._entropy = entropy
        self._attachment: _Attachment | None = None
        self._attached = asyncio.Event()
        self._waiting: dict[bytes, asyncio.Future[None]] = {}

    @contextmanager
    def attached(self, session: Session) -> Iterator[None]:
        """Marks travel over this session, which is subscribed to the topic, until the block ends."""
        attachment = _Attachment(session, asyncio.get_running_loop().create_future())
        self._attachment = attachment
        self._attached.set()
        try:
            yield
        finally:
            self._attachment = None
            self._attached.clear()
            attachment.gone.set_result(None)

    def received(self, payload: bytes) -> None:
        """A mark has come back, and everything before it is committed. One of an earlier process means nothing."""
        mark = self._waiting.get(payload)
        if mark is not None and not mark.done():
            mark.set_result(None)

    async def passed(self, seconds: float) -> bool:
        """Wait until everything is committed that the broker took before this call; ``False`` after ``seconds``.

        It outlasts a connection that is lost: the mark is published again over the next one.
        """
        try:
            async with asyncio.timeout(seconds):
                while not await self._once():
                    pass
        except TimeoutError:
            return False
        return True

    async def _once(self) -> bool:
        """Whether a mark came back over the connection that there is now, or over the next one."""
        await self._attached.wait()
        attachment = self._attachment
        if attachment is None:  # it ended before this task had its turn
            return False
        payload = self._entropy(MARK_BYTES).hex().encode()
        mark = self._waiting[payload] = asyncio.get_running_loop().create_future()
        try:
            attachment.session.attend()
            await attachment.session.publish(self.topic, payload)
            await asyncio.wait((mark, attachment.gone), return_when=asyncio.FIRST_COMPLETED)
        except LinkError:
            await asyncio.wait((attachment.gone,))
        finally:
            del self._waiting[payload]
        return mark.done()
