"""What a device sends to the broker: the password made of its token; the token itself only if it is a former one."""

from contextlib import closing
from pathlib import Path

import aiomqtt
import pytest

from gateway.domain import devices
from gateway.store import View, gauge_sql, open_to_serve
from tests.broker.support import REFUSED
from tests.mqtt.devices import Device
from tests.mqtt.support import MqttTestbed, on_every_broker, open_testbed
from tests.mqtt.test_token_refresh import refreshed
from tests.support import wire
from tests.support.former_registry import former_registry


async def told(testbed: MqttTestbed, device: Device, password: str) -> int:
    """What the broker answers to this device with that password."""
    async with wire.Wire.open("127.0.0.1", testbed.broker.port) as client:
        return await client.connect(device.id, device.id, password)


def upgraded(data_dir: Path) -> Device:
    """A device in a registry of then that a gateway of today has migrated."""
    former = former_registry(data_dir)
    with closing(open_to_serve(data_dir)):
        return Device(former.id, former.pk, former.token, 1)


async def without_password(testbed: MqttTestbed) -> int:
    """How many devices show the broker their token, as the metrics and the doctor tell."""

    def read(view: View) -> int:
        return gauge_sql.fleet(view).without_mqtt_password

    return await testbed.store.read(read)


@on_every_broker
async def test_the_token_itself_is_refused_by_the_broker(kind: str, tmp_path: Path) -> None:
    """Neither the one of the bind nor that of a refresh, nor another device's password; its own does, at once."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device, other = await testbed.bound(), await testbed.bound("SN-2")
        await testbed.settled()
        for wrong in (device.token, other.mqtt_password, other.token):
            assert await told(testbed, device, wrong) in REFUSED
        assert await told(testbed, device, device.mqtt_password) == wire.ACCEPTED
        assert await told(testbed, device, device.mqtt_password + "=") in REFUSED
        new = await refreshed(testbed, device)
        await testbed.settled()
        assert await told(testbed, new, new.token) in REFUSED
        old_is_good = kind == "embedded"  # where the broker holds one password per device, it is the new one
        assert (await told(testbed, device, device.mqtt_password) == wire.ACCEPTED) == old_is_good
        assert await told(testbed, new, new.mqtt_password) == wire.ACCEPTED
        await testbed.unbind(new)
        await testbed.settled()
        assert await told(testbed, new, new.mqtt_password) in REFUSED
        assert await told(testbed, new, new.token) in REFUSED


async def test_mosquitto_refuses_the_token_over_mqtt_5_too(tmp_path: Path) -> None:
    """135, not authorised; the password is let in."""
    async with open_testbed("mosquitto-5", tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        await testbed.settled()
        with pytest.raises(aiomqtt.MqttCodeError, match="Not authorized"):
            async with _over_5(testbed, device, device.token):
                pass
        async with _over_5(testbed, device, device.mqtt_password):
            pass


def _over_5(testbed: MqttTestbed, device: Device, password: str) -> aiomqtt.Client:
    return aiomqtt.Client(
        "127.0.0.1",
        testbed.broker.port,
        username=device.id,
        password=password,
        identifier=device.id,
        protocol=aiomqtt.ProtocolVersion.V5,
    )


@on_every_broker
async def test_a_former_token_is_its_own_password_until_its_refresh(kind: str, tmp_path: Path) -> None:
    """Out of a registry of then: it gets in as ever, what is made of it does not; its successor is of the new kind."""
    device = upgraded(tmp_path / "data")
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        assert await told(testbed, device, device.token) == wire.ACCEPTED
        assert await told(testbed, device, device.mqtt_password) in REFUSED
        assert await without_password(testbed) == 1
        new = await refreshed(testbed, device)
        await testbed.settled()
        assert await told(testbed, new, new.token) in REFUSED
        assert await told(testbed, new, new.mqtt_password) == wire.ACCEPTED
        assert await without_password(testbed) == 0


@on_every_broker
async def test_a_former_token_gets_its_reset_and_ends_with_it(kind: str, tmp_path: Path) -> None:
    """A former token admits the device for its reset alone; after the next bind only a password does."""
    device = upgraded(tmp_path / "data")
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        await testbed.reset(device)
        await testbed.settled()
        assert await told(testbed, device, device.token) == wire.ACCEPTED
        await testbed.store.write(lambda tx: devices.supersede_reset(tx, testbed.project_id, device.id, "key_test"))
        await testbed.settled()
        again = await testbed.bound_again(device)
        await testbed.settled()
        assert await told(testbed, device, device.token) in REFUSED
        assert await told(testbed, again, again.token) in REFUSED
        assert await told(testbed, again, again.mqtt_password) == wire.ACCEPTED
