"""HTTP in the place of MQTT: while no broker can be reached, and always where the configuration says so."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.support import Site, running_site
from tests.firmware.device import FirmwareDevice, powered
from tests.firmware.proxy import WatchingProxy, provision_through
from tests.support.wait import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A gateway that the tests share; each has its own device."""
    async with running_site(tmp_path_factory.mktemp("site"), "embedded") as running:
        yield running


async def is_seen(site: Site, device_id: str) -> bool:
    """Whether a heartbeat has arrived."""
    return (await site.get(device_id))["last_heartbeat_at"] is not None


async def test_a_device_works_over_http_alone(site: Site, tmp_path: Path) -> None:
    """Heartbeats, a command and a reset over HTTP alone."""
    device = FirmwareDevice(tmp_path / "device", "SN-HTTP", api_url=site.gateway.url, transport="http")
    async with powered(device):
        device_id = (await device.provision(site))["id"]
        assert (await device.fact("online"))["transport"] == "http"
        await eventually(lambda: is_seen(site, device_id), "the gateway has a heartbeat")
        await site.post(f"{device_id}/commands", {"type": "start_recording"}, status=201)
        assert (await site.becomes(device_id, "executed"))["result"] == {"recording": True}
        await site.reset(device_id)
        await site.becomes(device_id, "executed")
        await device.fact("powered_on", pairing="unpaired", count=2)
        assert (await site.events(device_id)).count("reset.completed") == 1
        assert "last_command" not in device.stored("kept")  # the gateway itself has confirmed it


@pytest.mark.checklist("C36")
async def test_the_last_reset_is_reported_over_http(site: Site, tmp_path: Path) -> None:
    """In each heartbeat until the first 2xx, then never again."""
    device = FirmwareDevice(tmp_path / "device", "SN-WORD", api_url=site.gateway.url)
    async with powered(device):
        device_id = (await device.provision(site))["id"]
        await device.fact("sent", kind="heartbeat")
        await site.reset(device_id)
        await device.fact("powered_on", pairing="unpaired", count=2)
    word = device.stored("kept")["last_command"]
    device.configure(transport="http")
    async with powered(device):
        await device.fact("powered_on")
        await device.provision(site)
        await device.fact("sent", kind="heartbeat", count=3)
        beats = [json.loads(each["payload"]) for each in device.facts("sent")]
        assert [each.get("last_command") for each in beats[:3]] == [word, None, None]
        assert "last_command" not in device.stored("kept")


async def test_http_leaves_no_socket_open(site: Site, tmp_path: Path) -> None:
    """Closed with the answer, not with the next garbage collection."""
    url = site.gateway.url
    device = FirmwareDevice(tmp_path / "device", "SN-SOCKET", api_url=url, transport="http", heartbeat_seconds=60)
    async with powered(device):
        await device.provision(site)
        await device.fact("sent", kind="heartbeat")
        assert device.sockets() == []


async def test_http_is_used_while_the_broker_is_unreachable(site: Site, tmp_path: Path) -> None:
    """After three failures it is there over HTTP, obeys there, and goes back to MQTT as soon as it can."""
    async with WatchingProxy(site) as proxy:
        device = FirmwareDevice(tmp_path / "device", "SN-BACK", api_url=site.gateway.url)
        proxy.closed = True
        async with powered(device):
            device_id = (await provision_through(proxy, site, device))["id"]
            assert (await device.fact("online"))["transport"] == "http"
            assert proxy.connects >= 3
            await site.post(f"{device_id}/commands", {"type": "trigger_upload"}, status=201)
            await site.becomes(device_id, "executed")
            proxy.closed = False
            await device.fact("online", transport="mqtt")
            await site.reset(device_id)
            await site.becomes(device_id, "executed")
            await device.fact("powered_on", pairing="unpaired", count=2)
            assert len([each for each in device.facts("command_received") if each["type"] == "factory_reset"]) == 1
