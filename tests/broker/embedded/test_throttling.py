"""Throttling of flooding clients, and of senders to a gateway that does not keep up."""

import contextlib
from collections.abc import AsyncIterator

from gateway.broker.embedded.server import BrokerLimits, EmbeddedBroker
from tests.broker.embedded.support import (
    assert_nothing_more,
    authenticate,
    connected,
    manually_acknowledging,
    subscribed_gateway,
)
from tests.support.wire import (
    Kind,
    Packet,
    Wire,
    publish_packet,
)


def numbered(count: int) -> list[Packet]:
    """So many heartbeats of dev_A at QoS 1."""
    return [publish_packet("devices/dev_A/heartbeat", b"%d" % n, packet_id=n + 1) for n in range(count)]


async def test_a_flooding_client_is_throttled_and_others_are_not() -> None:
    """Of 500 heartbeats no more than its share is taken until the gateway has those; another one's is not behind all.

    What is held is with its sender: nothing of it is lost, and all comes in its order.
    """
    limits = BrokerLimits(unheard=50)
    async with (
        EmbeddedBroker(authenticate=authenticate, limits=limits) as broker,
        manually_acknowledging(broker) as gateway,
    ):
        async with connected(broker, "dev_A") as wild, connected(broker, "dev_B") as other:
            await wild.send(*numbered(500))
            got = [await gateway.read_publish() for _ in range(51)]
            await other.send(publish_packet("devices/dev_B/heartbeat", b"other"))
            got.append(await gateway.read_publish())
            await assert_nothing_more(gateway)
            for message in got:
                await gateway.acknowledge(message)
            rest = [message async for message in acknowledged(gateway, 449)]
            assert [(await wild.read_packet()).kind for _ in range(500)] == [Kind.PUBACK] * 500
        assert got[-1].payload == b"other"
        assert [message.payload for message in got[:-1]] + rest == [b"%d" % n for n in range(500)]


async def acknowledged(gateway: Wire, count: int) -> AsyncIterator[bytes]:
    """Take so many messages as a gateway does."""
    for _ in range(count):
        message = await gateway.read_publish()
        await gateway.acknowledge(message)
        yield message.payload


async def test_a_throttled_client_can_be_cut_and_stays_throttled_after_reconnect() -> None:
    """Its socket is closed although the gateway never takes what it sent, and a new connection is no way out."""
    limits = BrokerLimits(unheard=10)
    async with (
        EmbeddedBroker(authenticate=authenticate, limits=limits) as broker,
        manually_acknowledging(broker) as gateway,
    ):
        async with connected(broker, "dev_A") as wild:
            await wild.send(*numbered(50))
            got = [await gateway.read_publish() for _ in range(11)]
            assert await broker.cut("dev_A")
            with contextlib.suppress(ConnectionResetError):
                assert await wild.closed() == []
        async with connected(broker, "dev_A") as again:
            await again.send(publish_packet("devices/dev_A/heartbeat", b"again"))
            await assert_nothing_more(gateway)
            for message in got:
                await gateway.acknowledge(message)
            assert [message async for message in acknowledged(gateway, 1)] == [b"again"]
            assert (await again.read_packet()).kind == Kind.PUBACK


async def test_senders_to_a_removed_gateway_session_are_disconnected() -> None:
    """Messages that wait for a forgotten gateway session are lost: the sender is disconnected, and sends them again."""
    limits = BrokerLimits(unheard=10)
    async with EmbeddedBroker(authenticate=authenticate, limits=limits) as broker, connected(broker, "dev_A") as wild:
        async with manually_acknowledging(broker) as gateway:
            await wild.send(*numbered(50))
            for _ in range(11):
                await gateway.read_publish()
            await gateway.disconnect()  # a clean session ends with it
        with contextlib.suppress(ConnectionResetError):
            assert await wild.closed() == []
        async with subscribed_gateway(broker), connected(broker, "dev_A") as again:
            await again.send(*numbered(50))
            assert [(await again.read_packet()).kind for _ in range(50)] == [Kind.PUBACK] * 50
