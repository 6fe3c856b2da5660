"""A registry of some size, with its Mosquitto and its gateway."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from itertools import islice
from pathlib import Path
from typing import Any, Final

from bench.broker import Restartable, restartable
from bench.process import BenchError
from bench.registry import Registry
from bench.server import LOG, Server, gateway
from broker_config import local
from gateway.store import View, open_reader
from gateway.store.outbox_sql import CREDENTIAL, MIRROR, STATE

PATIENT: Final = {"GATEWAY_HEARTBEAT_INTERVAL_SECONDS": "86400"}
"""Settings with which devices stay online. Most of the fleet sends nothing, and would go offline by default."""

_POLL_SECONDS: Final = 0.02
_SETTLES_SECONDS: Final = 1_800.0
"""Time limit for what takes minutes in a large registry."""


class Site:
    """A registry, its Mosquitto, and its gateway, which can be stopped and started again.

    The members of the registry are handed out once each.
    """

    def __init__(self, size: int, registry: Registry, broker: Restartable, senders: int) -> None:
        self.size = size
        self.registry = registry
        self.broker = broker
        self.peaks: list[float] = []
        """Most memory of each gateway that was stopped, in megabytes."""
        self._members = iter(registry.devices)
        self.senders = self.take(senders)
        self.sent = 0
        """Heartbeats that each sender has sent: each has another number."""
        self._running = AsyncExitStack()
        self._server: Server | None = None

    @property
    def server(self) -> Server:
        """Return the running gateway."""
        assert self._server, "it was started"
        return self._server

    def take(self, count: int) -> tuple[tuple[str, str], ...]:
        """Return id and MQTT password of the next members."""
        return tuple(islice(self._members, count))

    async def start(self) -> float:
        """Start the gateway; return the seconds until it was ready."""
        began = time.monotonic()
        self._server = await self._running.enter_async_context(
            gateway(self.registry.data_dir, self.broker.broker, {**self.registry.environ, **PATIENT})
        )
        return time.monotonic() - began

    async def stop(self) -> None:
        """Stop the gateway, if it runs."""
        if self._server is not None:
            self.peaks.append(self._server.process.peak_megabytes())
            self._server = None
        await self._running.aclose()

    def require_online(self) -> None:
        """Check that the fleet stayed online: or the gateway had other work, which every figure would contain.

        Raises:
            BenchError: devices went offline that never sent anything.
        """
        offline = sum(each["devices_offline"] for each in self._lines("presence.judged"))
        if offline > len(self.registry.devices):
            raise BenchError(f"{offline} devices of the fleet went offline during the measurement")

    async def settled(self) -> None:
        """Wait until the gateway has compared all states with those at the broker, and published what differed."""
        await self._until(self._compared, "states were not compared")
        await self._until(lambda: not self._waits(MIRROR), "states were not published")

    async def in_step(self) -> None:
        """Wait until the broker knows all credentials."""
        await self._until(lambda: not self._waits(CREDENTIAL), "the broker does not know all credentials")

    def cpu_seconds(self) -> float:
        """Return the processor time of gateway and Mosquitto so far."""
        return self.server.process.cpu_seconds() + self.broker.cpu_seconds()

    def newest_heartbeat(self) -> int:
        """Return the highest number of a stored heartbeat."""
        return self._value("SELECT coalesce(max(id), 0) FROM heartbeats")

    async def stored(self, after: int, count: int) -> float:
        """Wait until so many heartbeats with higher numbers are stored; return when (monotonic clock)."""
        query = f"SELECT count(*) FROM heartbeats WHERE id > {after}"  # noqa: S608 - a number
        await self._until(lambda: self._value(query) >= count, f"{count} heartbeats were not stored")
        return time.monotonic()

    async def _until(self, condition: Callable[[], bool], otherwise: str) -> None:
        """Poll, each time in a thread."""
        try:
            async with asyncio.timeout(_SETTLES_SECONDS):
                while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - it depends on other processes
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise BenchError(f"{otherwise} within {_SETTLES_SECONDS:g} s") from None

    def _compared(self) -> bool:
        return any(each["leaf"] == STATE for each in self._lines("mirror.compared"))

    def _lines(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of this event of the gateway that was started last."""
        lines = (self.registry.data_dir / LOG).read_bytes().splitlines()
        return [json.loads(line) for line in lines if event.encode() in line]

    def _waits(self, kind: str) -> bool:
        return bool(self._value(f"SELECT count(*) FROM (SELECT 1 FROM outbox WHERE kind = '{kind}' LIMIT 1) AS one"))  # noqa: S608 - a constant

    def _value(self, query: str) -> int:
        with closing(open_reader(self.registry.location)) as connection:
            return int(View(connection).value(query))


@asynccontextmanager
async def site(folder: Path, size: int, registry: Registry, senders: int) -> AsyncIterator[Site]:
    """Run a Mosquitto as shipped beside this registry; the gateway is started and stopped in the block."""
    async with restartable(folder / f"mosquitto-{size}", [], local.locks_plugin()) as broker:
        made = Site(size, registry, broker, senders)
        try:
            yield made
        finally:
            await made.stop()
