"""The embedded broker on the wire: who gets in, and how it starts and stops."""

import asyncio
import contextlib
import logging
import re

import aiomqtt
import pytest
import structlog

from gateway.broker.access_rules import Role
from gateway.broker.embedded.server import ClientIdentity, EmbeddedBroker
from tests.broker.embedded.support import (
    PASSWORD,
    authenticate,
    connected,
    payloads_until_end_marker,
    subscribed_gateway,
)
from tests.support.wait import eventually
from tests.support.wire import (
    ACCEPTED,
    IDENTIFIER_REJECTED,
    NOT_AUTHORISED,
    Kind,
    Packet,
    Will,
    Wire,
    connect_packet,
)

UNACCEPTABLE_PROTOCOL_VERSION = 1
SERVER_UNAVAILABLE = 3


@pytest.mark.parametrize(
    ("client_id", "username", "password", "code"),
    [
        ("dev_A", "dev_A", PASSWORD, ACCEPTED),
        ("dev_A", "dev_A", "wrong", NOT_AUTHORISED),
        ("dev_A", "dev_A", "", NOT_AUTHORISED),
        ("dev_A", "dev_A", None, NOT_AUTHORISED),
        ("dev_A", None, None, NOT_AUTHORISED),
        ("", None, None, NOT_AUTHORISED),
        ("dev_A", "dev_B", PASSWORD, IDENTIFIER_REJECTED),
        ("", "dev_A", PASSWORD, IDENTIFIER_REJECTED),
        ("gateway", "dev_A", PASSWORD, IDENTIFIER_REJECTED),
        ("dev_+", "dev_+", PASSWORD, NOT_AUTHORISED),
        ("dev_A/x", "dev_A/x", PASSWORD, NOT_AUTHORISED),
        ("any-name", "integrator", PASSWORD, ACCEPTED),
        ("", "integrator", PASSWORD, ACCEPTED),
        ("gateway-1", "gateway", PASSWORD, ACCEPTED),
    ],
)
async def test_connect_is_accepted_or_refused_by_credentials(
    broker: EmbeddedBroker, client_id: str, username: str | None, password: str | None, code: int
) -> None:
    """Only clients with a name and a right password are admitted, and a device under its id alone."""
    async with Wire.open(broker.host, broker.port) as client:
        assert await client.connect(client_id, username, password) == code
        assert len(broker.sessions()) == (code == ACCEPTED)


async def test_it_listens_on_loopback_by_default(broker: EmbeddedBroker) -> None:
    """A broker that was not opened to the network on purpose cannot be reached from it."""
    assert broker.host == "127.0.0.1"


async def test_a_port_in_use_raises_its_specific_error(broker: EmbeddedBroker) -> None:
    """A second broker on the same port fails with the operating system's word, not with one of amqtt's."""
    with pytest.raises(OSError, match="address already in use"):
        async with EmbeddedBroker(authenticate=authenticate, port=broker.port):
            pass


async def test_sessions_list_connected_clients(broker: EmbeddedBroker) -> None:
    """Live sessions with role and token; an integrator is listed apart, so it cannot pass for a device."""
    async with connected(broker, "gateway"), connected(broker, "dev_A"), Wire.open(broker.host, broker.port) as thief:
        assert await thief.connect("dev_A", "integrator", PASSWORD) == ACCEPTED
        assert broker.sessions() == {
            "gateway": ClientIdentity(Role.GATEWAY, "gateway", None),
            "dev_A": ClientIdentity(Role.DEVICE, "dev_A", 7),
            "integrator/dev_A": ClientIdentity(Role.INTEGRATOR, "integrator", None),
        }
    await eventually(lambda: not broker.sessions(), "all sessions ended")


async def test_a_persistent_session_needs_a_client_id(broker: EmbeddedBroker) -> None:
    """Without a client id there is nothing to come back to [MQTT-3.1.3-8]."""
    async with Wire.open(broker.host, broker.port) as client:
        assert await client.connect("", "integrator", PASSWORD, clean=False) == IDENTIFIER_REJECTED


