"""Coalescing of reads: how long heartbeats gather before one commit stores them, and what shortens that."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import Final

ATTENTIVE_SECONDS: Final = 2.0
"""Time after a command went out or was acknowledged in which its device is likely to answer."""
BRIEFLY_SECONDS: Final = 0.02
"""How long heartbeats gather meanwhile, and with them an acknowledgement that arrives after the first of them."""
WAITED_FOR_SECONDS: Final = 0.005
"""How long they gather where devices wait for the commit. A commit costs a tenth of that, a PUBACK half a pause."""


class ReadCoalescer:
    """Pauses in one task, one after the other. Each ends early when an answer is expected that a client waits for.

    No pause is longer than ``longest`` seconds.
    """

    def __init__(self, longest: float = math.inf) -> None:
        self._longest = longest
        self._over = asyncio.Event()
        self._attentive_until = 0.0

    @property
    def is_brief(self) -> bool:
        """Return whether the next pause is short."""
        return asyncio.get_running_loop().time() < self._attentive_until

    async def wait(self, seconds: float) -> None:
        """Pause for so long, or for a short time."""
        self._over.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(self._longest, BRIEFLY_SECONDS if self.is_brief else seconds)):
                await self._over.wait()

    def expect_reply(self) -> None:
        """Expect an answer of a device: end this pause, and keep the next ones short for a while."""
        self._attentive_until = asyncio.get_running_loop().time() + ATTENTIVE_SECONDS
        self._over.set()

    def end(self) -> None:
        """End this pause."""
        self._over.set()
