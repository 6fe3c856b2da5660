"""What a device had its PUBACK for is in the registry, however the gateway ends (embedded broker, in its process)."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.flooding_device import FloodingDevice
from tests.e2e.support import Site, running_site, topic
from tests.support import wire
from tests.support.measured import MEASURED, Measured
from tests.support.mqtt_password import mqtt_password_of
from tests.support.receipts import receipt_of
from tests.support.wait import eventually

SAY_ONE = 240
FLEET = 100
FLOODERS = 5
FLOOD = 10_000
RESETS = 25


@dataclass(frozen=True)
class BoundDevice:
    """A device that was bound over HTTP."""

    id: str
    token: str

    @property
    def heartbeat(self) -> str:
        """Its topic."""
        return f"devices/{self.id}/heartbeat"


async def bound(site: Site, count: int) -> list[BoundDevice]:
    """So many devices, registered and bound."""

    async def one(number: int) -> BoundDevice:
        answer = await site.http.post("/v1/devices", json={"serial_number": f"SN-{number}"})
        device_id = answer.json()["id"]
        return BoundDevice(device_id, (await site.post(f"{device_id}/bind", {"end_user_id": "eu_1"}))["device_token"])

    return [await one(number) for number in range(count)]


@asynccontextmanager
async def connected(site: Site, device: BoundDevice) -> AsyncIterator[wire.Wire]:
    """The device, connected; it tries again until it is admitted."""

    async def knock() -> wire.Wire | None:
        with contextlib.suppress(OSError):
            client = await stack.enter_async_context(wire.Wire.open(site.gateway.host, site.gateway.port))
            return (
                client
                if await client.connect(device.id, device.id, mqtt_password_of(device.token)) == wire.ACCEPTED
                else None
            )
        return None

    async with contextlib.AsyncExitStack() as stack:
        client = await eventually(knock, f"{device.id} is let in")
        assert client
        yield client


def heartbeat(number: int) -> bytes:
    """A heartbeat that can be told from others."""
    return json.dumps({"battery_percent": 50, "sent_at": f"2026-11-01T{number // 3600:02}:00:00Z"}).encode()


def stored(site: Site) -> int:
    """Heartbeats in the registry's file."""
    return site.count("SELECT count(*) FROM heartbeats")


def stored_of_each(site: Site) -> list[int]:
    """The same, of each device in the order in which they were registered."""
    of_one = "SELECT count(*) FROM heartbeats WHERE device_pk = "
    return [site.count(of_one + str(number + 1)) for number in range(FLOODERS)]


async def test_an_acknowledged_heartbeat_survives_a_kill(tmp_path: Path, record_property: Measured) -> None:
    """One each of 240 devices, and `kill -9` with the last PUBACK."""
    async with running_site(tmp_path, "embedded") as site:
        devices = await bound(site, SAY_ONE)
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connected(site, each)) for each in devices]
            said = (
                client.publish(each.heartbeat, heartbeat(0), qos=1)
                for client, each in zip(clients, devices, strict=True)
            )
            await asyncio.gather(*said)
            await site.gateway.kill()
        record_property(MEASURED, f"{SAY_ONE - stored(site)} of {SAY_ONE} lost that had their PUBACK")
        assert stored(site) == SAY_ONE


async def test_a_flood_that_is_stopped_loses_nothing_that_had_its_puback(
    tmp_path: Path, record_property: Measured
) -> None:
    """Devices flat out at an ordinary SIGTERM: of each as many are stored, or more, as PUBACKs came."""
    async with running_site(tmp_path, "embedded", "--device-messages-per-second", "0") as site:
        devices = await bound(site, FLOODERS)
        wild = [FloodingDevice(each.id, held_back=True) for each in devices]
        async with contextlib.AsyncExitStack() as stack:
            for device, each in zip(wild, devices, strict=True):
                await stack.enter_async_context(
                    device.floods(site.gateway.host, site.gateway.port, mqtt_password_of(each.token))
                )
            await eventually(lambda: sum(device.taken for device in wild) > FLOOD, "a flood has come")
            assert await site.gateway.stop() == 0
            await asyncio.gather(*(device.over.wait() for device in wild))
        kept = stored_of_each(site)
        lost = sum(max(0, device.taken - count) for device, count in zip(wild, kept, strict=True))
        record_property(MEASURED, f"{lost} of {sum(device.taken for device in wild)} lost that had their PUBACK")
        assert lost == 0


async def _acknowledges(device: BoundDevice, client: wire.Wire, status: str) -> None:
    command: dict[str, Any] = json.loads((await client.read_publish()).payload)
    word = {"command_id": command["id"], "status": status, "receipt": receipt_of(device.token, command, status)}
    if status == "executed":
        word["result"] = {"wiped": ["device_token", "pairing", "wifi_networks"], "kept": ["serial_number"]}
    await client.publish(f"{topic(device.id)}/ack", json.dumps(word).encode(), qos=1)


async def _all_acknowledge(site: Site, devices: list[BoundDevice], status: str) -> None:
    """Every one fetches its reset, says this of it and has its PUBACK; with the last one the gateway is killed."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(site, each)) for each in devices]
        await asyncio.gather(*(client.subscribe(topic(each.id)) for client, each in zip(clients, devices, strict=True)))
        said = (_acknowledges(each, client, status) for client, each in zip(clients, devices, strict=True))
        await asyncio.gather(*said)
        await site.gateway.kill()
    await site.gateway.restart()
    await site.synced()


async def test_acknowledgements_of_resets_survive_a_kill(tmp_path: Path) -> None:
    """`delivered`, and later `executed`: each with its PUBACK, although the latter ends the session; then a kill."""
    async with running_site(tmp_path, "embedded") as site:
        devices = await bound(site, RESETS)
        for each in devices:
            await site.reset(each.id)
        await site.synced()
        for status in ("delivered", "executed"):
            await _all_acknowledge(site, devices, status)
            assert [(await site.newest(each.id))["status"] for each in devices] == [status] * RESETS


async def test_the_first_heartbeats_after_a_restart_are_stored(tmp_path: Path, record_property: Measured) -> None:
    """A fleet at the door of a gateway that starts: each is let in, and what it says at once is taken."""
    async with running_site(tmp_path, "embedded") as site:
        devices = await bound(site, FLEET)
        assert await site.gateway.stop() == 0

        async def comes_back(device: BoundDevice) -> None:
            async with connected(site, device) as client:
                await client.publish(device.heartbeat, heartbeat(1), qos=1)

        fleet = [asyncio.create_task(comes_back(each)) for each in devices]
        await site.gateway.restart()
        await asyncio.gather(*fleet)
        await site.gateway.kill()
        record_property(MEASURED, f"{FLEET - stored(site)} of {FLEET} first heartbeats lost")
        assert stored(site) == FLEET
