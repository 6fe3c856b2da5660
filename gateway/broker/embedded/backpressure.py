"""Backpressure per client: a client that sends too much is not read, and delays no other client."""

import asyncio
from collections import Counter


class Pressure:
    """Counts waiting messages by sender. A client with more than ``most`` of them is not read until half are handled.

    The gateway handles messages in the order of their arrival. So no client is ever behind more than that many of one
    other client. TCP holds the rest back at the sender.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: Counter[str] = Counter()
        self._held: dict[str, asyncio.Event] = {}

    def put(self, sender: str) -> None:
        """Count one more waiting message of this client."""
        self._waiting[sender] += 1

    def taken(self, sender: str) -> None:
        """Count one less."""
        left = self._waiting[sender] - 1
        if left:
            self._waiting[sender] = left
        else:
            del self._waiting[sender]
        if left <= self._most // 2 and sender in self._held:
            self._held.pop(sender).set()

    def is_high(self, sender: str) -> bool:
        """Return whether the client must not be read."""
        return self._waiting[sender] > self._most

    async def falls(self, sender: str) -> None:
        """Wait until at most half of the allowed messages of this client wait."""
        await self._held.setdefault(sender, asyncio.Event()).wait()
