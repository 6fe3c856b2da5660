"""How much of what each client says waits for the gateway, so that one that runs wild makes nobody else wait."""

import asyncio
from collections import Counter


class Pressure:
    """Counts messages by their sender; a client of which more than ``most`` wait is not read until half are taken.

    The gateway takes the messages of all in the order of their arrival: so nobody is ever behind more than that many
    of one other client, and the rest stays with who sends too much, since TCP holds it back.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: Counter[str] = Counter()
        self._held: dict[str, asyncio.Event] = {}

    def put(self, sender: str) -> None:
        """A message of this client waits from now on."""
        self._waiting[sender] += 1

    def taken(self, sender: str) -> None:
        """One of them waits no more."""
        left = self._waiting[sender] - 1
        if left:
            self._waiting[sender] = left
        else:
            del self._waiting[sender]
        if left <= self._most // 2 and sender in self._held:
            self._held.pop(sender).set()

    def is_high(self, sender: str) -> bool:
        """Whether the client is to be held."""
        return self._waiting[sender] > self._most

    async def falls(self, sender: str) -> None:
        """Wait until no more than half of what may wait of a client does."""
        await self._held.setdefault(sender, asyncio.Event()).wait()
