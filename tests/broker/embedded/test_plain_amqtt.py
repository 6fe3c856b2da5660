"""That the guards are needed: the same defects looked for in the embedded broker, and in plain amqtt, which shows them.

Both ask the same authenticator and the same access rules; plain amqtt through plugins, as it is meant to be used, that
decide without awaiting. What plain amqtt shows by nothing ever happening (a keepalive that is not enforced, a CONNECT
that never comes, one of MQTT 5 that is never answered) is compared with an embedded broker beside it that has acted
meanwhile on a client which came later. Not shown: a shutdown that hangs. A QoS 1 message that it drops after five
seconds is shown by what it does as well: dropping it when the connection ends.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from amqtt.broker import Broker
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin

from gateway.broker.access_rules import Role, may
from gateway.broker.embedded.server import EmbeddedBroker
from tests.broker.embedded.support import (
    PASSWORD,
    ROLES,
    ListeningBroker,
    authenticate,
    connected,
    manually_acknowledging,
    payloads_until_end_marker,
    subscribed_gateway,
)
from tests.support.wire import (
    ACCEPTED,
    ConnectionClosedError,
    Kind,
    Packet,
    Will,
    Wire,
    connect_packet,
    parse_publish,
    publish_packet,
    text,
)

HEARTBEAT = "devices/dev_A/heartbeat"
REBOOT = "devices/dev_A/commands/reboot"
ROUND_TRIPS = 50
PATIENCE = 0.2
"""Seconds that the embedded broker gives a CONNECT here."""
DISCONNECT = Packet(Kind.DISCONNECT, 0, b"")
MQTT_5_CONNECT = Packet(Kind.CONNECT, 0, bytes.fromhex("00044d51545405c2003c00") + 3 * text("dev_A"))
"""User name, password, clean start, 60 s, no properties [MQTT5 3.1]; plain amqtt never gets to judge the password."""

Defect = Callable[[ListeningBroker], Awaitable[bool]]


class Authenticator(BaseAuthPlugin):  # type: ignore[misc]  # amqtt ships no types
    """The authenticator of these tests as a plugin."""

    async def authenticate(self, *, session: Any) -> bool:
        """Whether the session may begin."""
        return await authenticate(session.client_id, session.username, session.password) is not None


class Access(BaseTopicPlugin):  # type: ignore[misc]  # amqtt ships no types
    """The access rules as a plugin."""

    async def topic_filtering(self, *, session: Any, topic: str, action: Any) -> bool:
        """Whether the session may do this."""
        return may(ROLES.get(session.username, Role.DEVICE), session.username, action, topic)


@dataclass(frozen=True)
class Plain:
    """Plain amqtt, running."""

    port: int
    host: str = "127.0.0.1"


@contextlib.asynccontextmanager
async def plain_amqtt() -> AsyncIterator[Plain]:
    """Configured as carefully as it can be."""
    plugins: dict[str, dict[str, str]] = {f"{__name__}.Authenticator": {}, f"{__name__}.Access": {}}
    broker = Broker({"listeners": {"default": {"type": "tcp", "bind": "127.0.0.1:0"}}, "plugins": plugins})
    await broker.start()
    try:
        yield Plain(broker._servers["default"].instance.sockets[0].getsockname()[1])  # noqa: SLF001 - the only way
    finally:
        for _, handler in list(broker.sessions.values()):
            with contextlib.suppress(Exception):
                await handler.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await broker.shutdown()


async def leaks_retained_messages_at_connect(broker: ListeningBroker) -> bool:
    """A device that never subscribed gets the factory reset of another one."""
    reset = "devices/dev_B/commands/factory_reset"
    async with connected(broker, "gateway") as gateway, connected(broker, "dev_B") as owner:
        await gateway.publish(reset, b"B's", retain=True)
        await owner.subscribe(reset)
        await owner.read_publish()
        async with connected(broker, "dev_A") as device:
            return reset in await _heard(device)


async def publishes_wills_on_foreign_topics(broker: ListeningBroker) -> bool:
    """A device's death speaks on the command topic of another one."""
    will = Will("devices/dev_B/commands/factory_reset", b"forged")
    async with subscribed_gateway(broker, "#") as gateway:
        async with Wire.open(broker.host, broker.port) as device:
            await device.connect("dev_A", "dev_A", PASSWORD, will=will)
        return will.topic in await _heard(gateway)


