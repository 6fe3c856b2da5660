"""The embedded broker on the wire: whose a session is, how another connection takes it over, and how it is cut."""

import asyncio
import contextlib

import pytest

from gateway.broker.embedded.server import ClientIdentity, EmbeddedBroker
from tests.broker.embedded.support import (
    PASSWORD,
    authenticate,
    connected,
    payloads_until_end_marker,
    subscribed_gateway,
)
from tests.support.wait import eventually
from tests.support.wire import ACCEPTED, CLOSED, NOT_AUTHORISED, Kind, Will, Wire, publish_packet

HEARTBEAT = "devices/dev_A/heartbeat"
REBOOT = "devices/dev_A/commands/reboot"
WILL = Will("devices/dev_A/status", b"offline", retain=True)


@pytest.mark.parametrize("is_clean", [True, False])
async def test_a_new_connection_takes_over_and_the_old_one_is_closed(broker: EmbeddedBroker, is_clean: bool) -> None:  # noqa: FBT001 - parametrised
    """The old one may not say another word [MQTT-3.1.4-2] and its will comes first; the new one works at once."""
    async with subscribed_gateway(broker) as gateway, connected(broker, "dev_A", clean=is_clean, will=WILL) as old:
        await old.subscribe(REBOOT)
        async with connected(broker, "dev_A", clean=is_clean) as new:
            assert new.session_present is not is_clean
            await old.closed()
            await _shout_in_vain(old)
            await new.publish(HEARTBEAT, b"new", qos=1)
            await new.subscribe(REBOOT)
            await gateway.publish(REBOOT, b"for the new one", qos=1)
            assert (await new.read_publish()).payload == b"for the new one"
            assert await payloads_until_end_marker(broker, gateway) == [b"offline", b"new"]
            assert list(broker.sessions()) == ["gateway", "dev_A"]


async def test_a_takeover_redelivers_unacknowledged_messages(broker: EmbeddedBroker) -> None:
    """A persistent session goes on with its subscriptions and messages, without a new SUBSCRIBE."""
    async with connected(broker, "gateway") as gateway, connected(broker, "dev_A", clean=False) as old:
        await old.subscribe(REBOOT)
        await gateway.publish(REBOOT, b"unacknowledged", qos=1)
        await old.read_publish()
        async with connected(broker, "dev_A", clean=False) as new:
            message = await new.read_publish()
            assert (message.payload, message.duplicate) == (b"unacknowledged", True)
            await gateway.publish(REBOOT, b"next", qos=1)
            assert (await new.read_publish()).payload == b"next"


async def test_unread_packets_of_the_old_connection_are_dropped_at_a_takeover(broker: EmbeddedBroker) -> None:
    """Packets that lie in the buffers of a connection that was taken over count no more: the new one speaks."""
    async with subscribed_gateway(broker) as gateway:
        for _ in range(20):
            async with connected(broker, "dev_A") as old, connected(broker, "dev_A") as new:
                with contextlib.suppress(ConnectionError):
                    await old.send(publish_packet(HEARTBEAT, b"zombie"))
                await new.publish(HEARTBEAT, b"new", qos=1)
        assert set(await payloads_until_end_marker(broker, gateway)) == {b"new"}


async def test_a_clean_connect_ends_a_persistent_session(broker: EmbeddedBroker) -> None:
    """Its subscriptions and messages are gone [MQTT-3.1.2-6], and the next session starts empty."""
    async with connected(broker, "gateway") as gateway:
        async with connected(broker, "dev_A", clean=False) as device:
            await device.subscribe(REBOOT)
        await eventually(lambda: "dev_A" not in broker.sessions(), "the device left")
        await gateway.publish(REBOOT, b"forgotten", qos=1)
        for is_clean in (True, False):
            async with connected(broker, "dev_A", clean=is_clean) as device:
                assert not device.session_present
                await gateway.publish(REBOOT, b"not subscribed", qos=1)
                await device.ping()
                await device.disconnect()


async def test_no_message_of_an_ended_session_precedes_those_of_the_new_one(broker: EmbeddedBroker) -> None:
    """A subscription of the old one that matches too does not take the message."""
    async with connected(broker, "gateway") as gateway:
        async with connected(broker, "dev_A", clean=False) as device:
            await device.subscribe("devices/dev_A/commands/+")
            await device.disconnect()
        async with connected(broker, "dev_A") as device:
            await device.subscribe(REBOOT)
            await gateway.publish(REBOOT, b"for the new one", qos=1)
            assert (await device.read_publish()).payload == b"for the new one"


@pytest.mark.parametrize(
    ("client_id", "username", "password"),
    [
        ("dev_A", "dev_A", "wrong"),
        ("dev_A", "dev_B", PASSWORD),
        ("dev_A", "integrator", PASSWORD),
        ("dev_A", None, None),
    ],
)
@pytest.mark.parametrize("is_clean", [True, False])
async def test_a_wrong_password_with_a_devices_client_id_does_not_disturb_it(
    broker: EmbeddedBroker,
    client_id: str,
    username: str | None,
    password: str | None,
    is_clean: bool,  # noqa: FBT001 - parametrised
) -> None:
    """Authentication comes first: plain amqtt takes the session over before it checks the password."""
    async with subscribed_gateway(broker) as gateway, connected(broker, "dev_A", clean=False, will=WILL) as device:
        await device.subscribe(REBOOT)
        async with Wire.open(broker.host, broker.port) as stranger:
            await stranger.connect(client_id, username, password, clean=is_clean)
            await gateway.publish(REBOOT, b"for the device", qos=1)
            assert (await device.read_publish()).payload == b"for the device"
            await device.publish(HEARTBEAT, b"still here", qos=1)
        assert await payloads_until_end_marker(broker, gateway) == [b"still here"]


