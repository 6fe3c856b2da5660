"""For how long heartbeats gather before they are taken together, and what cuts that short."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import Final

ATTENTIVE_SECONDS: Final = 2.0
"""After a command went out or was acknowledged: its device may say the next word."""
BRIEFLY_SECONDS: Final = 0.02
"""How long heartbeats gather meanwhile, and with them an acknowledgement that comes after the first of them."""
WAITED_FOR_SECONDS: Final = 0.005
"""How long they gather where devices wait for the commit: a commit costs a tenth of that, a PUBACK half a pause."""


class ReadCoalescer:
    """One pause after the other, in one task; each ends early when something is expected that somebody waits for.

    None is longer than ``longest`` seconds.
    """

    def __init__(self, longest: float = math.inf) -> None:
        self._longest = longest
        self._over = asyncio.Event()
        self._attentive_until = 0.0

    @property
    def is_brief(self) -> bool:
        """Whether the next one will be."""
        return asyncio.get_running_loop().time() < self._attentive_until

    async def wait(self, seconds: float) -> None:
        """Pause for so long, or briefly."""
        self._over.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(self._longest, BRIEFLY_SECONDS if self.is_brief else seconds)):
                await self._over.wait()

    def expect_reply(self) -> None:
        """A device may say something soon: end this pause, and be brief for a while."""
        self._attentive_until = asyncio.get_running_loop().time() + ATTENTIVE_SECONDS
        self._over.set()

    def end(self) -> None:
        """End this pause."""
        self._over.set()