async def retains_what_a_device_may_only_publish(broker: ListeningBroker) -> bool:
    """A heartbeat that was sent retained stays on the broker."""
    async with subscribed_gateway(broker), connected(broker, "dev_A") as device:
        await device.publish(HEARTBEAT, b"x", retain=True)
        await device.ping()
    async with subscribed_gateway(broker) as gateway:
        return HEARTBEAT in await _heard(gateway)


async def lets_a_taken_over_connection_live(broker: ListeningBroker) -> bool:
    """The old connection still gets answers when the new one is in place."""
    async with connected(broker, "dev_A") as old, connected(broker, "dev_A"):
        try:
            await old.ping()
        except (ConnectionClosedError, ConnectionError):
            return False
        return True


async def lets_a_wrong_password_disturb_a_session(broker: ListeningBroker) -> bool:
    """A stranger who knows the client id alone: the device's subscription is gone."""
    async with connected(broker, "gateway") as gateway, connected(broker, "dev_A") as device:
        await device.subscribe(REBOOT)
        async with Wire.open(broker.host, broker.port) as stranger:
            assert await stranger.connect("dev_A", "dev_A", "wrong") != ACCEPTED
        await gateway.publish(REBOOT, b"x")
        return REBOOT not in await _heard(device)


async def loses_acknowledged_messages_at_a_disconnect(broker: ListeningBroker) -> bool:
    """Twenty heartbeats and a DISCONNECT, fifty times, each acknowledged: fewer arrive."""
    acknowledged = 0
    async with subscribed_gateway(broker) as gateway:
        for _ in range(50):
            async with connected(broker, "dev_A") as device:
                await device.send(*_heartbeats(20, "dev_A"), DISCONNECT)
                acknowledged += sum(packet.kind == Kind.PUBACK for packet in await device.closed())
        return len(await payloads_until_end_marker(broker, gateway)) < acknowledged


async def loses_a_connect_publish_and_disconnect_in_one_write(broker: ListeningBroker) -> bool:
    """Devices that say all they have to say, twenty heartbeats, in one segment and close: most is not heard."""
    async with subscribed_gateway(broker) as gateway:
        for name in (f"dev_{n}" for n in range(30)):
            async with Wire.open(broker.host, broker.port) as device:
                await device.send(connect_packet(name, name, PASSWORD), *_heartbeats(20, name), DISCONNECT)
        return len(await _heard(gateway)) < 600


async def takes_packets_of_any_size(broker: ListeningBroker) -> bool:
    """A megabyte is taken into memory and acknowledged."""
    async with connected(broker, "dev_A") as device:
        try:
            await device.publish(HEARTBEAT, bytes(1 << 20))
        except (ConnectionClosedError, ConnectionError):
            return False
        return True


async def drops_everything_after_a_dollar_topic(broker: ListeningBroker) -> bool:
    """Acknowledged like all else on that connection, and gone."""
    async with subscribed_gateway(broker) as gateway, connected(broker, "dev_A") as device:
        await device.publish("$SYS/x", b"x")
        await device.publish(HEARTBEAT, b"counts")
        return await payloads_until_end_marker(broker, gateway) != [b"counts"]


async def forgets_what_was_in_flight_when_the_connection_ends(broker: ListeningBroker) -> bool:
    """A gateway that was killed before it acknowledged does not get the message again."""
    async with (
        connected(broker, "dev_A") as device,
        manually_acknowledging(broker, "devices/+/heartbeat", clean=False) as gateway,
    ):
        await device.send(publish_packet(HEARTBEAT, b"x"))
        await gateway.read_publish()
    async with connected(broker, "gateway", clean=False) as gateway:
        return HEARTBEAT not in await _heard(gateway)


