"""Examples of cells for the OpenAPI document, by the name of the model or of the operation."""

from __future__ import annotations

from typing import Any, Final

_DEVICE_ID: Final = "dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB"
_CELL: Final[dict[str, Any]] = {
    "broker_id": "cell_1",
    "host": "cell-1.example.com",
    "port": 8883,
    "tls": True,
    "devices": 61204,
    "owner": "gw_cell_1",
    "connected": True,
    "followed": True,
    "draining": False,
}

CELL_EXAMPLES: Final[dict[str, Any]] = {
    "Cell": _CELL | {"draining": True},
    "CellList": {
        "cells": "home",
        "data": [_CELL, _CELL | {"broker_id": "cell_2", "host": "cell-2.example.com", "devices": 58117}],
    },
    "CellDeviceList": {"data": [_DEVICE_ID], "has_more": False, "next_cursor": None},
    "MovedDevices": {"moved": [_DEVICE_ID], "unchanged": [], "wiping": [], "next_cursor": None},
}
CELL_ERRORS: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    (
        "broker_draining",
        (
            "The broker 'cell_1' is drained, so it takes no devices. Open it again with 'gateway cells drain cell_1 "
            "--undo', or choose another one."
        ),
        {},
    ),
    (
        "broker_away",
        (
            "The broker 'cell_2' is away: no gateway is connected to it, so devices could not connect there yet. "
            "Start its gateway, or choose another broker."
        ),
        {},
    ),
    (
        "last_broker",
        (
            "'cell_1' is the last broker that takes new devices: no device could be bound any more. Start another "
            "one, or open one again."
        ),
        {},
    ),
)
"""Code, message and details of its errors: of the first conflict of each operation."""
