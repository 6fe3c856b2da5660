"""Retained topics with the ids of their devices, in little memory: 75 bytes each, where a dictionary takes 330."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

MOST_BYTES: Final = 32 << 20
"""About 430,000 topics. Mosquitto returns 372,000 at most with the queue of ``broker_config.sizes``."""


class NotedTopics:
    """A list that forgets what comes after MOST_BYTES."""

    def __init__(self) -> None:
        self._packed = bytearray()

    def add(self, topic: str, device_id: str) -> None:
        """Note a topic of a device. Neither may hold a blank or a line break."""
        if len(self._packed) < MOST_BYTES:
            self._packed += f"{topic} {device_id}\n".encode()

    def batches(self, size: int) -> Iterator[dict[str, str]]:
        """Yield the ids by topic, so many at a time."""
        batch: dict[str, str] = {}
        begin = 0
        while (end := self._packed.find(b"\n", begin)) >= 0:
            topic, _, device_id = self._packed[begin:end].decode().partition(" ")
            batch[topic] = device_id
            begin = end + 1
            if len(batch) == size:
                yield batch
                batch = {}
        if batch:
            yield batch
