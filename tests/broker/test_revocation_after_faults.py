"""A revoked session is cut within 1 s (contract, section 1) right after each kind of trouble, on the real parts.

The number of tries is small here; `CUT_TRIES=100` measures more of them.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.broker.access_sync import BrokerAccess
from gateway.store import Row, View
from gateway.store.sqlite.readers import THREADS, Purpose
from tests.broker.test_access_sync import REFUSED, answer
from tests.mqtt.support import Device, Site, on_every_broker, on_mosquitto, site
from tests.support.measured import MEASURED, Measured
from tests.support.small_disk import full, may_mount, small_disk
from tests.support.wait import eventually

TRIES = int(os.environ.get("CUT_TRIES", "3"))
CUT_SECONDS = 1.0
FAILED_TRIES = 5
"""After so many the gateway pauses as long as it ever does."""
DISK_KIB = 16_384
SEARCHES = 12
SCAN = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 5000000) SELECT count(*) FROM n"
"""As long as a search in a large registry takes: half a second and more."""


class CountedAccess:
    """The real access, and how often the gateway turned to it."""

    def __init__(self, access: BrokerAccess) -> None:
        self._access = access
        self.syncs = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._access, name)

    async def sync(self, devices: Sequence[Row]) -> Sequence[Row]:
        """Pass it on."""
        self.syncs += 1
        return await self._access.sync(devices)

    async def compare(self) -> bool:
        """Pass it on."""
        self.syncs += 1
        return await self._access.compare()


def counted(place: Site) -> CountedAccess:
    """Count from now on how often the gateway tries."""
    access = CountedAccess(place.access_syncer.access)
    place.access_syncer.access = access  # type: ignore[assignment]
    return access


async def tried_in_vain(place: Site, access: CountedAccess, persist: Callable[[], None] = lambda: None) -> None:
    """Wait until the gateway has failed often enough for its longest pause; `persist` keeps the trouble up."""
    before = access.syncs

    def failed() -> bool:
        persist()
        if place.access_syncer.last_error is None:
            place.wakeups.access_changed()
        return access.syncs >= before + FAILED_TRIES and place.access_syncer.last_error is not None

    await eventually(failed, "the gateway tried in vain")


async def seconds_until_cut(place: Site, device: Device, mend: Callable[[], Awaitable[None]]) -> float:
    """Have trouble end with `mend`, connect as the device and revoke it: how long its session lives after that."""
    await mend()
    async with place.join(device) as client:
        await place.unbind(device)
        began = asyncio.get_running_loop().time()
        await client.closed()
        lived = asyncio.get_running_loop().time() - began
    assert await answer(place, device) in REFUSED
    return lived


def judge(measured: Measured, trouble: str, lived: list[float]) -> None:
    """Tell the figures, and hold the contract."""
    worst = ", ".join(f"{each * 1_000:.0f}" for each in sorted(lived)[-3:])
    cut = sum(each <= CUT_SECONDS for each in lived)
    measured(MEASURED, f"after {trouble}: {cut} of {len(lived)} cut within {CUT_SECONDS:g} s, longest {worst} ms")
    assert cut == len(lived)


@on_mosquitto
async def test_after_the_broker_was_away(kind: str, tmp_path: Path, record_property: Measured) -> None:
    """A token is revoked while Mosquitto is down, and another one as soon as it is back."""
    async with site(kind, tmp_path) as place:
        await place.start()
        access, lived = counted(place), []
        for number in range(TRIES):
            during, after = await place.bound(f"SN-{number}-during"), await place.bound(f"SN-{number}-after")
            await place.settled()
            await place.broker.stop()
            await place.unbind(during)
            await tried_in_vain(place, access)
            lived.append(await seconds_until_cut(place, after, place.broker.start))
            assert await answer(place, during) in REFUSED
            await place.settled()
        judge(record_property, "the broker was away", lived)


@pytest.mark.skipif(not may_mount(), reason="mounts a small file system, which takes root")
async def test_after_the_disk_was_full(tmp_path: Path, record_property: Measured) -> None:
    """The password file could not be written for a while, nor anything be committed."""
    with small_disk(tmp_path / "disk", DISK_KIB) as disk:
        async with site("mosquitto-5", disk) as place:
            await place.start()
            access, lived = counted(place), []
            for number in range(TRIES):
                device = await place.bound(f"SN-{number}")
                await place.settled()
                with full(disk) as fill:
                    await tried_in_vain(place, access, fill)

                async def mended() -> None:
                    """There is room again."""

                lived.append(await seconds_until_cut(place, device, mended))
                await place.settled()
            judge(record_property, "the disk was full", lived)


@asynccontextmanager
async def searches_in_flight(place: Site) -> AsyncIterator[None]:
    """Reads that look at many rows, more than there are threads for, one after the other until the block ends."""
    begun = 0

    def scan(view: View) -> int:
        nonlocal begun
        begun += 1
        return int(view.value(SCAN))

    async def search() -> None:
        while True:
            await place.store.read(scan, Purpose.SCANS)

    tasks = [asyncio.create_task(search()) for _ in range(SEARCHES)]
    try:
        await eventually(lambda: begun >= THREADS[Purpose.SCANS], "searches are in flight")
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@on_every_broker
async def test_while_searches_are_in_flight(kind: str, tmp_path: Path, record_property: Measured) -> None:
    """They have threads of their own, and steering and authentication have theirs."""
    async with site(kind, tmp_path) as place:
        await place.start()
        lived = list[float]()
        for number in range(TRIES):
            device = await place.bound(f"SN-{number}")
            await place.settled()
            async with searches_in_flight(place), place.join(device) as client:
                await place.unbind(device)
                began = asyncio.get_running_loop().time()
                await client.closed()
                lived.append(asyncio.get_running_loop().time() - began)
            assert await answer(place, device) in REFUSED
        judge(record_property, f"searches in flight began ({kind})", lived)
