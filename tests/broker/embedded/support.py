"""Clients of an embedded broker: gateways that acknowledge at once or on demand, and a message that ends a test."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Protocol

from gateway.broker.access_rules import Role
from gateway.broker.embedded.server import ClientIdentity
from tests.support.wire import (
    ACCEPTED,
    GUARD_SECONDS,
    SUBSCRIPTION_REFUSED,
    ConnectionClosedError,
    Kind,
    Message,
    Packet,
    Wire,
    parse_publish,
)

PASSWORD = "dtok_right"
TAKEN = "devices/+/heartbeat", "devices/+/status", "devices/+/commands/+/ack", "last/word"
ROLES = {"gateway": Role.GATEWAY, "integrator": Role.INTEGRATOR}


async def authenticate(client_id: str, username: str | None, password: str | None) -> ClientIdentity | None:
    """Stands for the registry: one password for everybody; who is neither gateway nor integrator is a device."""
    assert client_id is not None
    if username is None or password != PASSWORD:
        return None
    return ClientIdentity(ROLES.get(username, Role.DEVICE), username, 7 if username.startswith("dev_") else None)


class ListeningBroker(Protocol):
    """Where a broker listens."""

    @property
    def host(self) -> str:
        """Its address."""

    @property
    def port(self) -> int:
        """Its port."""


@contextlib.asynccontextmanager
async def connected(broker: ListeningBroker, username: str, **connect: Any) -> AsyncIterator[Wire]:
    """A client of that name, connected."""
    async with Wire.open(broker.host, broker.port) as client:
        assert await client.connect(username, username, PASSWORD, **connect) == ACCEPTED
        yield client


class QuietClient(Wire):
    """A gateway that acknowledges each message as it comes, so that its sender has its PUBACK."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._packets: asyncio.Queue[Packet | None] = asyncio.Queue()

    async def acknowledge_all(self) -> None:
        """Read until the connection ends."""
        with contextlib.suppress(ConnectionClosedError):
            while True:
                packet = await self.next_packet()
                if packet.kind == Kind.PUBLISH and (message := parse_publish(packet)).qos:
                    await super().acknowledge(message)
                self._packets.put_nowait(packet)
        self._packets.put_nowait(None)

    async def read_packet(self) -> Packet:
        """The next one of those that were taken."""
        async with asyncio.timeout(GUARD_SECONDS):
            packet = await self._packets.get()
        if packet is None:
            self._packets.put_nowait(None)
            raise ConnectionClosedError
        return packet

    async def acknowledge(self, message: Message) -> None:
        """It is already."""


@contextlib.asynccontextmanager
async def subscribed_gateway(broker: ListeningBroker, *filters: str, **connect: Any) -> AsyncIterator[Wire]:
    """The gateway, connected and subscribed (to the devices' own words, unless told otherwise), which takes them."""
    async with QuietClient.open(broker.host, broker.port) as gateway:
        acknowledging = asyncio.create_task(gateway.acknowledge_all())
        try:
            assert await gateway.connect("gateway", "gateway", PASSWORD, **connect) == ACCEPTED
            codes = await gateway.subscribe(*(filters or TAKEN))
            assert SUBSCRIPTION_REFUSED not in codes
            yield gateway
        finally:
            acknowledging.cancel()


@contextlib.asynccontextmanager
async def manually_acknowledging(broker: ListeningBroker, *filters: str, **connect: Any) -> AsyncIterator[Wire]:
    """The same, but it acknowledges only what the test says."""
    async with connected(broker, "gateway", **connect) as gateway:
        codes = await gateway.subscribe(*(filters or TAKEN))
        assert SUBSCRIPTION_REFUSED not in codes
        yield gateway


async def publish_end_marker(broker: ListeningBroker) -> None:
    """Publish on `last/word` from another connection, so that a reader knows that nothing more is on its way."""
    async with Wire.open(broker.host, broker.port) as speaker:
        assert await speaker.connect("speaker", "gateway", PASSWORD) == ACCEPTED
        await speaker.publish("last/word", b"", qos=1)
        await speaker.disconnect()


async def payloads_until_end_marker(broker: ListeningBroker, gateway: Wire) -> list[bytes]:
    """What has reached the gateway."""
    await publish_end_marker(broker)
    return [message.payload for message in await gateway.read_until("last/word")]


async def assert_nothing_more(client: Wire) -> None:
    """What was on its way would be there before the answer to a ping."""
    await client.send(Packet(Kind.PINGREQ, 0, b""))
    assert (await client.read_packet()).kind == Kind.PINGRESP
