"""A fleet that is connected: ``python -m bench.crowd``, in a process of its own, since every device has a socket.

It reads an :class:`Order` (a line of JSON), connects all devices and then goes by the lines that it is told: ``beat``
(each device sends a heartbeat a minute from now on), ``quiet`` (they stop), ``tell`` (what has happened so far, a
:class:`Count` as JSON, goes into the file of the order). A device whose connection is lost comes back after a pause of
its own, and tries again until it is let in. A heartbeat that was not acknowledged is sent again then.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from bench import wire
from bench.load import heartbeat

MINUTE: Final = 60.0
_CONNECTING_AT_ONCE: Final = 50
"""The broker's listen backlog is 100: what is beyond it is dropped by the kernel, and comes again seconds later."""
_AGAIN_SECONDS: Final = 0.5
_TICK_SECONDS: Final = 0.02
_ONLINE: Final = b'{"status":"online"}'


@dataclass(frozen=True)
class Order:
    """Who connects (id, token) and where; a device comes back after up to ``jitter`` seconds, by ``seed``."""

    host: str
    port: int
    devices: Sequence[tuple[str, str]]
    jitter: float
    seed: int
    report: str
    """The file that it tells in."""


@dataclass
class Count:
    """What has happened; instants in seconds of the monotonic clock, which all processes share."""

    sent: dict[str, int] = field(default_factory=dict)
    """Heartbeats of each device; one that is sent again counts once."""
    acknowledged: int = 0
    connected: int = 0
    back: dict[str, float] = field(default_factory=dict)
    """When each device was let in (again) and had subscribed."""
    told: dict[str, float] = field(default_factory=dict)
    """When each device had its reset for the first time."""


class Device(asyncio.Protocol):
    """One device over all its connections."""

    def __init__(self, crowd: Crowd, name: str, token: str) -> None:
        self._crowd = crowd
        self._name = name
        self._hello = wire.connect(name, token) + wire.subscribe(f"devices/{name}/commands/factory_reset")
        self._online = wire.publish_retained(f"devices/{name}/status", _ONLINE)
        self._beat_topic = f"devices/{name}/heartbeat"
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._number = 0
        self._unacknowledged: bytes | None = None
        self.settled = asyncio.Event()
        """Set once the broker has let it in, or hung up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect and subscribe in one go."""
        assert isinstance(transport, asyncio.Transport)
        self._buffer.clear()
        self.settled.clear()
        self._transport = transport
        transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        """Take what the broker says."""
        self._buffer += data
        while packet := wire.take_packet(self._buffer):
            self._take(*packet)

    def connection_lost(self, exc: Exception | None) -> None:
        """Come back later."""
        del exc
        self._transport = None
        self.settled.set()
        self._crowd.lost(self, self._name)

    def beat(self) -> None:
        """Send the next heartbeat; while away it waits for the next connection, and those after it are left out."""
        if self._unacknowledged is None:
            self._unacknowledged = wire.publish(self._beat_topic, heartbeat(self._number), 2)
            self._number += 1
            self._crowd.count.sent[self._name] = self._number
            if self._transport is not None:
                self._transport.write(self._unacknowledged)

    def _take(self, kind: int, body: bytes) -> None:
        if kind == wire.SUBACK:
            self._subscribed()
        elif kind == wire.PUBACK:
            self._acknowledged(body)
        elif kind == wire.PUBLISH:
            assert self._transport is not None
            self._transport.write(wire.puback(body))
            if wire.payload(body):  # an empty one only clears the topic
                self._crowd.count.told.setdefault(self._name, time.monotonic())

    def _subscribed(self) -> None:
        assert self._transport is not None
        self.settled.set()
        self._crowd.entered(self._name)
        self._transport.write(self._online + (self._unacknowledged or b""))

    def _acknowledged(self, body: bytes) -> None:
        if body == b"\0\2" and self._unacknowledged is not None:
            self._unacknowledged = None
            self._crowd.count.acknowledged += 1


class Crowd:
    """All of them."""

    def __init__(self, order: Order) -> None:
        self.count = Count()
        self._order = order
        self._random = random.Random(order.seed)  # noqa: S311 - no secret
        self._gate = asyncio.Semaphore(_CONNECTING_AT_ONCE)
        self._devices = [Device(self, *who) for who in order.devices]
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self) -> None:
        """Connect all, and wait until they are in."""
        for device in self._devices:
            self._come(device, 0.0)
        while self.count.connected < len(self._devices):  # noqa: ASYNC110 - many may come and go meanwhile
            await asyncio.sleep(_TICK_SECONDS)

    async def beat(self) -> None:
        """Have each send a heartbeat a minute, spread evenly, until cancelled."""
        began, done = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - began) / MINUTE * len(self._devices))
            for number in range(done, due):
                self._devices[number % len(self._devices)].beat()
            done = due
            await asyncio.sleep(_TICK_SECONDS)

    def entered(self, name: str) -> None:
        """This one is connected and has subscribed."""
        self.count.connected += 1
        self.count.back[name] = time.monotonic()

    def lost(self, device: Device, name: str) -> None:
        """This one is away."""
        if self.count.back.pop(name, None) is not None:
            self.count.connected -= 1
        self._come(device, self._random.uniform(0, self._order.jitter))

    def _come(self, device: Device, after: float) -> None:
        task = asyncio.get_running_loop().create_task(self._enter(device, after))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _enter(self, device: Device, after: float) -> None:
        await asyncio.sleep(after)
        loop = asyncio.get_running_loop()
        while True:
            async with self._gate:
                try:
                    await loop.create_connection(lambda: device, self._order.host, self._order.port)
                    await device.settled.wait()
                except OSError:
                    pass
                else:
                    return
            await asyncio.sleep(_AGAIN_SECONDS * self._random.random())


async def main() -> None:
    """Go by what it is told, until stdin ends."""
    loop = asyncio.get_running_loop()
    order = Order(**json.loads(await loop.run_in_executor(None, sys.stdin.readline)))
    crowd = Crowd(order)
    await crowd.connect()
    print("connected", flush=True)  # noqa: T201 - the benchmark reads it
    beating: list[asyncio.Task[None]] = []
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        if line == "beat":
            beating.append(asyncio.create_task(crowd.beat()))
        elif line == "quiet":
            for task in beating:
                task.cancel()
        else:
            Path(order.report).write_text(json.dumps(asdict(crowd.count)))  # noqa: ASYNC240 - a moment
            print("told", flush=True)  # noqa: T201 - the same


if __name__ == "__main__":
    asyncio.run(main())
