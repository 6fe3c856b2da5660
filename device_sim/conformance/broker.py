"""Hostile broker: MQTT 3.1.1 for exactly one device, which withholds answers and cuts the link on demand."""

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import Callable
from typing import Literal, TypeAlias

from device_sim.conformance import packets
from device_sim.conformance.log import Log
from device_sim.conformance.packets import Connect, Packet, Publish, Subscribe

Answer: TypeAlias = Literal["puback", "hold", "cut", "puback and cut"]
SUBACK_DELAY_SECONDS = 0.05
"""A device that does not wait for the SUBACK publishes in this time, and the log then shows the wrong order."""
_READ_BYTES = 64 * 1024
_HIGHEST_QOS = 1
_UNSUPPORTED = 0x84
_REFUSAL_OF_MQTT_5 = bytes([0x20, 3, 0, _UNSUPPORTED, 0])


class Link:
    """One connection of the device, to the listener at `port`."""

    def __init__(self, number: int, port: int, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.port = port
        self.connect: Connect | None = None
        self.subscriptions: dict[str, int] = {}
        self.is_open = True
        self.is_online = False
        self._writer = writer

    def send(self, data: bytes) -> None:
        """Send bytes, unless the link is closed."""
        if self.is_open:
            self._writer.write(data)

    def cut(self) -> None:
        """Close the socket at once, after what was sent."""
        self.is_open = False
        self._writer.transport.abort()


class Broker:
    """Broker for one device. The public attributes decide what it does, and may change at any time.

    Each address where it listens is a separate broker for the device. `home` is the port of the one that
    alone knows the device; None: each does. `ports` has them in the order of their start.

    `admit` returns the CONNACK code for a CONNECT. `answer` decides about each PUBLISH of the device. `retained` is
    sent after each SUBACK. `link` is the connection that was accepted last, as long as it is open. `latest` is the
    number of the newest connection.
    """

    def __init__(self, log: Log, tls: ssl.SSLContext | None = None) -> None:
        self.admit: Callable[[Connect], int] = lambda _connect: packets.CONNACK_ACCEPTED
        self.answer: Callable[[Publish], Answer] = lambda _message: "puback"
        self.retained: dict[str, bytes] = {}
        self.link: Link | None = None
        self.home: int | None = None
        self.ports: list[int] = []
        self.latest = 0
        self._log = log
        self._tls = tls
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._packet_ids = itertools.cycle(range(1, 0x10000))
        self._had_session = False
        self._servers: list[asyncio.Server] = []

    async def start(self, host: str, port: int) -> None:
        """Listen here, too; port 0 takes a free one.

        Raises:
            OSError: the address is in use, or is not one of this machine.
        """
        shutdown = None if self._tls is None else 1.0
        server = await asyncio.start_server(self._open, host, port, ssl=self._tls, ssl_shutdown_timeout=shutdown)
        self._servers.append(server)
        self.ports.append(server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close the listeners and every connection."""
        for server in self._servers:
            server.close()
        for link in list(self._links):
            link.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def send(self, topic: str, payload: bytes, *, retain: bool = False, dup: bool = False, qos: int = 1) -> None:
        """Send one message on the present link, as long as there is one."""
        if self.link is not None:
            packet_id = next(self._packet_ids) if qos else 0
            self.link.send(packets.publish(Publish(topic, payload, qos, retain, dup, packet_id)))

    def cut(self) -> None:
        """Cut the present link without a word."""
        if self.link is not None:
            self.close(self.link)

    def close(self, link: Link) -> None:
        """Close one link."""
        if link.is_open:
            link.cut()
            self._log.add("closed", link.number)
        if self.link is link:
            self.link = None

    def _open(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.latest += 1
        link = Link(self.latest, writer.get_extra_info("sockname")[1], writer)
        self._links.add(link)
        self._log.add("opened", link.number)
        try:
            await self._read(link, reader)
        except packets.ProtocolError as error:
            self._log.add("violation", link.number, str(error))
        except OSError:
            pass  # the device reset the connection, which is one way to end it
        finally:
            self.close(link)
            self._links.discard(link)
            with contextlib.suppress(OSError):
                writer.close()

    async def _read(self, link: Link, reader: asyncio.StreamReader) -> None:
        received = packets.PacketReader()
        while data := await reader.read(_READ_BYTES):
            for packet in received.feed(data):
                if not link.is_open:
                    return
                self._receive(link, packet)

    def _receive(self, link: Link, packet: Packet) -> None:
        if link.connect is None and not isinstance(packet, Connect):
            raise packets.ProtocolError("the first packet is not a CONNECT")
        match packet:
            case Connect():
                self._connect(link, packet)
            case Subscribe():
                self._subscribe(link, packet)
            case packets.Unsubscribe():
                for name in packet.filters:
                    link.subscriptions.pop(name, None)
                link.send(packets.unsuback(packet.packet_id))
            case Publish():
                self._publish(link, packet)
            case packets.Pingreq():
                link.send(packets.pingresp())
            case packets.Disconnect():
                self._log.add("disconnect", link.number)
                self.close(link)
            case packets.Puback():
                pass  # the acknowledgement of the command says more

    def _connect(self, link: Link, packet: Connect) -> None:
        if link.connect is not None:
            raise packets.ProtocolError("a second CONNECT on one connection")
        link.connect = packet
        self._log.add("connect", link.number, packet)
        if packet.level != packets.LEVEL_3_1_1:
            link.send(_REFUSAL_OF_MQTT_5)
            self._log.add("connack", link.number, _UNSUPPORTED)
            self.close(link)
            return
        is_home = self.home in (None, link.port)
        code = self.admit(packet) if is_home else packets.CONNACK_NOT_AUTHORISED
        link.send(packets.connack(code, session_present=self._had_session and not packet.clean_session))
        self._log.add("connack", link.number, code)
        if code != packets.CONNACK_ACCEPTED:
            self.close(link)
            return
        before, self.link, self._had_session = self.link, link, True
        if before is not None:
            self.close(before)  # the same client id takes the session over [3.1.4]
            self.link = link

    def _subscribe(self, link: Link, packet: Subscribe) -> None:
        self._log.add("subscribe", link.number, packet)
        asyncio.get_running_loop().call_later(SUBACK_DELAY_SECONDS, self._confirm, link, packet)

    def _confirm(self, link: Link, packet: Subscribe) -> None:
        if not link.is_open:
            return
        granted = {name: min(qos, _HIGHEST_QOS) for name, qos in packet.filters}
        link.subscriptions |= granted
        link.send(packets.suback(packet.packet_id, list(granted.values())))
        self._log.add("suback", link.number, packet)
        for topic, payload in self.retained.items():
            if any(_covers(name, topic) for name in granted):
                self.send(topic, payload, retain=True)

    def _publish(self, link: Link, message: Publish) -> None:
        self._log.add("publish", link.number, message)
        if message.topic.endswith("/status") and message.payload == b'{"status":"online"}':
            link.is_online = True
        answer = self.answer(message)
        if "puback" in answer and message.qos:
            link.send(packets.puback(message.packet_id))
            self._log.add("puback", link.number, message)
        if "cut" in answer:
            self.close(link)


def _covers(name: str, topic: str) -> bool:
    """Return whether a filter covers a topic [4.7]. A wildcard is a finding, and still gets its messages."""
    wanted, given = name.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted, given = wanted[:-1], given[: len(wanted) - 1]
    return len(wanted) == len(given) and all(one in ("+", other) for one, other in zip(wanted, given, strict=True))
