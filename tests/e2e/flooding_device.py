"""A device that floods: heartbeats at a fixed rate, whatever the answers are."""

import asyncio
import contextlib
import itertools
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

from tests.support import wire
from tests.support.wait import eventually

PER_SECOND: Final = 12_000
"""A fifth more than the ten thousand that are asked for, so that a late tick is no excuse."""

_TICK_SECONDS: Final = 0.02
_AT_ONCE: Final = int(PER_SECOND * _TICK_SECONDS)
_PUBACK_BYTES: Final = 4
_READ_BYTES: Final = 65_536
_UNSENT_BYTES: Final = 65_536
"""What the kernel keeps for a device that its network holds back."""
_LARGEST_ID: Final = 65_535


class FloodingDevice:
    """Publishes at QoS 1 and by the clock: what comes late is made up for, and no PUBACK is waited for.

    ``offered`` counts what it has given to its network, ``taken`` the broker's PUBACKs: where the broker does not read
    as fast, TCP holds back the rest on the device's side. ``held_back``: it makes no message that TCP does not take, so
    it floods as fast as the broker reads, not by the clock.
    """

    def __init__(self, device_id: str, *, held_back: bool = False) -> None:
        self._device_id = device_id
        self._held_back = held_back
        self._topic = f"devices/{device_id}/heartbeat"
        self._numbers = itertools.count()
        self.offered = self.taken = 0
        self.seconds = 0.0
        self.over = asyncio.Event()
        """Set when the other side has closed: no PUBACK comes any more."""

    @asynccontextmanager
    async def floods(self, host: str, port: int, password: str) -> AsyncIterator[None]:
        """Flood for as long as the block; then the connection is dropped with whatever is on its way."""
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(wire.connect_packet(self._device_id, self._device_id, password).encode())
        assert (await reader.readexactly(4))[3] == wire.ACCEPTED
        speak = self._speak_as_fast_as_read if self._held_back else self._speak
        parts = [asyncio.create_task(self._listen(reader)), asyncio.create_task(speak(writer))]
        try:
            yield
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def offers(self, more: int) -> None:
        """Wait until it has offered so many messages more."""
        wanted = self.offered + more
        await eventually(lambda: self.offered >= wanted, f"{more} more messages are offered")

    async def _speak(self, writer: asyncio.StreamWriter) -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.seconds = time.monotonic() - began
            while self.offered < self.seconds * PER_SECOND:
                self._offer(writer)

    async def _speak_as_fast_as_read(self, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNSENT_BYTES)
        while True:
            self._offer(writer)
            await writer.drain()
            await asyncio.sleep(0)

    def _offer(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(self._packets()))
        self.offered += _AT_ONCE

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        heard = 0
        with contextlib.suppress(ConnectionError):
            while answers := await reader.read(_READ_BYTES):
                heard += len(answers)
                self.taken = heard // _PUBACK_BYTES
        self.over.set()

    def _packets(self) -> Iterator[bytes]:
        """None of them was sent before."""
        for number in itertools.islice(self._numbers, _AT_ONCE):
            yield wire.publish_packet(self._topic, _beat(number), packet_id=number % _LARGEST_ID + 1).encode()

    def __str__(self) -> str:
        """Return the rates for a test's output."""
        offered, taken = self.offered / self.seconds, self.taken / self.seconds
        return f"{offered:,.0f} messages/s offered, {taken:,.0f}/s taken by the broker, for {self.seconds:.1f} s"


def _beat(number: int) -> bytes:
    hour, minute, second = number // 3_600 % 24, number // 60 % 60, number % 60
    sent_at = f"2026-11-{number // 86_400 + 1:02}T{hour:02}:{minute:02}:{second:02}Z"
    return json.dumps({"battery_percent": 50, "sent_at": sent_at}).encode()
