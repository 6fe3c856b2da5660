"""A real amqtt, started from `broker_config/amqtt.yaml`, whose own HTTP plugins ask the gateway."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import yaml
from amqtt.broker import Broker

import broker_config
from tests.support.auth_endpoint import GATEWAY_PASSWORD, SECRET, serve_auth_endpoint
from tests.support.registry import GATEWAY_ID, Bound, Registry, registry
from tests.support.wire import ACCEPTED, SUBSCRIPTION_REFUSED, Wire

HANGS_SECONDS = 5.0


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Registry]:
    """A registry."""
    async with registry(tmp_path) as opened:
        yield opened


@pytest.fixture
async def port(fleet: Registry) -> AsyncIterator[int]:
    """Where an amqtt listens that asks the gateway in front of that registry."""
    async with serve_auth_endpoint(fleet.store, gateway_id=GATEWAY_ID) as endpoint:
        at = httpx.URL(endpoint.url)
        values = {"listen": "127.0.0.1:0", "host": at.host, "port": str(at.port), "secret": SECRET}
        broker = Broker(yaml.safe_load(broker_config.filled("amqtt.yaml", values)))
        await broker.start()
        try:
            yield broker._servers["default"].instance.sockets[0].getsockname()[1]  # noqa: SLF001 - the only way
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HANGS_SECONDS):
                    await broker.shutdown()


async def is_accepted(port: int, device: Bound, password: str) -> bool:
    """Whether this password opens the broker."""
    async with Wire.open("127.0.0.1", port) as client:
        return await client.connect(device.id, device.id, password) == ACCEPTED


async def test_a_devices_token_opens_it_until_it_is_revoked(fleet: Registry, port: int) -> None:
    """In with its password, neither with another one nor with the token; out after the revocation."""
    device, other = await fleet.bound("SN-1"), await fleet.bound("SN-2")
    assert await is_accepted(port, device, device.mqtt_password)
    assert not await is_accepted(port, device, other.mqtt_password)
    assert not await is_accepted(port, device, device.token)
    await fleet.unbind(device)
    assert not await is_accepted(port, device, device.mqtt_password)


async def test_a_device_does_what_the_contract_grants_and_no_more(fleet: Registry, port: int) -> None:
    """Its heartbeat reaches the gateway, another one's does not; it is granted its own filters and no others."""
    device, other = await fleet.bound("SN-1"), await fleet.bound("SN-2")
    async with Wire.open("127.0.0.1", port) as gateway, Wire.open("127.0.0.1", port) as client:
        assert await gateway.connect(GATEWAY_ID, "gateway", GATEWAY_PASSWORD) == ACCEPTED
        assert SUBSCRIPTION_REFUSED not in await gateway.subscribe("devices/+/heartbeat")
        assert await client.connect(device.id, device.id, device.mqtt_password) == ACCEPTED
        filters = [f"devices/{device.id}/commands/reboot", "#", f"devices/{other.id}/commands/+"]
        assert [code == SUBSCRIPTION_REFUSED for code in await client.subscribe(*filters)] == [False, True, True]
        await client.publish(f"devices/{other.id}/heartbeat", b"forged")
        await client.publish(f"devices/{device.id}/heartbeat", b"mine")
        message = await gateway.read_publish()
        assert (message.topic, message.payload) == (f"devices/{device.id}/heartbeat", b"mine")
