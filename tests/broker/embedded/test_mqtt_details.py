"""The embedded broker on the wire: fine points of MQTT 3.1.1, and the clients that people use."""

import asyncio
import struct

import aiomqtt
import pytest

from gateway.broker.embedded.server import EmbeddedBroker
from tests.broker.embedded.support import (
    PASSWORD,
    assert_nothing_more,
    connected,
    payloads_until_end_marker,
    subscribed_gateway,
)
from tests.support.wait import eventually
from tests.support.wire import Kind, Packet, publish_packet

HEARTBEAT = "devices/dev_A/heartbeat"
STATUS = "devices/dev_A/status"
RESET = "devices/dev_A/commands/factory_reset"
REBOOT = "devices/dev_A/commands/reboot"


async def test_overlapping_subscriptions_deliver_a_message_once(broker: EmbeddedBroker) -> None:
    """At the best QoS that was granted [MQTT-3.3.5-1], and never above that of the message."""
    async with connected(broker, "gateway") as gateway, connected(broker, "dev_A") as device:
        assert await device.subscribe(REBOOT, qos=0) == [0]
        assert await device.subscribe("devices/dev_A/commands/+", qos=2) == [1]
        await gateway.publish(REBOOT, b"one", qos=1)
        await gateway.publish(REBOOT, b"zero", qos=0)
        assert [(m.payload, m.qos) for m in [await device.read_publish() for _ in range(2)]] == [
            (b"one", 1),
            (b"zero", 0),
        ]
        await assert_nothing_more(device)


async def test_a_repeated_subscribe_replaces_the_qos_and_resends_retained_messages(broker: EmbeddedBroker) -> None:
    """[MQTT-3.8.4-3]; a device that lost its place asks again and gets it."""
    async with connected(broker, "gateway") as gateway, connected(broker, "dev_A") as device:
        await gateway.publish(RESET, b"reset", qos=1, retain=True)
        for qos in (0, 1):
            assert await device.subscribe(RESET, qos=qos) == [qos]
            assert (await device.read_publish()).qos == qos


async def test_an_unsubscribe_ends_delivery(broker: EmbeddedBroker) -> None:
    """What comes after the UNSUBACK is not for it."""
    async with connected(broker, "gateway") as gateway, connected(broker, "dev_A") as device:
        await device.subscribe(REBOOT)
        await device.send(Packet(Kind.UNSUBSCRIBE, 2, struct.pack("!HH", 5, len(REBOOT)) + REBOOT.encode()))
        assert (await device.read_packet()).kind == Kind.UNSUBACK
        await gateway.publish(REBOOT, b"x", qos=1)
        await assert_nothing_more(device)


async def test_qos_2_arrives_once(broker: EmbeddedBroker) -> None:
    """A repeated PUBLISH with an id that was not released yet is the same message [MQTT-4.3.3-2]."""
    async with subscribed_gateway(broker) as gateway, connected(broker, "dev_A") as device:
        for _ in range(2):
            for _ in range(2):
                await device.send(publish_packet(HEARTBEAT, b"once", qos=2, packet_id=3))
                assert (await device.read_packet()).kind == Kind.PUBREC
            await device.send(Packet(Kind.PUBREL, 2, struct.pack("!H", 3)))
            assert (await device.read_packet()).kind == Kind.PUBCOMP
        assert await payloads_until_end_marker(broker, gateway) == [b"once", b"once"]


async def test_acknowledgements_of_unknown_packets_are_ignored(broker: EmbeddedBroker) -> None:
    """A PUBACK and a PUBREL with ids that are not in use."""
    async with connected(broker, "dev_A") as device:
        await device.send(Packet(Kind.PUBACK, 0, b"\0\x07"), Packet(Kind.PUBREL, 2, b"\0\x07"))
        assert (await device.read_packet()).kind == Kind.PUBCOMP
        await device.ping()


async def test_aiomqtt_publishes_and_subscribes(broker: EmbeddedBroker) -> None:
    """A device by aiomqtt (paho), QoS 1, with a will and a retained command, as the simulator will."""
    will = aiomqtt.Will(STATUS, b"offline", qos=1, retain=True)
    async with (
        subscribed_gateway(broker, RESET + "/ack") as gateway,
        aiomqtt.Client(
            broker.host, broker.port, username="dev_A", password=PASSWORD, identifier="dev_A", will=will
        ) as device,
    ):
        await gateway.publish(RESET, b"reset", qos=1, retain=True)
        await device.subscribe(RESET, qos=1)
        message = await anext(aiter(device.messages))
        assert (message.payload, message.retain) == (b"reset", True)
        await device.publish(RESET + "/ack", b"executed", qos=1)
        assert (await gateway.read_publish()).payload == b"executed"


async def test_aiomqtt_gets_the_reason_of_a_refusal(broker: EmbeddedBroker) -> None:
    """Not a timeout: a return code."""
    with pytest.raises(aiomqtt.MqttError, match="Not authorized"):
        async with aiomqtt.Client(broker.host, broker.port, username="dev_A", password="wrong", identifier="dev_A"):
            pass


async def test_mosquitto_clients_publish_and_subscribe(broker: EmbeddedBroker) -> None:
    """`mosquitto_sub` and `mosquitto_pub`, as people try things out in a terminal."""
    access = ["-h", broker.host, "-p", str(broker.port), "-V", "mqttv311", "-P", PASSWORD, "-q", "1"]
    integrator = await asyncio.create_subprocess_exec(
        *["mosquitto_sub", *access, "-u", "integrator", "-t", "devices/+/state", "-C", "1", "-W", "20", "-v"],
        stdout=asyncio.subprocess.PIPE,
    )
    await eventually(lambda: any(name.startswith("integrator/") for name in broker.sessions()), "it connected")
    publish = [
        "mosquitto_pub",
        *access,
        "-u",
        "gateway",
        "-i",
        "gateway",
        "-t",
        "devices/dev_A/state",
        "-m",
        "hello",
        "-r",
    ]
    publisher = await asyncio.create_subprocess_exec(*publish)
    assert await publisher.wait() == 0
    printed, _ = await integrator.communicate()
    assert printed == b"devices/dev_A/state hello\n"
