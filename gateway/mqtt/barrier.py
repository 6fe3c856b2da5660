"""Barrier in the stream from the broker: a mark that the gateway publishes and receives back.

A broker keeps one queue for the gateway's session. When the gateway has committed everything up to its own mark, it has
committed everything that the broker received before the mark was published. A decision that needs current facts passes
the barrier first: the cancel of a command, a silence, the first use of a new credential.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from gateway.core.randomness import Entropy
from gateway.mqtt.session import LinkError, Session

MARK_BYTES: Final = 16


@dataclass(frozen=True, eq=False)
class _Attachment:
    """A connection that carries marks; ``gone`` is done when it has ended."""

    session: Session
    gone: asyncio.Future[None]


class Barrier:
    """Publishes marks on ``topic``. The gateway's session is subscribed to it while the gateway runs.

    ``made`` makes the payload of a mark.
    """

    def __init__(self, topic: str, entropy: Entropy, made: Callable[[str], bytes]) -> None:
        self._topic = topic
        self._entropy = entropy
        self._made = made
        self._attachment: _Attachment | None = None
        self._attached = asyncio.Event()
        self._waiting: dict[str, asyncio.Future[None]] = {}

    @contextmanager
    def attached(self, session: Session) -> Iterator[None]:
        """Send marks over this session, which is subscribed to the topic, until the block ends."""
        attachment = _Attachment(session, asyncio.get_running_loop().create_future())
        self._attachment = attachment
        self._attached.set()
        try:
            yield
        finally:
            self._attachment = None
            self._attached.clear()
            attachment.gone.set_result(None)

    def received(self, mark: str) -> None:
        """Note that a mark has come back, and everything before it is committed. Old marks are ignored."""
        waiting = self._waiting.get(mark)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def passed(self, seconds: float) -> bool:
        """Wait until everything is committed that the broker received before this call. Return False after ``seconds``.

        It survives a lost connection: the mark is published again over the next one.
        """
        try:
            async with asyncio.timeout(seconds):
                while not await self._once():
                    pass
        except TimeoutError:
            return False
        return True

    async def _once(self) -> bool:
        """Return whether a mark came back over the present connection, or over the next one."""
        await self._attached.wait()
        attachment = self._attachment
        if attachment is None:  # it ended before this task ran
            return False
        name = self._entropy(MARK_BYTES).hex()
        mark = self._waiting[name] = asyncio.get_running_loop().create_future()
        try:
            attachment.session.expect_reply()
            await attachment.session.publish(self._topic, self._made(name))
            await asyncio.wait((mark, attachment.gone), return_when=asyncio.FIRST_COMPLETED)
        except LinkError:
            await asyncio.wait((attachment.gone,))
        finally:
            del self._waiting[name]
        return mark.done()