async def test_a_cut_closes_the_session_and_drops_its_will(broker: EmbeddedBroker) -> None:
    """The socket is closed, and neither its last words nor its will are heard."""
    async with subscribed_gateway(broker) as gateway, connected(broker, "dev_A", will=WILL) as device:
        assert await broker.cut("dev_A")
        await device.closed()
        await _shout_in_vain(device)
        assert list(broker.sessions()) == ["gateway"]
        assert await payloads_until_end_marker(broker, gateway) == []
        assert not await broker.cut("dev_A")


@pytest.mark.parametrize("turns", range(8))
async def test_no_packet_is_processed_after_a_cut_at_any_point(broker: EmbeddedBroker, turns: int) -> None:
    """A heartbeat on its way when the cut comes, that many turns of the event loop later, is before it or lost."""
    async with subscribed_gateway(broker) as gateway, connected(broker, "dev_A", will=WILL) as device:
        await device.send(publish_packet(HEARTBEAT, b"heartbeat"))
        for _ in range(turns):
            await asyncio.sleep(0)
        assert await broker.cut("dev_A")
        assert await payloads_until_end_marker(broker, gateway) in ([b"heartbeat"], [])


async def test_after_a_cut_the_next_session_is_empty(broker: EmbeddedBroker) -> None:
    """Subscriptions, what was in flight and what was queued are gone, so a new owner of the device sees none of it."""
    async with connected(broker, "gateway") as gateway:
        async with connected(broker, "dev_A", clean=False) as device:
            await device.subscribe(REBOOT)
            await gateway.publish(REBOOT, b"in flight", qos=1)
            await device.read_publish()
            assert await broker.cut("dev_A")
        await gateway.publish(REBOOT, b"too late", qos=1)
        async with connected(broker, "dev_A", clean=False) as device:
            assert not device.session_present
            await device.ping()
            assert await device.subscribe("devices/dev_A/errors") == [1]


async def test_a_cut_drops_the_queue_of_an_offline_device(broker: EmbeddedBroker) -> None:
    """The cut reports that no client was connected, and still ends the session."""
    async with connected(broker, "gateway") as gateway:
        async with connected(broker, "dev_A", clean=False) as device:
            await device.subscribe(REBOOT)
            await device.disconnect()
        await gateway.publish(REBOOT, b"waits", qos=1)
        assert not await broker.cut("dev_A")
        async with connected(broker, "dev_A", clean=False) as device:
            assert not device.session_present
            await device.ping()


async def test_a_cut_reaches_a_connect_that_is_just_being_authenticated() -> None:
    """A token revoked between question and answer makes the answer out of date, so the client is not admitted."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(client_id: str, username: str | None, password: str | None) -> ClientIdentity | None:
        asked.set()
        await answer.wait()
        return await authenticate(client_id, username, password)

    async with EmbeddedBroker(authenticate=slow) as broker, Wire.open(broker.host, broker.port) as device:
        connecting = asyncio.create_task(device.connect("dev_A", "dev_A", PASSWORD), name="connecting")
        await asked.wait()
        await broker.cut("dev_A")
        answer.set()
        assert await connecting == CLOSED
        assert broker.sessions() == {}


async def test_a_cut_device_that_reads_nothing_is_closed_at_once(broker: EmbeddedBroker) -> None:
    """A full socket does not keep the session alive."""
    async with connected(broker, "gateway") as gateway, connected(broker, "dev_A") as deaf:
        await deaf.subscribe(REBOOT)
        for _ in range(40):
            await gateway.publish(REBOOT, bytes(100_000), qos=1)
        assert await broker.cut("dev_A")
        assert "dev_A" not in broker.sessions()
        await deaf.closed()


async def test_a_disconnect_ends_a_session_without_its_will(broker: EmbeddedBroker) -> None:
    """A DISCONNECT drops the will [MQTT-3.14.4-3]; a socket that just closes has the will published."""
    async with subscribed_gateway(broker) as gateway:
        async with connected(broker, "dev_A", will=WILL) as device:
            await device.disconnect()
        assert await payloads_until_end_marker(broker, gateway) == []
        async with connected(broker, "dev_A", will=WILL):
            pass
        assert (await gateway.read_publish()).payload == b"offline"


async def test_a_refused_client_can_reconnect(broker: EmbeddedBroker) -> None:
    """A wrong password leaves nothing behind."""
    async with Wire.open(broker.host, broker.port) as client:
        assert await client.connect("dev_A", "dev_A", "wrong") == NOT_AUTHORISED
        assert [packet.kind for packet in await client.closed()] == []
    async with Wire.open(broker.host, broker.port) as client:
        assert await client.connect("dev_A", "dev_A", PASSWORD) == ACCEPTED


async def _shout_in_vain(client: Wire) -> None:
    with contextlib.suppress(ConnectionError):
        await client.send(publish_packet(HEARTBEAT, b"zombie"))
    assert not [packet for packet in await client.closed() if packet.kind == Kind.PUBACK]
