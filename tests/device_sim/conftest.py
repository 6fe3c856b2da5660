"""Fixtures of the simulator's tests."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.device_sim.support import GUARD_SECONDS
from tests.device_sim.testbed import DeviceTestbed, open_testbed


@pytest.fixture
async def testbed(tmp_path: Path) -> AsyncIterator[DeviceTestbed]:
    """A broker, a stub gateway and a client that sees every topic."""
    async with open_testbed(tmp_path) as testbed, asyncio.timeout(GUARD_SECONDS):
        yield testbed
