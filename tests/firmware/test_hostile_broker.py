"""A broker, or who may write to it, that sends more than a small heap holds: the device lives on and obeys later."""

import json
from pathlib import Path

import pytest

from tests.e2e.support import running_site, topic
from tests.firmware.device import FirmwareDevice, powered


@pytest.mark.checklist("C21")
async def test_long_messages_and_floods_are_survived(tmp_path: Path) -> None:
    """64 KiB are dropped, a flood ends at most the link, never the device, and a real command is executed after both.

    Whether the flood fills the heap depends on how fast the device reads it.
    """
    async with running_site(tmp_path, "mosquitto") as site:
        device = FirmwareDevice(tmp_path / "device", api_url=site.gateway.url)
        async with powered(device):
            device_id = (await device.provision(site))["id"]
            await device.fact("sent", kind="heartbeat")
            where = topic(device_id, "reboot")
            await site.publish(where, b"x" * 65_000)
            await device.fact("message_dropped")
            forged = {"id": "cmd_x", "type": "reboot", "params": {}, "binding_generation": 1, "grant_token": "a" * 7000}
            async with site.broker.client("auditor") as auditor:
                for _ in range(20):
                    await auditor.publish(where, json.dumps(forged).encode())
            await site.post(f"{device_id}/commands", {"type": "start_recording"}, status=201)
            assert (await site.becomes(device_id, "executed"))["type"] == "start_recording"
            assert len(device.facts("powered_on")) == 1
            assert all("memory" in each["reason"] for each in device.facts("offline"))
