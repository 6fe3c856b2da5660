"""What a broker answers to a device's CONNECT, and which answers are refusals."""

from tests.mqtt.devices import Device
from tests.mqtt.support import MqttTestbed
from tests.support import wire

REFUSED = {wire.NOT_AUTHORISED, wire.BAD_CREDENTIALS}


async def answer(testbed: MqttTestbed, device: Device) -> int:
    """What the broker answers to this device's CONNECT."""
    async with wire.Wire.open("127.0.0.1", testbed.broker.port) as client:
        return await client.connect(device.id, device.id, device.mqtt_password)
