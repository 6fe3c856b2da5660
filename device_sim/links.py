"""One open link of a device: its radio, the task that keeps it up, and its faults."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from device_sim.actions import CommandReceived, Input, LinkUp, OpenLink, Publish
from device_sim.app import GatewayApi
from device_sim.backoff import Backoff
from device_sim.errors import RadioError
from device_sim.options import Options
from device_sim.radio import MqttRadio, Radio
from device_sim.relay import BleRelay, HttpRadio

LOST_BY_FAULT = "a fault lost it on the way"


@dataclass(frozen=True)
class Arrival:
    """An input and the link that it arrived on. Inputs of a closed link are ignored."""

    link: "Link | None"
    event: Input


class Link:
    """Link that the firmware's `OpenLink` opened. It passes all inputs to `deliver` as `Arrival`."""

    def __init__(
        self,
        request: OpenLink,
        deliver: Callable[[Arrival], None],
        api: GatewayApi,
        backoff: Backoff,
        options: Options,
    ) -> None:
        self._deliver = deliver
        self._faults = options.faults
        self._radio = self._make_radio(request, api, backoff, options)
        self._task: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []

    def open(self, tasks: asyncio.TaskGroup, name: str) -> None:
        """Start the radio, and keep it up from now on."""
        self._task = tasks.create_task(self._radio.run(), name=f"radio of {name}")

    async def close(self) -> None:
        """Publish `offline` and disconnect."""
        self._cancel_timers()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def lose_power(self) -> None:
        """Cut the connection, without an offline message and without DISCONNECT."""
        self._radio.cut()
        await self.close()

    async def publish(self, message: Publish) -> None:
        """Send each copy of a message that the faults allow.

        Raises:
            RadioError: it was not confirmed, or a fault lost it; the connection is cut.
        """
        copies = self._faults.copies("outgoing")
        if not copies:
            self._radio.cut()
            raise RadioError(LOST_BY_FAULT)
        for delay in sorted(copies):
            await asyncio.sleep(delay)
            await self._radio.publish(message)

    def _make_radio(self, request: OpenLink, api: GatewayApi, backoff: Backoff, options: Options) -> Radio:
        if request.connection == "ble":
            return BleRelay(request.binding, self._receive, api)
        if options.transport == "http":
            return HttpRadio(request.binding, request.connection, self._receive, api)
        return MqttRadio(request.binding, request.connection, self._receive, backoff, options)

    def _receive(self, event: Input) -> None:
        if isinstance(event, LinkUp):
            self._schedule_flap()
        if not isinstance(event, CommandReceived):
            self._deliver(Arrival(self, event))
            return
        for delay in self._faults.copies("incoming"):
            if delay > 0:
                self._schedule(delay, lambda: self._deliver(Arrival(self, event)))
            else:
                self._deliver(Arrival(self, event))

    def _schedule_flap(self) -> None:
        lifetime = self._faults.link_lifetime()
        if lifetime is not None:
            self._schedule(lifetime, self._radio.cut)

    def _schedule(self, delay: float, callback: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._timers = [each for each in self._timers if each.when() > loop.time()]
        self._timers.append(loop.call_later(delay, callback))

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
