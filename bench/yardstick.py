"""Speed of the machine: processor time of a bare loop, measured beside a figure that has no other floor.

The loop takes in 100,000 heartbeats in memory: it parses each and keeps the newest of each device. It is one thread of
Python, as most of the gateway is, so its time grows with that of the gateway on a slower machine.
"""

from __future__ import annotations

import json
import time
from typing import Final

HEARTBEATS: Final = 100_000
_DEVICES: Final = 1_000
_PAYLOAD: Final = json.dumps(
    {
        "sent_at": "2026-01-01T00:00:00.000Z",
        "firmware_version": "1.4.2",
        "battery": {"percent": 81, "charging": False},
        "storage": {"used_bytes": 1_234_567, "total_bytes": 16_000_000},
        "connection": {"type": "wifi", "rssi_dbm": -61},
        "uptime_seconds": 86_400,
    }
).encode()


def bare_loop_seconds() -> float:
    """Return the processor seconds in which this thread takes in :data:`HEARTBEATS` heartbeats."""
    newest: dict[int, object] = {}
    began = time.thread_time()
    for number in range(HEARTBEATS):
        newest[number % _DEVICES] = json.loads(_PAYLOAD)
    return time.thread_time() - began
