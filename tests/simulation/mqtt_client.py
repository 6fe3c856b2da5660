"""An MQTT client without bytes: what the gateway's link and the devices' radios stand on in the simulation."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tests.simulation.broker import Broker
from tests.simulation.broker_session import Packet, Peer, Will
from tests.simulation.network import TcpConnection


class ClosedError(Exception):
    """The connection is gone, or was never made; the message says why."""


class NotAuthorisedError(ClosedError):
    """The broker does not let this client in."""


class Client:
    """One connection to the broker."""

    def __init__(self, broker: Broker, latency: Callable[[], float]) -> None:
        self._loop = asyncio.get_running_loop()
        self.broker = broker
        self.connection = TcpConnection(latency)
        self.connection.on_client_close = self._on_close
        self.closed: asyncio.Future[str] = self._loop.create_future()
        self.inbox: deque[Packet] = deque()
        self._arrived = asyncio.Event()
        self._peer: Peer | None = None

    async def connect(self, client_id: str, username: str, password: str, will: Will, seconds: float = 4.0) -> None:
        """Connect with a persistent session.

        Raises:
            NotAuthorisedError: the broker refuses.
            ClosedError: it is not there, or did not answer in time.
        """
        peer = self._peer = Peer(self.connection, client_id, username, will, self._receive)
        is_accepted = await self._request(partial(self.broker.connect, peer, password), seconds)
        if not is_accepted:
            raise NotAuthorisedError("not authorised")

    async def _request(self, request: Callable[[Callable[[bool], None]], None], seconds: float) -> bool:
        answer: asyncio.Future[bool] = self._loop.create_future()
        self.connection.up.send(request, partial(_settle, answer))
        await asyncio.wait((answer, self.closed), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        reason = self.closed.result() if self.closed.done() else "no answer in time"
        self.connection.cut(reason)
        raise ClosedError(reason)

    @property
    def peer(self) -> Peer:
        """The broker's end."""
        if self._peer is None:
            raise ClosedError("not connected")
        return self._peer

    def send(
        self, topic: str, payload: bytes, *, qos: int, retain: bool, epoch: int = 0
    ) -> "asyncio.Future[str | None]":
        """Publish; the future gets why it was refused, or ``None``. It stays open when the connection ends before."""
        answer: asyncio.Future[str | None] = self._loop.create_future()
        packet = Packet(topic, payload, qos, retain, epoch=epoch)
        self.connection.up.send(self.broker.publish, self.peer, packet, partial(_settle, answer))
        if not qos:
            answer.set_result(None)
        return answer

    async def subscribe(self, filters: Sequence[str], seconds: float = 10.0) -> None:
        """Subscribe; raises ClosedError."""
        await self._request(partial(self.broker.subscribe, self.peer, tuple(filters)), seconds)

    async def unsubscribe(self, filters: Sequence[str], seconds: float = 10.0) -> None:
        """Give subscriptions up; raises ClosedError."""
        await self._request(partial(self.broker.unsubscribe, self.peer, tuple(filters)), seconds)

    def acknowledge(self, packet: Packet) -> None:
        """PUBACK."""
        self.connection.up.send(self.broker.acknowledged, self.peer, packet.packet_id)

    async def wait_for_message(self) -> None:
        """Wait until there is something in the inbox; raises ClosedError when nothing can come any more."""
        while not self.inbox:
            if self.closed.done():
                raise ClosedError(self.closed.result())
            self._arrived.clear()
            await self._arrived.wait()

    def disconnect(self) -> None:
        """Send DISCONNECT."""
        self.connection.up.send(self.broker.disconnect, self.peer)

    def _receive(self, packet: Packet) -> None:
        self.inbox.append(packet)
        self._arrived.set()

    def _on_close(self, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)
        self._arrived.set()


def _settle(future: asyncio.Future[Any], answer: object) -> None:
    if not future.done():
        future.set_result(answer)
