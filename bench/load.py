"""Devices of the load: ``python -m bench.load``, a separate process, so that it does not slow the measured programs.

Every device has its own connection, password and topic, as the broker's access rules require. All messages are made
beforehand, and each device sends all of its messages in one write. It does not read acknowledgements but counts them in
the socket buffer: reading each would cost as much as the broker. So the devices need almost no CPU while they send. The
measurement covers only the broker and its subscribers.

The process reads an :class:`Order` (a line of JSON), prints ``ready`` when every device is connected, and waits for a
line. Then it sends, and prints a :class:`Sent` when the broker has acknowledged everything.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import sys
import termios
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from bench import wire

PAYLOAD_BYTES: Final = 250
FIRST_SENT_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_CONNECTING_AT_ONCE: Final = 50  # the broker's listen backlog is 100
_GUARD_SECONDS: Final = 120.0
_LOOK_SECONDS: Final = 0.002


@dataclass(frozen=True)
class Order:
    """Messages to send: ``each`` heartbeats from each device (id, password)."""

    host: str
    port: int
    devices: Sequence[tuple[str, str]]
    each: int
    first: int = 0
    """Number of the first heartbeat. A registry that already has a number does not store it again."""


@dataclass(frozen=True)
class Sent:
    """First and last instant, in seconds of the monotonic clock, which all processes share."""

    began: float
    ended: float


class Device(asyncio.Protocol):
    """One device: connects, sends all messages in one write, counts the acknowledgements."""

    def __init__(self, name: str, password: str, each: int, first: int) -> None:
        loop = asyncio.get_running_loop()
        self.connected: asyncio.Future[None] = loop.create_future()
        self._greeting = wire.connect(name, password)
        self._burst = burst(name, each, first)
        self._awaited = wire.ACK_BYTES * each

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send CONNECT."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._greeting)

    def data_received(self, data: bytes) -> None:
        """Read the CONNACK and nothing after it."""
        if data == wire.CONNECTED:
            self.connected.set_result(None)
        else:
            self._fail(ConnectionError(f"a device was refused: {data[:8].hex()}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the wait: the broker must not disconnect before everything is sent."""
        self._fail(exc or ConnectionError("the broker closed the connection of a device"))

    def _fail(self, error: Exception) -> None:
        if not self.connected.done():
            self.connected.set_exception(error)

    def send(self) -> None:
        """Send every message."""
        self._transport.pause_reading()
        self._transport.write(self._burst)

    async def answers(self) -> None:
        """Wait until all acknowledgements are in the socket buffer."""
        while self._lying_there() < self._awaited:  # noqa: ASYNC110 - no event reports it, since the data is not read
            await asyncio.sleep(_LOOK_SECONDS)

    def _lying_there(self) -> int:
        """Return the number of bytes that have arrived and were not read."""
        waiting = array("i", [0])
        fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.FIONREAD, waiting)
        return waiting[0]

    def leave(self) -> None:
        """Disconnect."""
        self._transport.write(wire.DISCONNECT)
        self._transport.close()


def burst(name: str, each: int, first: int = 0) -> bytes:
    """Return the heartbeats of one device. Each has a different minute, since a repeated one is stored once."""
    topic = f"devices/{name}/heartbeat"
    return b"".join(wire.publish(topic, heartbeat(first + number), number + 1) for number in range(each))


def heartbeat(number: int) -> bytes:
    """Return a heartbeat with every field of health, PAYLOAD_BYTES long."""
    facts: dict[str, object] = {
        "battery_percent": 30 + number % 70,
        "storage_used_mb": 512 + number,
        "storage_total_mb": 8_192,
        "signal_strength_dbm": -61,
        "firmware_version": "",
        "device_state": "idle",
        "pending_recordings": number % 7,
        "flags": 8,
        "connection_type": ["wifi"],
        "sent_at": (FIRST_SENT_AT + timedelta(minutes=number)).isoformat(),
    }
    facts["firmware_version"] = "1.4.2+bench".ljust(PAYLOAD_BYTES - len(_compact(facts)), "0")
    payload = _compact(facts)
    assert len(payload) == PAYLOAD_BYTES, "the version fills up what the other fields leave"
    return payload


def _compact(facts: dict[str, object]) -> bytes:
    return json.dumps(facts, separators=(",", ":")).encode()


async def main() -> None:
    """Execute one order."""
    order = Order(**json.loads(sys.stdin.readline()))
    gate = asyncio.Semaphore(_CONNECTING_AT_ONCE)
    async with asyncio.timeout(_GUARD_SECONDS):
        devices = await asyncio.gather(*(_connect(order, gate, *who) for who in order.devices))
        print("ready", flush=True)  # noqa: T201 - the benchmark reads it
        await asyncio.to_thread(sys.stdin.readline)
        began = time.monotonic()
        for device in devices:
            device.send()
        for device in devices:
            await device.answers()
        print(json.dumps(asdict(Sent(began, time.monotonic()))), flush=True)  # noqa: T201 - the same
    for device in devices:
        device.leave()


async def _connect(order: Order, gate: asyncio.Semaphore, name: str, password: str) -> Device:
    async with gate:
        loop = asyncio.get_running_loop()
        _, device = await loop.create_connection(
            lambda: Device(name, password, order.each, order.first), order.host, order.port
        )
        await device.connected
    return device


if __name__ == "__main__":
    asyncio.run(main())
