"""How long a revoked session lives after a fault: the measurement, and the second that the contract allows."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence

from gateway.broker.access_sync import AccessManager
from gateway.store.outbox_sql import OutboxRow
from tests.broker.support import REFUSED, answer
from tests.mqtt.devices import Device
from tests.mqtt.support import MqttTestbed
from tests.support.measured import MEASURED, Measured
from tests.support.wait import eventually

TRIES = int(os.environ.get("CUT_TRIES", "3"))
CUT_SECONDS = 1.0
FAILED_TRIES = 5
"""After so many the gateway pauses as long as it ever does."""


class CountedAccess:
    """The real access, and how often the gateway turned to it."""

    def __init__(self, access: AccessManager) -> None:
        self._access = access
        self.syncs = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._access, name)

    async def sync(self, devices: Sequence[OutboxRow]) -> Sequence[OutboxRow]:
        """Pass it on."""
        self.syncs += 1
        return await self._access.sync(devices)

    async def compare(self) -> bool:
        """Pass it on."""
        self.syncs += 1
        return await self._access.compare()


def count_syncs(testbed: MqttTestbed) -> CountedAccess:
    """Count from now on how often the gateway tries."""
    access = CountedAccess(testbed.access_syncer.access)
    testbed.access_syncer.access = access  # type: ignore[assignment]
    return access


async def wait_for_failed_attempts(
    testbed: MqttTestbed, access: CountedAccess, persist: Callable[[], None] = lambda: None
) -> None:
    """Wait until the gateway has failed often enough for its longest pause; `persist` keeps the trouble up."""
    before = access.syncs

    def failed() -> bool:
        persist()
        if testbed.access_syncer.last_error is None:
            testbed.wakeups.access_changed()
        return access.syncs >= before + FAILED_TRIES and testbed.access_syncer.last_error is not None

    await eventually(failed, "the gateway tried in vain")


async def seconds_until_cut(testbed: MqttTestbed, device: Device, mend: Callable[[], Awaitable[None]]) -> float:
    """Have trouble end with `mend`, connect as the device and revoke it: how long its session lives after that."""
    await mend()
    async with testbed.join(device) as client:
        await testbed.unbind(device)
        began = asyncio.get_running_loop().time()
        await client.closed()
        lifetimes = asyncio.get_running_loop().time() - began
    assert await answer(testbed, device) in REFUSED
    return lifetimes


def assert_cut_in_time(measured: Measured, trouble: str, lifetimes: list[float]) -> None:
    """Tell the figures, and hold the contract."""
    worst = ", ".join(f"{each * 1_000:.0f}" for each in sorted(lifetimes)[-3:])
    cut = sum(each <= CUT_SECONDS for each in lifetimes)
    measured(MEASURED, f"after {trouble}: {cut} of {len(lifetimes)} cut within {CUT_SECONDS:g} s, longest {worst} ms")
    assert cut == len(lifetimes)
