"""Load generator for heartbeats, with so little CPU per heartbeat that it does not limit the measurement.

Every device has its own connection, password and topic, as the broker's access rules require. It has no flash, no
commands and no clock. The n-th heartbeats of all devices differ in the topic only, so each is encoded once.
"""

from __future__ import annotations

import asyncio
import json
import math
import ssl
import struct
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from device_sim.errors import UnreachableError

PAYLOAD_BYTES: Final = 250
MOST_UNANSWERED: Final = 200
"""Unacknowledged heartbeats per device. At this limit the client stops sending, since the broker is behind."""
_CONNECTING_AT_ONCE: Final = 50  # the listen backlog of a broker is 100
_TICK_SECONDS: Final = 0.005
_WRITES_PER_SECOND: Final = 5
_LAST_PACKET_ID: Final = 0xFFFF
_ANSWER_SECONDS: Final = 30.0
_ACK_BYTES: Final = 4
_ACCEPTED: Final = b"\x20\x02\x00\x00"
_DISCONNECT: Final = b"\xe0\x00"
_USERNAME_PASSWORD_CLEAN: Final = 0b1100_0010
_STARTED_AT: Final = datetime.now(UTC)


@dataclass(frozen=True)
class Broker:
    """Address of the broker, its certificate authorities, and its topic prefix before ``devices/``."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    prefix: str = ""


@dataclass(frozen=True)
class LoadPlan:
    """Size of the load: ``rate`` heartbeats a second (0: as many as the broker accepts), for so many seconds."""

    rate: float
    seconds: float


@dataclass(frozen=True)
class LoadResult:
    """Result of a load. ``cpu_seconds`` is the processor time of this program while it sent."""

    devices: int
    sent: int
    acknowledged: int
    seconds: float
    cpu_seconds: float

    @property
    def per_second(self) -> float:
        """Return the heartbeats per second that the broker acknowledged."""
        return self.acknowledged / self.seconds if self.seconds else 0.0

    @property
    def per_cpu_second(self) -> float:
        """Return the heartbeats per second that one core could send without other work."""
        return self.sent / self.cpu_seconds if self.cpu_seconds else math.inf

    def as_dict(self) -> dict[str, float]:
        """Return the result for a machine."""
        return {**asdict(self), "per_second": self.per_second, "per_cpu_second": self.per_cpu_second}

    def __str__(self) -> str:
        """Return the result for people."""
        return (
            f"{self.acknowledged:,} of {self.sent:,} heartbeats taken in {self.seconds:.1f} s: {self.per_second:,.0f} "
            f"a second from {self.devices:,} devices. One core could make {self.per_cpu_second:,.0f} a second."
        )


class LoadClient(asyncio.Protocol):
    """Client of one device: connects, sends, counts the acknowledgements."""

    def __init__(self, name: str, password: str, prefix: str) -> None:
        loop = asyncio.get_running_loop()
        self.connected: asyncio.Future[None] = loop.create_future()
        self.sent = 0
        self._connect_packet = _encode_connect(name, password)
        self._publish_head = _publish_head(f"{prefix}devices/{name}/heartbeat".encode())
        self._received = -_ACK_BYTES
        self._transport: asyncio.Transport | None = None

    @property
    def acknowledged(self) -> int:
        """Return how many heartbeats the broker acknowledged."""
        return max(0, self._received // _ACK_BYTES)

    @property
    def unanswered(self) -> int:
        """Return how many heartbeats the broker has not acknowledged."""
        return self.sent - self.acknowledged

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send CONNECT."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._connect_packet)

    def data_received(self, data: bytes) -> None:
        """Process one CONNACK and then PUBACKs, all of one length. No other packets arrive."""
        if self._received < 0 and not self.connected.done():
            if data.startswith(_ACCEPTED):
                self.connected.set_result(None)
            else:
                self.connected.set_exception(
                    UnreachableError("the broker refused a device: is its password still good?")
                )
        self._received += len(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the wait for the CONNACK. Messages without an acknowledgement stay so."""
        self._transport = None
        if not self.connected.done():
            self.connected.set_exception(UnreachableError(f"the broker closed a connection: {exc or 'without a word'}"))

    @property
    def is_closed(self) -> bool:
        """Return whether the connection has ended."""
        return self._transport is None

    def send(self, count: int) -> None:
        """Send so many heartbeats in one write."""
        if self._transport is not None:
            head, first = self._publish_head, self.sent
            self._transport.write(b"".join([head + _publish_tail(number) for number in range(first, first + count)]))
            self.sent += count

    def disconnect(self) -> None:
        """Disconnect."""
        if self._transport is not None:
            self._transport.write(_DISCONNECT)
            self._transport.close()


