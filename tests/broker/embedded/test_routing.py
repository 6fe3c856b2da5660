"""The embedded broker on the wire: a message reaches its subscribers only, and is retained only if allowed."""

import struct

import pytest

from gateway.broker.embedded.server import BrokerLimits, EmbeddedBroker
from tests.broker.embedded.support import (
    assert_nothing_more,
    authenticate,
    connected,
    payloads_until_end_marker,
    publish_end_marker,
    subscribed_gateway,
)
from tests.support.wire import SUBSCRIPTION_REFUSED, Kind, Packet, publish_packet

HEARTBEAT = "devices/dev_A/heartbeat"
STATUS = "devices/dev_A/status"
RESET = "devices/dev_A/commands/factory_reset"
REBOOT = "devices/dev_A/commands/reboot"


async def test_a_connect_delivers_no_retained_messages_of_other_clients(broker: EmbeddedBroker) -> None:
    """Plain amqtt sends each new client every message retained under any client's filter, resets included."""
    async with connected(broker, "gateway") as gateway, connected(broker, "dev_B") as owner:
        await gateway.publish("devices/dev_B/commands/factory_reset", b"B's", qos=1, retain=True)
        await owner.subscribe("devices/dev_B/commands/factory_reset")
        assert (await owner.read_publish()).payload == b"B's"
        for is_clean in (True, False, False):
            async with connected(broker, "dev_A", clean=is_clean) as device:
                await assert_nothing_more(device)
                assert await device.subscribe(RESET) == [1]
                await assert_nothing_more(device)


@pytest.mark.parametrize(
    "topic_filter",
    [
        *("#", "+/+/+", "devices/#", "devices/+/commands/+", "devices/dev_B/commands/reboot", "devices/dev_A/#"),
        *("$SYS/#", "$share/g/devices/dev_A/errors", "$CONTROL/#", "devices/dev_A/commands/#", "devices/dev_A/state"),
        *(HEARTBEAT, ""),
    ],
)
async def test_a_filter_beyond_a_devices_own_topics_is_refused(broker: EmbeddedBroker, topic_filter: str) -> None:
    """SUBACK 0x80, and nothing arrives by it; the filters beside it in the same packet are granted."""
    async with connected(broker, "gateway") as gateway, connected(broker, "dev_A") as device:
        assert await device.subscribe(topic_filter, "devices/dev_A/commands/+") == [SUBSCRIPTION_REFUSED, 1]
        await gateway.publish("devices/dev_B/commands/reboot", b"not yours", qos=1)
        await gateway.publish(REBOOT, b"yours", qos=1)
        assert (await device.read_publish()).payload == b"yours"
        await assert_nothing_more(device)


@pytest.mark.parametrize(
    "topic",
    [
        *("devices/dev_B/heartbeat", REBOOT, "devices/dev_A/state", "devices/dev_A/events/x", "gateways/g/status"),
        *("$SYS/broker/uptime", "$share/x/y", "$", "devices/dev_A/heartbeat/x"),
    ],
)
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_denied_publish_is_acknowledged_and_dropped(broker: EmbeddedBroker, topic: str, qos: int) -> None:
    """Also for `$` topics, after which plain amqtt acknowledges and drops all that comes on that connection."""
    async with subscribed_gateway(broker, "#") as gateway, connected(broker, "dev_A") as device:
        await device.send(publish_packet(topic, b"denied", qos=qos, retain=True, packet_id=9))
        await device.send(publish_packet(HEARTBEAT, b"counts", qos=1, packet_id=10))
        kinds = [(await device.read_packet()).kind for _ in range(2 if qos else 1)]
        assert kinds == {0: [], 1: [Kind.PUBACK], 2: [Kind.PUBREC]}[qos] + [Kind.PUBACK]
        assert await payloads_until_end_marker(broker, gateway) == [b"counts"]


