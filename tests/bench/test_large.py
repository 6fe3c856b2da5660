"""What a device and a heartbeat take on disk stays within the goals on SQLite."""

from pathlib import Path

import pytest

from bench import large
from bench.growth.rows import DEVICE, HISTORY
from bench.registry import prepare

pytestmark = pytest.mark.sqlite
DEVICES = 5_000


def test_a_device_and_a_heartbeat_are_small(tmp_path: Path) -> None:
    """Row, token, binding, state, tag and all indexes. A new index or a wide column shows up here."""
    filled = large.fill(prepare(tmp_path, 0), DEVICES, history=5)
    assert filled.heartbeat_bytes is not None
    assert DEVICE.target is not None
    assert HISTORY.target is not None
    assert filled.device_bytes <= DEVICE.target.bound
    assert filled.heartbeat_bytes <= HISTORY.target.bound
