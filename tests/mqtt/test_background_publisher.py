"""Faults of background publishers: the gateway stays connected, and each is logged with its name."""

import asyncio
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from structlog.testing import capture_logs

from gateway.domain.messages import Message
from gateway.errors import StoreError
from gateway.mqtt import background_publisher
from gateway.mqtt.connect import PublishRefusedError, Session
from gateway.mqtt.retained_scan import ScanMarker
from tests.mqtt.devices import heartbeat_payload
from tests.mqtt.support import MqttTestbed, on_every_broker, open_testbed
from tests.support.wait import eventually

FAULTS = [
    RecursionError("too deep"),
    ZeroDivisionError("a bug"),
    StoreError("no disk"),
    PublishRefusedError(["x"], "no"),
]


class FailingPublisher:
    """An outlet that fails at each of its parts, and counts how often it was asked."""

    name = "faulty"

    def __init__(self, _: ScanMarker, fault: Exception) -> None:
        self._fault = fault
        self.runs = self.compares = 0

    def heard(self, _: Message) -> bool:
        """Fail."""
        raise self._fault

    async def compare(self, _: Session) -> None:
        """Fail."""
        self.compares += 1
        raise self._fault

    async def run(self, _: Session) -> None:
        """Fail."""
        self.runs += 1
        raise self._fault


async def works(testbed: MqttTestbed) -> None:
    """A device is bound, reset, and obeys: what the gateway is there for."""
    device = await testbed.bound()
    async with testbed.join(device) as wire:
        await wire.publish(device.topic("heartbeat"), heartbeat_payload(80))
        command = await testbed.command(device)

        async def published() -> bool:
            return device.topic("commands/reboot") in await testbed.open_commands()

        await eventually(published, f"{command.id} is published")


@on_every_broker
async def test_errors_do_not_end_the_connection(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages, comparison and publishing fail again and again; devices are served on the one connection."""
    monkeypatch.setattr(background_publisher, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(background_publisher, "STORE_RETRY_SECONDS", 0.01)
    made: list[FailingPublisher] = []

    def outlet(mark: ScanMarker, fault: Exception) -> FailingPublisher:
        made.append(FailingPublisher(mark, fault))
        return made[-1]

    with capture_logs() as logs:
        async with open_testbed(kind, tmp_path) as testbed:
            testbed.outlets = [partial(outlet, fault=fault) for fault in FAULTS]
            await testbed.start()
            await works(testbed)
            for faulty in made:
                await eventually(lambda: faulty.runs > 2 and faulty.compares > 2, "it is run and compared again")  # noqa: B023 - awaited here
    events = [each["event"] for each in logs]
    assert len(made) == len(FAULTS)
    assert "broker.disconnected" not in events
    assert {"outlet.failed", "outlet.not_compared", "outlet.message_not_read"} <= set(events)


class BlockedPublisher:
    """An outlet that has something to write when it is stopped, and cannot."""

    name = "leaving"

    def __init__(self) -> None:
        self.runs = asyncio.Event()

    def heard(self, _: Message) -> bool:
        """Nothing is meant for it."""
        return False

    async def compare(self, _: Session) -> None:
        """Nothing to compare."""

    async def run(self, _: Session) -> None:
        """Run until cancelled, and meet a full disk then."""
        self.runs.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise StoreError("the disk is full")


async def test_an_error_during_the_stop_does_not_delay_it() -> None:
    """It takes the place of the cancellation, which ends the outlet all the same."""
    outlet = BlockedPublisher()
    running = asyncio.create_task(
        background_publisher.GuardedPublisher(outlet, lambda: None).run(cast("Session", None))
    )
    await outlet.runs.wait()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