async def test_an_integrator_reads_and_does_not_write(broker: EmbeddedBroker) -> None:
    """State, events and gateways arrive; what it publishes does not."""
    async with connected(broker, "gateway") as gateway, connected(broker, "integrator") as integrator:
        codes = await integrator.subscribe("devices/+/state", "devices/+/events/#", "gateways/#", "devices/+/heartbeat")
        assert codes == [1, 1, 1, SUBSCRIPTION_REFUSED]
        for topic in ("devices/dev_A/state", "devices/dev_A/events/device.bound", "gateways/g/status"):
            await gateway.publish(topic, topic.encode(), qos=1)
            message = await integrator.read_publish()
            assert message.topic == topic
            await integrator.acknowledge(message)
        await gateway.subscribe("#")
        await integrator.publish("devices/dev_A/state", b"forged", qos=1)
        assert await payloads_until_end_marker(broker, gateway) == []


async def test_a_retained_message_stays_until_it_is_emptied(broker: EmbeddedBroker) -> None:
    """The latest stays, for exact filters and wildcards; an empty payload clears it and is itself not kept."""
    async with connected(broker, "gateway") as gateway:
        for payload in (b"old", b"new"):
            await gateway.publish(RESET, payload, qos=1, retain=True)
        for topic_filter in (RESET, "devices/dev_A/commands/+"):
            async with connected(broker, "dev_A") as device:
                await device.subscribe(topic_filter)
                message = await device.read_publish()
                assert (message.payload, message.retain, message.qos) == (b"new", True, 1)
        async with connected(broker, "dev_A") as device:
            await device.subscribe("devices/dev_A/commands/+")
            await device.read_publish()
            await gateway.publish(RESET, b"", qos=1, retain=True)
            message = await device.read_publish()
            assert (message.payload, message.retain) == (b"", False)
            await device.subscribe("devices/dev_A/commands/+")
            await assert_nothing_more(device)


async def test_a_device_retains_its_status_and_nothing_else(broker: EmbeddedBroker) -> None:
    """A heartbeat that was sent retained arrives, and does not stay."""
    async with subscribed_gateway(broker, "#") as gateway, connected(broker, "dev_A") as device:
        for topic in (HEARTBEAT, STATUS, "devices/dev_A/commands/reboot/ack"):
            await device.publish(topic, topic.encode(), qos=1, retain=True)
        assert len(await payloads_until_end_marker(broker, gateway)) == 3
    async with subscribed_gateway(broker, "#") as gateway:
        assert await payloads_until_end_marker(broker, gateway) == [STATUS.encode()]


async def test_retained_messages_are_bounded() -> None:
    """Beyond the limit a new topic is not kept; known ones go on, and a cleared one makes room."""
    limits = BrokerLimits(retained=2)
    async with (
        EmbeddedBroker(authenticate=authenticate, limits=limits) as broker,
        connected(broker, "gateway") as gateway,
    ):
        for topic, payload in (("a", b"1"), ("b", b"1"), ("c", b"1"), ("a", b"2"), ("b", b""), ("d", b"1")):
            await gateway.publish(topic, payload, qos=1, retain=True)
        async with subscribed_gateway(broker, "#") as reader:
            await publish_end_marker(broker)
            kept = {message.topic: message.payload for message in await reader.read_until("last/word")}
            assert kept == {"a": b"2", "d": b"1"}


async def test_subscriptions_of_one_client_are_bounded() -> None:
    """A device cannot grow the table that each message walks; one taken back makes room."""
    limits = BrokerLimits(subscriptions=2)
    async with EmbeddedBroker(authenticate=authenticate, limits=limits) as broker, connected(broker, "dev_A") as device:
        filters = [f"devices/dev_A/commands/type_{n}" for n in range(3)]
        assert await device.subscribe(*filters) == [1, 1, SUBSCRIPTION_REFUSED]
        assert await device.subscribe(filters[0]) == [1]
        await device.send(Packet(Kind.UNSUBSCRIBE, 2, struct.pack("!HH", 5, len(filters[0])) + filters[0].encode()))
        assert (await device.read_packet()).kind == Kind.UNSUBACK
        assert await device.subscribe(filters[2]) == [1]
