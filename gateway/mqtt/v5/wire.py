"""Wire to a broker that speaks MQTT 5: bytes to packets and back, around the codec :mod:`mqtt5`.

A breach of the protocol ends the connection: DISCONNECT with the reason, then the socket is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import mqtt5
from mqtt5 import DisconnectReasonCode as Reason

from gateway.mqtt.session import LinkError
from gateway.runtime.loop_priority import Loop

MAX_PACKET_BYTES: Final = 4_194_304
"""Announced to the broker, which leaves out larger messages [MQTT-3.1.2-25]. Devices may not send them anyway."""
READ_BYTES: Final = 65_536
_CONNACK: Final = 0x20
_OLD_CONNACK: Final = b"\x20\x02"
_PANIC: Final = "PanicException"


class ProtocolError(LinkError):
    """The broker did what MQTT forbids; ``reason`` is the code of our DISCONNECT."""

    def __init__(self, text: str, reason: Reason = Reason.PROTOCOL_ERROR) -> None:
        self.reason = reason
        super().__init__(f"The broker broke the protocol: {text}. If it goes on so, set mqtt_version to 3.1.1.")


class Wire(asyncio.BufferedProtocol):
    """One socket. The packets of each read go to ``received``; ``closed`` holds why the connection ended, once it has.

    It reads into one buffer that it keeps, a piece at a time, so that other tasks of the loop get a turn in between. A
    loop with priorities is told that this socket carries bulk.
    """

    def __init__(self, received: Callable[[Sequence[mqtt5.Packet]], None]) -> None:
        self.closed: asyncio.Future[LinkError] = asyncio.get_running_loop().create_future()
        self.received_since_ping = False
        """Whether anything arrived since this was last set to false."""
        self.old_version = False
        """Whether the broker answered like one of MQTT 3.1.1."""
        self._received = received
        self._buffer = bytearray(READ_BYTES)
        self._filled = 0
        self._first = True
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note that the socket is open."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        loop = asyncio.get_running_loop()
        if isinstance(loop, Loop):
            self._descriptor = transport.get_extra_info("socket").fileno()
            loop.deprioritise(self._descriptor)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the loop's
        """Return the free part of the buffer, behind an incomplete packet."""
        if self._filled == len(self._buffer):  # one packet fills it
            self._buffer.extend(bytes(len(self._buffer)))
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take whole packets out; an incomplete one stays."""
        if self.closed.done():
            return
        self.received_since_ping = True
        try:
            self._take(self._filled + nbytes)
        except ProtocolError as error:
            self.fail(error)

    def _take(self, filled: int) -> None:
        """Take packets out of the filled part of the buffer, and move what is left to its beginning."""
        view, at = memoryview(self._buffer)[:filled], 0
        if self._first:
            self._look_at(bytes(view[: len(_OLD_CONNACK)]))
        packets = list[mqtt5.Packet]()
        try:
            while (found := _read(view[at:])) is not None:
                packet, length = found
                packets.append(packet)
                at += length
        finally:  # those before a bad one count
            self._received(packets)
        self._filled = filled - at
        if self._filled > MAX_PACKET_BYTES:
            raise ProtocolError("a packet is larger than it may be", Reason.PACKET_TOO_LARGE)
        view[: self._filled] = bytes(view[at:])

    def _look_at(self, answer: bytes) -> None:
        """Check an answer to CONNECT, since the codec might wait for more bytes of a bad one.

        Raises:
            ProtocolError: it is no CONNACK.
        """
        self._first = False
        self.old_version = answer.startswith(_OLD_CONNACK)  # of MQTT 5 it has three bytes at least
        if answer[0] != _CONNACK:
            raise ProtocolError("it answers CONNECT with something else")

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the socket is about to be closed."""
        loop = asyncio.get_running_loop()
        if isinstance(loop, Loop):
            loop.forget(self._descriptor)
        self._end(LinkError(f"The connection to the broker was lost: {exc or 'it was closed'}"))

    def pause_writing(self) -> None:
        """Note that the broker does not read as fast as we write."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Note that it has caught up."""
        self._writable.set()

    def send(self, data: bytes) -> None:
        """Write packets; do nothing once the connection is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the broker reads, or is gone."""
        await self._writable.wait()

    def pause(self) -> None:
        """Stop reading, so that the broker has to wait."""
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    @property
    def paused(self) -> bool:
        """Return whether it is we who do not read."""
        return self._paused

    def fail(self, error: LinkError) -> None:
        """End the connection for this reason, so that the will is published."""
        if isinstance(error, ProtocolError):
            self.send(mqtt5.DisconnectPacket(reason_code=error.reason).write())
        self._end(error)
        self.close()

    def close(self) -> None:
        """Close the socket after everything written has left."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the socket now."""
        self._end(LinkError("The connection was closed."))
        if self._transport is not None:
            self._transport.abort()

    def _end(self, error: LinkError) -> None:
        self._writable.set()
        if not self.closed.done():
            self.closed.set_result(error)


def _read(view: memoryview) -> tuple[mqtt5.Packet, int] | None:
    """Return the first packet and its length, or None when it is incomplete.

    Raises:
        ProtocolError: it is no packet.
    """
    try:
        return mqtt5.read(view)
    except IndexError:
        return None
    except ValueError as error:
        raise ProtocolError(str(error), Reason.MALFORMED_PACKET) from error
    except BaseException as error:
        if type(error).__name__ != _PANIC:  # what the codec raises for text that is not UTF-8; no Exception, by design
            raise
        raise ProtocolError("a packet cannot be read", Reason.MALFORMED_PACKET) from error