@pytest.mark.parametrize(
    ("level", "answer"),
    [(3, bytes([0, UNACCEPTABLE_PROTOCOL_VERSION])), (5, b"\x00\x84\x00"), (6, b"\x00\x84\x00")],
)
async def test_an_unsupported_version_gets_the_supported_one(broker: EmbeddedBroker, level: int, answer: bytes) -> None:
    """CONNACK 0x84 as MQTT 5 has it [MQTT 5, 3.2.2.2], or 0x01, then the end; it is logged only once."""
    with structlog.testing.capture_logs() as events:
        for _ in range(3):
            async with Wire.open(broker.host, broker.port) as client:
                await client.send(connect_packet("dev_A", "dev_A", PASSWORD, level=level))
                assert await client.closed() == [Packet(Kind.CONNACK, 0, answer)]
    told = [event for event in events if event["event"] == "broker.version_refused"]
    assert len(told) == 1
    assert told[0]["mqtt"] == {3: "3.1", 5: "5", 6: "level 6"}[level]


async def test_an_mqtt_5_client_can_decode_the_refusal(broker: EmbeddedBroker) -> None:
    """Aiomqtt (paho) is told the reason instead of waiting, so that its user knows what to set."""
    with pytest.raises(aiomqtt.MqttError, match="Unsupported protocol version"):
        async with aiomqtt.Client(
            broker.host,
            broker.port,
            username="dev_A",
            password=PASSWORD,
            identifier="dev_A",
            protocol=aiomqtt.ProtocolVersion.V5,
        ):
            pass


async def test_a_will_on_a_foreign_topic_is_refused_at_connect(broker: EmbeddedBroker) -> None:
    """A device's last will is accepted on its own topics only; plain amqtt publishes it anywhere."""
    for topic in ("devices/dev_B/commands/factory_reset", "devices/dev_A/state", "devices/+/status", "$SYS/x", ""):
        async with Wire.open(broker.host, broker.port) as client:
            code = await client.connect("dev_A", "dev_A", PASSWORD, will=Will(topic, b"x", retain=True))
            assert code == NOT_AUTHORISED
    async with subscribed_gateway(broker, "#") as gateway:
        assert await payloads_until_end_marker(broker, gateway) == []


async def test_stopping_does_not_wait_for_clients() -> None:
    """With clients that are idle, that do not read, that are half connected, and one that is being authenticated."""
    asked = asyncio.Event()

    async def slow(client_id: str, username: str | None, password: str | None) -> ClientIdentity | None:
        if client_id == "dev_slow":
            asked.set()
            await asyncio.Event().wait()
        return await authenticate(client_id, username, password)

    async with asyncio.timeout(60), contextlib.AsyncExitStack() as clients:
        async with EmbeddedBroker(authenticate=slow) as broker:
            gateway = await clients.enter_async_context(connected(broker, "gateway"))
            deaf = await clients.enter_async_context(connected(broker, "dev_deaf"))
            await deaf.subscribe("devices/dev_deaf/commands/+")
            for _ in range(40):
                await gateway.publish("devices/dev_deaf/commands/reboot", bytes(100_000), qos=1)
            waiting = await clients.enter_async_context(Wire.open(broker.host, broker.port))
            await waiting.send(connect_packet("dev_slow", "dev_slow", PASSWORD))
            await clients.enter_async_context(Wire.open(broker.host, broker.port))
            await asked.wait()
        assert await waiting.closed() == []


async def test_amqtt_logs_little_and_no_secret(broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture) -> None:
    """The chatter of amqtt, which would hold packets, stays off; a token in the wrong field is not told either."""
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as events:
        async with connected(broker, "dev_A") as device:
            for fields in (("dev_A", "dev_A", "dtok_wrong_password"), ("dtok_as_client_id", "dtok_as_username", "x")):
                async with Wire.open(broker.host, broker.port) as thief:
                    assert await thief.connect(*fields) == NOT_AUTHORISED
            await device.publish("devices/dev_B/heartbeat", b"dtok_in_a_payload")
    assert {"broker.connect_refused", "broker.publish_denied"} <= {event["event"] for event in events}
    assert all(len(secret) <= 12 for secret in re.findall(r"dtok_\w*", f"{events} {caplog.text}"))
    assert logging.getLogger("amqtt").getEffectiveLevel() == logging.WARNING
    assert not [record for record in caplog.records if record.name.startswith(("amqtt", "transitions"))]
