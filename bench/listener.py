"""A raw device that connects and listens for its reset: what the measurements of devices at a broker share."""

from __future__ import annotations

import asyncio
import time

from bench import wire


class Listener(asyncio.Protocol):
    """``listens`` is done when the broker has granted the subscription."""

    def __init__(self, name: str, password: str) -> None:
        self.name = name
        self.listens: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._password = password
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect and subscribe in one go."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        topic = f"devices/{self.name}/commands/factory_reset"
        transport.write(wire.connect(self.name, self._password) + wire.subscribe(topic))

    def data_received(self, data: bytes) -> None:
        """Take each packet with the instant at which its last byte was here."""
        now = time.perf_counter()
        self._buffer += data
        while packet := wire.take_packet(self._buffer):
            if packet[0] == wire.SUBACK:
                self.listens.set_result(None)
            else:
                self.take(*packet, now)

    def take(self, kind: int, body: bytes, now: float) -> None:
        """A packet other than the SUBACK."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits is told."""
        self.tell(self.listens, exc)

    def tell(self, waiting: asyncio.Future[None] | asyncio.Future[float], exc: Exception | None) -> None:
        """That what is waited for will not come."""
        if not waiting.done():
            waiting.set_exception(exc or ConnectionError(f"the broker closed the connection of {self.name}"))

    def leave(self) -> None:
        """Say good-bye."""
        self.transport.write(wire.DISCONNECT)
        self.transport.close()
