"""Revocation in a large fleet: 10,000 devices registered, 1,000 connected, some of them revoked at once.

How long it takes is measured by `python -m bench.revocation`; here it is what happens, and to whom.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.domain import devices
from gateway.models.devices import RegisterDevice
from gateway.store import Tx
from tests.broker.support import REFUSED, answer
from tests.mqtt.devices import Device
from tests.mqtt.support import MqttTestbed, open_testbed
from tests.support import wire
from tests.support.wait import eventually

REGISTERED, CONNECTED, REVOKED = 10_000, 1_000, 20
AT_ONCE = 50
WILL = b'{"status":"the last word of a revoked device"}'


def others(tx: Tx) -> None:
    """Register more bound and disconnected devices, like the first one, each with its token."""
    count = REGISTERED - CONNECTED
    tx.run(
        """WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
            INSERT INTO devices (id, project_id, serial_number, model, end_user_id, binding_generation, bound_at,
                created_at, updated_at)
            SELECT 'dev_AWAY' || i, project_id, 'AWAY-' || i, model, end_user_id, 1, bound_at, created_at, updated_at
            FROM n, (SELECT * FROM devices ORDER BY pk LIMIT 1)""",
        count,
    )
    tx.run(
        """INSERT INTO tokens (device_pk, generation, hash, mqtt_hash, broker_entry, state, grant_kid, created_at)
            SELECT d.pk, 1, randomblob(32), randomblob(32), t.broker_entry, 'active', t.grant_kid, t.created_at
            FROM devices d, (SELECT * FROM tokens ORDER BY id LIMIT 1) t WHERE d.id LIKE 'dev_AWAY%'"""
    )


def bind_all(tx: Tx, project_id: str) -> list[Device]:
    """The devices that will be connected, in one transaction."""
    bound = []
    for number in range(CONNECTED):
        asked = RegisterDevice(serial_number=f"SN-{number}")
        device, _ = devices.register(tx, project_id, asked, "key_test")
        binding = devices.bind(tx, project_id, device.id, "eu_1", "key_test")
        bound.append(Device(device.id, device.pk, binding.device_token, 1))
    others(tx)
    return bound


@asynccontextmanager
async def connected(testbed: MqttTestbed, devices: Iterable[Device]) -> AsyncIterator[list[wire.Wire]]:
    """Connect all devices, each with a will and a subscription to one command."""
    gate = asyncio.Semaphore(AT_ONCE)
    async with contextlib.AsyncExitStack() as stack:

        async def join(device: Device) -> wire.Wire:
            async with gate:
                client = await stack.enter_async_context(wire.Wire.open("127.0.0.1", testbed.broker.port))
                will = wire.Will(device.topic("status"), WILL, retain=True)
                code = await client.connect(
                    device.id, device.id, device.mqtt_password, clean=False, keepalive=0, will=will
                )
                assert code == wire.ACCEPTED
                await client.subscribe(device.topic("commands/reboot"))
                return client

        yield list(await asyncio.gather(*(join(device) for device in devices)))


@pytest.mark.guarantee("G13")
@pytest.mark.parametrize("kind", ["mosquitto-5", "embedded"])
async def test_revoked_devices_are_cut_and_others_stay(kind: str, tmp_path: Path) -> None:
    """Revoked devices are cut, refused and get no message; their wills are not sent. 980 others go on as before."""
    async with open_testbed(kind, tmp_path) as testbed:
        devices = await testbed.store.write(lambda tx: bind_all(tx, testbed.project_id))
        await testbed.start()
        async with (
            testbed.admin() as listener,
            testbed.admin("other") as speaker,
            connected(testbed, devices) as clients,
        ):
            await listener.subscribe("devices/+/status", "marks/end")
            victims = dict(zip(devices[::50], clients[::50], strict=True))
            assert len(victims) == REVOKED
            await asyncio.gather(*(testbed.unbind(device) for device in victims))
            for client in victims.values():
                await client.closed()
            await testbed.settled()
            for device, client in victims.items():
                assert await answer(testbed, device) in REFUSED
                await speaker.publish(device.topic("commands/reboot"), b"not for you")
                assert not client.inbox
            for client in clients:
                if client not in victims.values():
                    await client.ping()
            await speaker.publish("marks/end", b"")
            told = await listener.read_until("marks/end")
        assert WILL not in {message.payload for message in told}
        offline = {message.topic for message in told if message.payload == b'{"status":"offline"}'}
        assert {device.topic("status") for device in victims} <= offline
        await eventually(lambda: testbed.access_syncer.last_error is None, "the keeper is content")