async def gives_a_persistent_session_that_is_taken_over_nothing(broker: ListeningBroker) -> bool:
    """The new connection is not sent what is published on the session's own subscription."""
    async with connected(broker, "gateway") as gateway, connected(broker, "dev_A", clean=False) as old:
        await old.subscribe(REBOOT)
        async with connected(broker, "dev_A", clean=False) as new:
            await gateway.publish(REBOOT, b"x")
            return REBOOT not in await _heard(new)


async def lets_a_silent_client_stay(broker: ListeningBroker) -> bool:
    """One that promised a word every second and is silent lives longer than one at the embedded broker."""
    async with connected(broker, "dev_A", keepalive=1) as silent:
        async with (
            EmbeddedBroker(authenticate=authenticate) as reference,
            connected(reference, "dev_A", keepalive=1) as later,
        ):
            await later.closed()
        return await _answers(silent)


async def lets_a_socket_without_a_connect_stay(broker: ListeningBroker) -> bool:
    """A socket on which nothing was said is served when the embedded broker has given up on a later one."""
    async with Wire.open(broker.host, broker.port) as mute:
        async with (
            EmbeddedBroker(authenticate=authenticate, connect_timeout=PATIENCE) as reference,
            Wire.open(reference.host, reference.port) as later,
        ):
            await later.closed()
        try:
            return await mute.connect("dev_A", "dev_A", PASSWORD) == ACCEPTED
        except ConnectionError:
            return False


async def leaves_mqtt_5_without_an_answer(broker: ListeningBroker) -> bool:
    """Others come, ask and are answered, and a CONNECT of MQTT 5 is neither answered nor refused."""
    async with Wire.open(broker.host, broker.port) as modern:
        await modern.send(MQTT_5_CONNECT)
        reading = asyncio.create_task(modern.closed())
        async with connected(broker, "dev_B") as other:
            await _heard(other)
        hangs = not reading.done()
        reading.cancel()
        return hangs


async def _answers(client: Wire) -> bool:
    try:
        await client.ping()
    except (ConnectionClosedError, ConnectionError):
        return False
    return True


DEFECTS: list[Defect] = [
    leaks_retained_messages_at_connect,
    publishes_wills_on_foreign_topics,
    retains_what_a_device_may_only_publish,
    lets_a_taken_over_connection_live,
    lets_a_wrong_password_disturb_a_session,
    loses_acknowledged_messages_at_a_disconnect,
    loses_a_connect_publish_and_disconnect_in_one_write,
    takes_packets_of_any_size,
    drops_everything_after_a_dollar_topic,
    forgets_what_was_in_flight_when_the_connection_ends,
    gives_a_persistent_session_that_is_taken_over_nothing,
    lets_a_silent_client_stay,
    lets_a_socket_without_a_connect_stay,
    leaves_mqtt_5_without_an_answer,
]
every_defect = pytest.mark.parametrize("shows", DEFECTS, ids=lambda defect: defect.__name__)


@every_defect
async def test_the_embedded_broker_does_not_have_the_defect(shows: Defect) -> None:
    """The guard holds, by the very observation that shows the defect in plain amqtt."""
    async with EmbeddedBroker(authenticate=authenticate, connect_timeout=PATIENCE) as broker:
        assert not await shows(broker)


@every_defect
async def test_plain_amqtt_has_the_defect(shows: Defect) -> None:
    """The guard is needed. When this fails after an upgrade of amqtt, the guard may be able to go."""
    async with plain_amqtt() as broker:
        assert await shows(broker)


def _heartbeats(count: int, device_id: str) -> list[Packet]:
    return [publish_packet(f"devices/{device_id}/heartbeat", b"x", packet_id=n + 1) for n in range(count)]


async def _heard(client: Wire) -> list[str]:
    """The topics of what arrives during so many round trips that it would have arrived, were it on its way."""
    topics: list[str] = []
    for _ in range(ROUND_TRIPS):
        await client.send(Packet(Kind.PINGREQ, 0, b""))
        while (packet := await client.read_packet()).kind != Kind.PINGRESP:
            topics.append(parse_publish(packet).topic)
    return topics