async def run(broker: Broker, devices: Sequence[tuple[str, str]], plan: LoadPlan) -> LoadResult:
    """Connect these devices (id, password), send, and wait for the broker's last acknowledgements.

    Raises:
        UnreachableError: the broker does not answer, refused a device, or closed the connection of one.
    """
    gate = asyncio.Semaphore(_CONNECTING_AT_ONCE)
    clients = await asyncio.gather(*(_open(broker, gate, *credentials) for credentials in devices))
    try:
        started_at, cpu = time.perf_counter(), time.process_time()
        await _send(clients, plan)
        cpu = time.process_time() - cpu
        await _wait_for_acks(clients)
        seconds = time.perf_counter() - started_at
    finally:
        for client in clients:
            client.disconnect()
    sent, acknowledged = (
        sum(each) for each in zip(*((client.sent, client.acknowledged) for client in clients), strict=True)
    )
    return LoadResult(len(clients), sent, acknowledged, seconds, cpu)


async def _open(broker: Broker, gate: asyncio.Semaphore, name: str, password: str) -> LoadClient:
    async with gate:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                _, client = await asyncio.get_running_loop().create_connection(
                    lambda: LoadClient(name, password, broker.prefix), broker.host, broker.port, ssl=broker.tls
                )
                await client.connected
        except OSError as error:
            raise UnreachableError(f"no broker answers at {broker.host}:{broker.port}: {error}") from error
    return client


async def _send(clients: Sequence[LoadClient], plan: LoadPlan) -> None:
    loop = asyncio.get_running_loop()
    started_at, position, sent = loop.time(), 0, 0
    burst = _burst(plan.rate, len(clients))
    while (elapsed := loop.time() - started_at) < plan.seconds:
        due = math.inf if not plan.rate else int(elapsed * plan.rate) - sent
        for _ in clients:
            if due < 1:
                break
            client, position = clients[position], (position + 1) % len(clients)
            count = int(min(burst, due, MOST_UNANSWERED - client.unanswered))
            if count > 0:
                client.send(count)
                sent, due = sent + count, due - count
        if clients[position].is_closed:
            raise UnreachableError("the broker closed the connection of a device in the middle of the load")
        await asyncio.sleep(_TICK_SECONDS if plan.rate else 0)


def _burst(rate: float, devices: int) -> int:
    """Return the heartbeats per write. Few large writes per device cost less than many small ones."""
    return min(MOST_UNANSWERED, math.ceil(rate / devices / _WRITES_PER_SECOND)) if rate else MOST_UNANSWERED // 2


async def _wait_for_acks(clients: Sequence[LoadClient]) -> None:
    """Wait for the last acknowledgements, or until none has arrived for a while."""
    loop = asyncio.get_running_loop()
    last_count, changed_at = -1, loop.time()
    while any(client.unanswered and not client.is_closed for client in clients):
        count = sum(client.acknowledged for client in clients)
        if count != last_count:
            last_count, changed_at = count, loop.time()
        elif loop.time() - changed_at > _ANSWER_SECONDS:
            return
        await asyncio.sleep(_TICK_SECONDS)


@lru_cache(maxsize=8_192)
def _publish_tail(number: int) -> bytes:
    """Return the bytes after the topic: packet id and payload, the same for all devices."""
    return struct.pack("!H", number % _LAST_PACKET_ID + 1) + encode_heartbeat(number)


def encode_heartbeat(number: int) -> bytes:
    """Return a heartbeat with every field of health, PAYLOAD_BYTES long; ``sent_at`` differs for each number."""
    fields: dict[str, object] = {
        "battery_percent": 30 + number % 70,
        "storage_used_mb": 512 + number % 4_096,
        "storage_total_mb": 8_192,
        "signal_strength_dbm": -61,
        "firmware_version": "",
        "device_state": "idle",
        "pending_recordings": number % 7,
        "flags": 8,
        "connection_type": ["wifi"],
        "sent_at": (_STARTED_AT + timedelta(milliseconds=number)).isoformat(timespec="milliseconds"),
    }
    fields["firmware_version"] = "1.4.2".ljust(PAYLOAD_BYTES - len(_compact(fields)), "0")
    return _compact(fields)


def _compact(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def _publish_head(topic: bytes) -> bytes:
    """Return PUBLISH at QoS 1 up to the packet id [MQTT 3.1.1, 3.3]."""
    return b"\x32" + _encode_length(2 + len(topic) + 2 + PAYLOAD_BYTES) + _encode_text(topic)


def _encode_connect(name: str, password: str) -> bytes:
    """Return CONNECT with a clean session and no keepalive; the client id is the user name [MQTT 3.1.1, 3.1]."""
    head = _encode_text(b"MQTT") + struct.pack("!BBH", 4, _USERNAME_PASSWORD_CLEAN, 0)
    body = head + _encode_text(name.encode()) * 2 + _encode_text(password.encode())
    return b"\x10" + _encode_length(len(body)) + body


def _encode_length(length: int) -> bytes:
    encoded = bytearray()
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(encoded)


def _encode_text(raw: bytes) -> bytes:
    return struct.pack("!H", len(raw)) + raw
