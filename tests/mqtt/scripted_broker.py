"""A broker that says what the test wants: MQTT 5 packets, or whatever else, over a real socket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import mqtt5

from gateway.mqtt.connect import BrokerAddress, Session, open_session

WELCOME = mqtt5.ConnAckPacket().write()
GUARD_SECONDS = 60.0
WILL = ("gateways/gw/status", b"gone")


class ScriptedBroker:
    """Answers the first CONNECT with `answer`; everything after that is up to the test."""

    def __init__(self, answer: bytes = WELCOME) -> None:
        self.answer = answer
        self.packets: asyncio.Queue[mqtt5.Packet | None] = asyncio.Queue()
        """What the client sent, CONNECT included; `None` is the end of the connection."""
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        if self._writer is not None:
            self._writer.transport.abort()
            while await self.next() is not None:
                pass
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer, rest = writer, b""
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                rest += data
                while (found := _read(rest)) is not None:
                    rest = rest[found[1] :]
                    if isinstance(found[0], mqtt5.ConnectPacket):
                        writer.write(self.answer)
                    self.packets.put_nowait(found[0])
        writer.close()
        self._writer = None
        self.packets.put_nowait(None)

    @property
    def writer(self) -> asyncio.StreamWriter:
        """To the client."""
        assert self._writer, "the client is connected"
        return self._writer

    def say(self, *packets: bytes) -> None:
        """Send these bytes."""
        self.writer.write(b"".join(packets))

    async def next(self) -> mqtt5.Packet | None:
        """The next packet of the client."""
        async with asyncio.timeout(GUARD_SECONDS):
            return await self.packets.get()

    async def until(self, *kinds: type) -> mqtt5.Packet | None:
        """The next packet of one of these kinds; `None` when the connection ends before."""
        while (packet := await self.next()) is not None and not isinstance(packet, kinds):
            pass
        return packet

    def address(self, **changes: object) -> BrokerAddress:
        """Where it listens."""
        return BrokerAddress("127.0.0.1", self.port, "gateway", "secret", version="5", **changes)  # type: ignore[arg-type]


def _read(data: bytes) -> tuple[mqtt5.Packet, int] | None:
    try:
        return mqtt5.read(memoryview(data))
    except IndexError:
        return None


@contextlib.asynccontextmanager
async def joined(broker: ScriptedBroker, **changes: object) -> AsyncIterator[Session]:
    """The gateway's session at this broker, its CONNECT read."""
    async with open_session(broker.address(**changes), client_id="gw", will=WILL) as session:
        assert isinstance(await broker.next(), mqtt5.ConnectPacket)
        yield session


def message(packet_id: int | None = 1, payload: bytes = b"{}", **fields: object) -> bytes:
    """A PUBLISH of the broker; without a packet id at QoS 0."""
    qos = mqtt5.QoS.AT_MOST_ONCE if packet_id is None else mqtt5.QoS.AT_LEAST_ONCE
    fields = {"qos": qos, "packet_id": packet_id, **fields}
    return mqtt5.PublishPacket("devices/dev_A/heartbeat", payload, **fields).write()  # type: ignore[arg-type]
