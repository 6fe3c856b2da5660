"""The whole life of a device with the reference firmware, in 128 KiB, on both brokers, plain and with TLS."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.support import BROKERS, BrokerKind, Site, running_site
from tests.firmware.device import NETWORKS, FirmwareDevice, powered
from tests.firmware.sites import secured_site

OTHER_COMMANDS = ("start_recording", "stop_recording", "trigger_upload", "reboot")
WIPED = {"device_token", "pairing", "wifi_networks"}


@contextlib.asynccontextmanager
async def a_device(folder: Path, kind: BrokerKind, *, tls: bool) -> AsyncIterator[tuple[Site, FirmwareDevice]]:
    """A site, and a device whose configuration names its gateway and, with TLS, its authority."""
    if not tls:
        async with running_site(folder, kind) as site:
            yield site, FirmwareDevice(folder / "device", api_url=site.gateway.url)
        return
    async with secured_site(folder, kind) as (site, authority):
        ca_file = str(authority.files.certificate)
        yield site, FirmwareDevice(folder / "device", api_url=site.gateway.url, ca_file=ca_file)


@pytest.mark.checklist("C1", "C3", "C4", "C13", "C18", "C29", "C31", "C34")
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("kind", BROKERS)
async def test_a_device_goes_through_its_life_cycle(kind: BrokerKind, tls: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """Provisioned over the serial line, every command, a reset, unpaired, bound again, never wiped again."""
    async with a_device(tmp_path, kind, tls=tls) as (site, device), powered(device):
        assert (await device.ask(do="info"))["state"] == "unprovisioned"
        bound = await device.provision(site)
        device_id = bound["id"]
        await device.fact("sent", kind="heartbeat", count=3)
        stored = device.stored("wiped")
        assert set(stored) == WIPED
        assert (stored["device_token"], stored["wifi_networks"]) == (bound["device_token"], NETWORKS)
        assert stored["pairing"]["grant_key"] == bound["grant_key"]
        assert stored["pairing"]["binding_generation"] == bound["binding_generation"]
        assert stored["pairing"]["mqtt"]["tls"] is tls
        assert (await site.get(device_id))["connection"] == "online"
        for each in OTHER_COMMANDS:
            await site.post(f"{device_id}/commands", {"type": each}, status=201)
            assert (await site.becomes(device_id, "executed"))["type"] == each
        await device.fact("online", count=2)  # it has rebooted
        await site.reset(device_id)
        command = await site.becomes(device_id, "executed")
        assert set(command["result"]["wiped"]) == WIPED
        await device.fact("powered_on", pairing="unpaired", count=2)
        assert device.stored("wiped") == {}
        assert (await site.events(device_id)).count("reset.completed") == 1

        again = await device.provision(site)
        assert again["binding_generation"] > bound["binding_generation"]
        first = await device.fact("online", count=3)
        assert first["transport"] == "mqtt"
        beats = [json.loads(each["payload"]) for each in await heartbeats_after(device, 2)]
        assert beats[0]["last_command"]["command_id"] == command["id"]
        assert (await device.ask(do="info"))["state"] == "online"
        assert len(device.facts("powered_on")) == 3
        assert (await site.events(device_id)).count("reset.completed") == 1
    assert device.err == ""


async def heartbeats_after(device: FirmwareDevice, count: int) -> list[dict[str, str]]:
    """Its heartbeats since it was online last, once there are so many."""

    def since() -> list[dict[str, str]]:
        lines = [json.loads(each) for each in device.out.splitlines() if each.startswith("{") and each.endswith("}")]
        last = max(at for at, each in enumerate(lines) if each.get("fact") == "online")
        return [each for each in lines[last:] if each.get("fact") == "sent" and each["kind"] == "heartbeat"]

    total = len(device.facts("sent"))
    while len(found := since()) < count:
        total += 1
        await device.fact("sent", count=total)
    return found
