"""Calls that several tests of resources make."""

from typing import Any

from tests.http.support import Client, Json, body


async def acknowledge(device: Client, command: Json, status: str, **more: Any) -> Json:
    """The command after the device's word on it was taken."""
    answer = await device.post(f"/v1/devices/me/commands/{command['id']}/ack", json={"status": status, **more})
    return body(answer, 200)
