"""Probe client of ``gateway doctor``: it connects, looks and leaves nothing on the broker.

It speaks MQTT 3.1.1, which every broker does. It judges by what arrives, since brokers acknowledge what they drop.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import aiomqtt

from gateway.core.addresses import Address
from gateway.domain.messages import Message
from gateway.mqtt.v3.cancellation import raise_if_cancelled
from gateway.mqtt.v3.client import QuietClient

T = TypeVar("T")

ANSWER_SECONDS: Final = 10.0
CONNECT_SECONDS: Final = 4.0
_AT_LEAST_ONCE: Final = 1


class ProbeError(Exception):
    """The broker refused the client, or went away; the message says which."""


class ProbeRefusedError(ProbeError):
    """The broker answered that this user may not connect."""


@dataclass(frozen=True)
class ProbeTarget:
    """Where the broker is; ``tls`` verifies its certificate."""

    address: Address
    tls: ssl.SSLContext | None = None


@dataclass
class Probe:
    """A connected client and all that it received."""

    _client: aiomqtt.Client
    heard: list[Message] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def subscribe(self, *filters: str) -> None:
        """Subscribe to these filters. A refused one just brings nothing.

        Raises:
            ProbeError: the connection is gone.
        """
        wanted = [(each, _AT_LEAST_ONCE) for each in filters]
        await self._unless_gone(self._client.subscribe(wanted, timeout=ANSWER_SECONDS))

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish, and return when the broker has it.

        Raises:
            ProbeError: it closed the connection instead, as some brokers do with what is forbidden.
        """
        sent = self._client.publish(topic, payload, _AT_LEAST_ONCE, retain, timeout=ANSWER_SECONDS)
        await self._unless_gone(sent)

    async def until(self, topic: str, payload: bytes) -> bool:
        """Wait for this message. Return False when it did not arrive."""
        return bool(await self.find(lambda heard: heard.topic == topic and heard.payload == payload))

    async def find(self, told: Callable[[Message], T | None], *, seconds: float = ANSWER_SECONDS) -> T | None:
        """Return the first result of ``told`` that is not None, or None after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                while not self._gone.is_set():
                    self._news.clear()
                    if found := self._found(told):
                        return found
                    await self._news.wait()
        except TimeoutError:
            return None
        return self._found(told)

    async def listen(self) -> None:
        """Receive until the connection ends."""
        with suppress(aiomqtt.MqttError):
            async for message in self._client.messages:
                self.heard.append(Message(str(message.topic), message.payload, message.retain))
                self._news.set()
        self._gone.set()
        self._news.set()

    def _found(self, told: Callable[[Message], T | None]) -> T | None:
        return next((found for each in self.heard if (found := told(each))), None)

    async def _unless_gone(self, asked: Coroutine[Any, Any, object]) -> None:
        """Wait for an answer, or for the end of the connection, which aiomqtt would not notice here."""
        asking, ending = asyncio.ensure_future(asked), asyncio.ensure_future(self._gone.wait())
        await asyncio.wait((asking, ending), return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if not asking.done():
            asking.cancel()
            raise ProbeError("the broker closed the connection")
        with _told():
            asking.result()


@asynccontextmanager
async def connected(target: ProbeTarget, username: str | None, password: str | None) -> AsyncIterator[Probe]:
    """Connect a probe as this user; its client id is the user name.

    Raises:
        ProbeRefusedError: it may not connect.
        ProbeError: the broker cannot be reached.
    """
    client = QuietClient(
        target.address.host,
        target.address.port,
        username=username,
        password=password,
        identifier=username or "doctor_anonymous",
        protocol=aiomqtt.ProtocolVersion.V311,
        clean_session=True,
        tls_context=target.tls,
        timeout=CONNECT_SECONDS,
    )
    async with _session(client):
        probe = Probe(client)
        listening = asyncio.create_task(probe.listen())
        try:
            yield probe
        finally:
            listening.cancel()


@asynccontextmanager
async def _session(client: aiomqtt.Client) -> AsyncIterator[None]:
    try:
        await client.__aenter__()
    except aiomqtt.exceptions.MqttConnectError as error:
        raise_if_cancelled()
        raise ProbeRefusedError(str(error)) from error
    except (aiomqtt.MqttError, OSError) as error:
        raise_if_cancelled()
        raise ProbeError(str(error)) from error
    try:
        raise_if_cancelled()
        yield
    finally:
        with suppress(aiomqtt.MqttError):
            await client.__aexit__(None, None, None)
        raise_if_cancelled()


class _told:  # noqa: N801 - reads as a verb where it is used
    """Turns aiomqtt's exceptions into ours."""

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, aiomqtt.MqttError):
            raise ProbeError(str(error)) from error
