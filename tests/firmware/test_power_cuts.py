"""The power is cut before each write to flash and each message: the reset ends, once, and nothing is wiped twice."""

import asyncio
from pathlib import Path

import pytest

from tests.e2e.support import Site, running_site
from tests.firmware.device import FirmwareDevice, Json, powered

STEPS = ("written", "erased", "sent")
RARE = 60
"""Seconds between heartbeats: none is due in a test, so the n-th step is the same in each run."""


def steps(device: FirmwareDevice) -> list[str]:
    """What the device has written and sent since its start, in order."""
    facts = [each for each in device.lines() if each.get("fact") in STEPS]
    return [f"{each['fact']} {each.get('name') or each['kind']}" for each in facts]


async def to_be_reset(site: Site, folder: Path, serial: str) -> tuple[FirmwareDevice, str]:
    """A device that was provisioned, is switched off and is to be reset; with its id."""
    device = FirmwareDevice(folder / serial, serial, api_url=site.gateway.url, heartbeat_seconds=RARE)
    async with powered(device):
        device_id: str = (await device.provision(site))["id"]
        await device.fact("sent", kind="heartbeat")
        await device.switch_off()
    await site.reset(device_id)
    return device, device_id


async def relay_last_command(site: Site, device: FirmwareDevice, device_id: str) -> None:
    """What a companion app does with a device that lost its word: it sends what the device has kept."""
    if (await site.newest(device_id))["status"] != "executed":
        word: Json = (await device.ask(do="info"))["last_command"]
        await site.post(f"{device_id}/heartbeat", {"last_command": word})


async def ends_unpaired(site: Site, device: FirmwareDevice, device_id: str) -> None:
    """Switched on again the device is unpaired, the gateway has its receipt, and the wipe began once."""
    async with powered(device):
        await device.fact("powered_on", pairing="unpaired")
        assert device.stored("wiped") == {}
        assert "reset_in_progress" not in device.stored("kept")
        await relay_last_command(site, device, device_id)
        await site.becomes(device_id, "executed")
        assert [each["status"] for each in await site.commands(device_id)] == ["executed"]
        assert (await site.events(device_id)).count("reset.completed") == 1
        begun = [each for each in device.facts("written", ever=True) if each["name"] == "reset_in_progress"]
        assert len(begun) == 1

        before = len(device.facts("online"))
        await device.provision(site)  # and what it was told then is no reason to wipe the next owner's binding
        await device.fact("online", count=before + 1)
        await device.fact("sent", kind="heartbeat", count=before + 1)
        assert (await device.ask(do="info"))["state"] == "online"
        assert (await site.events(device_id)).count("reset.completed") == 1


async def cut_at(site: Site, folder: Path, step: int) -> None:
    """Cut the power before one step of a reset."""
    device, device_id = await to_be_reset(site, folder, f"SN{step}")
    await device.start(die_at=step)
    try:
        await device.power_is_cut()
        assert len(steps(device)) == step - 1
    finally:
        await device.kill()
    await ends_unpaired(site, device, device_id)


@pytest.mark.checklist("C25", "C30", "C35")
async def test_a_power_cut_at_every_step_of_a_reset(tmp_path: Path) -> None:
    """Before each write and each message of a reset, from the connect on: it ends `completed`, exactly once."""
    async with running_site(tmp_path, "embedded") as site:
        device, device_id = await to_be_reset(site, tmp_path, "SN0")
        async with powered(device):
            await device.fact("powered_on", pairing="unpaired")
            await site.becomes(device_id, "executed")
            whole = steps(device)
        assert whole[-2:] == ["erased reset_in_progress", "sent ack"], whole
        assert (
            whole.index("written last_sequences") < whole.index("sent ack") < whole.index("written reset_in_progress")
        )
        assert whole.index("written reset_in_progress") < whole.index("erased device_token")
        async with asyncio.TaskGroup() as tasks:
            for step in range(1, len(whole) + 1):
                tasks.create_task(cut_at(site, tmp_path, step))


@pytest.mark.checklist("C1")
async def test_a_power_cut_at_every_write_of_the_provisioning(tmp_path: Path) -> None:
    """With a part of a binding it is unpaired, and takes the same answer again."""
    async with running_site(tmp_path, "embedded") as site:
        device = FirmwareDevice(tmp_path / "device", api_url=site.gateway.url, heartbeat_seconds=RARE)
        await device.start()
        await device.fact("powered_on")
        await device.kill()
        answer = await site.api.register(device.serial, model="bota_pin", name=None, firmware_version="1.0.0")
        answer = await site.post(f"{answer['id']}/bind", {"end_user_id": "eu_1"})
        for step in (1, 2, 3):
            async with powered(device, die_at=step):
                await device.fact("powered_on", pairing="unpaired")
                device.write(do="provision", bind=answer, networks=[])
                await device.power_is_cut()
                assert "device_token" not in device.stored("wiped")
        async with powered(device):
            await device.provision(site, answer=answer)
            await device.fact("sent", kind="heartbeat")
