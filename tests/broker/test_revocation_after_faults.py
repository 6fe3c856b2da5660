"""A revoked session is cut within 1 s (contract, section 1) right after each kind of trouble, on the real parts.

The number of tries is small here; `CUT_TRIES=100` measures more of them.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event

import pytest

from gateway.store import View
from gateway.store.readers import THREADS, Purpose
from tests.broker.revocation_times import (
    TRIES,
    assert_cut_in_time,
    count_syncs,
    seconds_until_cut,
    wait_for_failed_attempts,
)
from tests.broker.support import REFUSED, answer
from tests.mqtt.brokers import MosquittoUnderTest
from tests.mqtt.support import MqttTestbed, on_every_broker, on_mosquitto, open_testbed
from tests.support.measured import Measured
from tests.support.small_disk import full, may_mount, small_disk
from tests.support.wait import eventually

DISK_KIB = 16_384
SEARCHES = 12
SCAN = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 500000) SELECT count(*) FROM n"
"""A part of a search in a large registry: a twentieth of a second and more."""


@on_mosquitto
async def test_a_revoked_session_is_cut_in_time_after_a_broker_outage(
    kind: str, tmp_path: Path, record_property: Measured
) -> None:
    """A token is revoked while Mosquitto is down, and another one as soon as it is back."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        access, lifetimes = count_syncs(testbed), []
        for number in range(TRIES):
            during, after = await testbed.bound(f"SN-{number}-during"), await testbed.bound(f"SN-{number}-after")
            await testbed.settled()
            await testbed.broker.stop()
            await testbed.unbind(during)
            await wait_for_failed_attempts(testbed, access)
            lifetimes.append(await seconds_until_cut(testbed, after, testbed.broker.start))
            assert await answer(testbed, during) in REFUSED
            await testbed.settled()
        assert_cut_in_time(record_property, "the broker was away", lifetimes)


@pytest.mark.skipif(not may_mount(), reason="mounts a small file system, which takes root")
async def test_a_revoked_session_is_cut_in_time_after_a_full_disk(tmp_path: Path, record_property: Measured) -> None:
    """The password file could not be written for a while, nor anything be committed."""
    with small_disk(tmp_path / "disk", DISK_KIB) as disk:
        async with open_testbed("mosquitto-5", disk) as testbed:
            await testbed.start()
            access, lifetimes = count_syncs(testbed), []
            for number in range(TRIES):
                device = await testbed.bound(f"SN-{number}")
                await testbed.settled()
                with full(disk) as fill:
                    _spoil_the_last_line(testbed)
                    await wait_for_failed_attempts(testbed, access, fill)

                async def mended() -> None:
                    """There is room again."""

                lifetimes.append(await seconds_until_cut(testbed, device, mended))
                await testbed.settled()
            assert_cut_in_time(record_property, "the disk was full", lifetimes)


def _spoil_the_last_line(testbed: MqttTestbed) -> None:
    """Have the gateway write the password file again. It needs no room to do this damage."""
    assert isinstance(testbed.broker, MosquittoUnderTest)
    file = testbed.broker.mosquitto.password_file
    os.truncate(file, file.stat().st_size - 2)


@asynccontextmanager
async def searches_in_flight(testbed: MqttTestbed) -> AsyncIterator[None]:
    """Reads that look at many rows, more than there are threads for; they go on until the block ends."""
    begun, over = 0, Event()

    def scan(view: View) -> None:
        nonlocal begun
        begun += 1
        while not over.is_set():
            view.value(SCAN)

    tasks = [asyncio.create_task(testbed.store.read(scan, Purpose.SCANS)) for _ in range(SEARCHES)]
    try:
        await eventually(lambda: begun >= THREADS[Purpose.SCANS], "searches are in flight")
        yield
    finally:
        over.set()
        await asyncio.gather(*tasks)


@on_every_broker
async def test_a_revoked_session_is_cut_in_time_during_searches(
    kind: str, tmp_path: Path, record_property: Measured
) -> None:
    """Searches run in separate threads from writes and authentication."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        lifetimes = list[float]()
        for number in range(TRIES):
            device = await testbed.bound(f"SN-{number}")
            await testbed.settled()
            async with searches_in_flight(testbed), testbed.join(device) as client:
                await testbed.unbind(device)
                began = asyncio.get_running_loop().time()
                await client.closed()
                lifetimes.append(asyncio.get_running_loop().time() - began)
            assert await answer(testbed, device) in REFUSED
        assert_cut_in_time(record_property, f"searches in flight began ({kind})", lifetimes)
