"""Connected fleet: ``python -m bench.crowd``, a separate process, since every device has a socket.

It reads an :class:`Order` (a line of JSON), connects all devices, and then obeys these lines:

- ``beat``: each device sends a heartbeat a minute from now on.
- ``quiet``: they stop.
- ``totals``: print :class:`Totals` as JSON on stdout.
- ``tell``: write all events so far, a :class:`Count` as JSON, to the file of the order.

A device that loses its connection pauses for a random time, and then tries until the broker accepts it. After that it
sends an unacknowledged heartbeat again.

The process is one loop over epoll(7) and plain sockets. When all devices reconnect at once, broker and gateway should
limit the speed, not this process.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import select
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from bench.crowd_device import Device

MINUTE: Final = 60.0
_ENTERING_AT_ONCE: Final = 90
"""Connects in progress. The broker's listen backlog is 100; the kernel drops the rest, which retries seconds later."""
_AGAIN_SECONDS: Final = 0.5
_TICK_SECONDS: Final = 0.02
_READ_BYTES: Final = 1 << 16
_STDIN: Final = 0
_WATCHED: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLET


@dataclass(frozen=True)
class Order:
    """The devices (id, password) and the broker. A device reconnects after up to ``jitter`` seconds, by ``seed``."""

    host: str
    port: int
    devices: Sequence[tuple[str, str]]
    jitter: float
    seed: int
    report: str
    """The file that ``tell`` writes."""


@dataclass(frozen=True)
class Totals:
    """Numbers of connected devices, of devices that have a reset, and of heartbeats."""

    connected: int
    told: int
    sent: int
    acknowledged: int


@dataclass
class Count:
    """Events so far, in seconds of the monotonic clock, which all processes share."""

    sent: dict[str, int] = field(default_factory=dict)
    """Number of heartbeats of each device."""
    back: dict[str, float] = field(default_factory=dict)
    """When each connected device had last connected and subscribed."""
    told: dict[str, float] = field(default_factory=dict)
    """When each device received its reset for the first time."""


class Crowd:
    """All devices."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._address = (order.host, order.port)
        self._random = random.Random(order.seed)  # noqa: S311 - no secret
        self._devices = [Device(*who) for who in order.devices]
        self._away = [(0.0, number) for number in range(len(self._devices))]
        """Heap: when each disconnected device reconnects."""
        self._there: dict[int, int] = {}
        """Numbers of the connected devices, by file descriptor."""
        self._entering = 0
        self._beaten: tuple[float, int] | None = None
        """Start of the heartbeats, and how many were due until now."""
        self._epoll = select.epoll()
        self._epoll.register(_STDIN, select.EPOLLIN)

    def run(self) -> None:
        """Obey the lines on stdin until it ends."""
        said = False
        while self._turn():
            if not said and not self._away and not self._entering:
                said = True
                print("connected", flush=True)  # noqa: T201 - the benchmark reads it

    def totals(self) -> Totals:
        """Return the present totals."""
        return Totals(
            sum(device.back is not None for device in self._devices),
            sum(device.told is not None for device in self._devices),
            sum(device.sent for device in self._devices),
            sum(device.acknowledged for device in self._devices),
        )

    def count(self) -> Count:
        """Return the events so far."""
        return Count(
            {device.name: device.sent for device in self._devices if device.sent},
            {device.name: device.back for device in self._devices if device.back is not None},
            {device.name: device.told for device in self._devices if device.told is not None},
        )

    def _turn(self) -> bool:
        for fd, mask in self._epoll.poll(_TICK_SECONDS):
            if fd != _STDIN:
                self._look(fd, mask)
            elif lines := os.read(_STDIN, _READ_BYTES):
                self._obey(lines.decode().split())
            else:
                return False
        self._let_in()
        self._beat()
        return True

    def _obey(self, lines: Sequence[str]) -> None:
        for line in lines:
            if line == "beat":
                self._beaten = time.monotonic(), 0
            elif line == "quiet":
                self._beaten = None
            elif line == "totals":
                print(json.dumps(asdict(self.totals())), flush=True)  # noqa: T201 - the benchmark reads it
            else:
                Path(self._order.report).write_text(json.dumps(asdict(self.count())))
                print("told", flush=True)  # noqa: T201 - the same

    def _look(self, fd: int, mask: int) -> None:
        device = self._devices[self._there[fd]]
        was_in = device.back is not None
        stays = device.look(mask)
        if not was_in and (not stays or device.back is not None):
            self._entering -= 1
        if not stays:
            self._put_off(self._there.pop(fd), self._order.jitter if was_in else _AGAIN_SECONDS)

    def _let_in(self) -> None:
        now = time.monotonic()
        while self._away and self._away[0][0] <= now and self._entering < _ENTERING_AT_ONCE:
            _, number = heapq.heappop(self._away)
            opened = self._devices[number].enter(self._address)
            if opened is None:
                self._put_off(number, _AGAIN_SECONDS)
            else:
                self._entering += 1
                self._there[opened.fileno()] = number
                self._epoll.register(opened, _WATCHED)

    def _put_off(self, number: int, seconds: float) -> None:
        heapq.heappush(self._away, (time.monotonic() + self._random.uniform(0, seconds), number))

    def _beat(self) -> None:
        """Send one heartbeat per device and minute, spread evenly."""
        if self._beaten is None:
            return
        since, done = self._beaten
        due = int((time.monotonic() - since) / MINUTE * len(self._devices))
        for number in range(done, due):
            self._devices[number % len(self._devices)].beat()
        self._beaten = since, due


if __name__ == "__main__":
    Crowd(Order(**json.loads(sys.stdin.buffer.readline()))).run()
