"""Raw MQTT client of a device that subscribes to its reset, shared by measurements."""

from __future__ import annotations

import asyncio
import time

from bench import wire


class Listener(asyncio.Protocol):
    """Connection of one device; ``listens`` is done when the broker has granted the subscription."""

    def __init__(self, name: str, password: str) -> None:
        self.name = name
        self.listens: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._password = password
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send CONNECT and SUBSCRIBE in one write."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        topic = f"devices/{self.name}/commands/factory_reset"
        transport.write(wire.connect(self.name, self._password) + wire.subscribe(topic))

    def data_received(self, data: bytes) -> None:
        """Handle each packet, with the instant when its last byte had arrived."""
        now = time.perf_counter()
        self._buffer += data
        while packet := wire.take_packet(self._buffer):
            if packet[0] == wire.SUBACK:
                self.listens.set_result(None)
            else:
                self.take(*packet, now)

    def take(self, kind: int, body: bytes, now: float) -> None:
        """Handle a packet other than CONNACK and SUBACK."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the future that is waited for."""
        self.tell(self.listens, exc)

    def tell(self, waiting: asyncio.Future[None] | asyncio.Future[float], exc: Exception | None) -> None:
        """Fail a wait, since its result will not arrive."""
        if not waiting.done():
            waiting.set_exception(exc or ConnectionError(f"the broker closed the connection of {self.name}"))

    def leave(self) -> None:
        """Disconnect."""
        self.transport.write(wire.DISCONNECT)
        self.transport.close()
