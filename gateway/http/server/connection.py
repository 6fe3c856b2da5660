"""A connection of the HTTP server: uvicorn's, with limits on what a client may send and may leave unread."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

import httptools
import structlog
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.core.addresses import site_of
from gateway.http.auth import PEER
from gateway.http.security_headers import HSTS_SECONDS, security_headers
from gateway.http.server.connection_limit import ConnectionLimiter
from gateway.http.server.head_refusals import (
    FRAMING_TOO_LARGE,
    FULL,
    HEAD_TOO_LARGE,
    MAX_HEAD_BYTES,
    NOT_HTTP,
    HeadRefusal,
    bad_head,
)
from gateway.http.server.request_head import fault_in, with_host_of_url, without_upgrade
from gateway.http.streaming import ABORT
from gateway.runtime.paced_log import Paced

log = structlog.get_logger()

HEAD_SECONDS: Final = 60.0
MAX_BODY_OVERHEAD: Final = 65_536
"""Bytes of chunk sizes, extensions and trailers that one request may have. A body in pieces of 16 bytes fits."""
OVERHEAD_PER_BODY_BYTE: Final = 1
WRITE_SECONDS: Final = 30.0
LEAST_READ_BYTES: Final = 4_096
"""A client that reads less than that in this time, and not all that there is, is cut off."""
RESERVED_PATHS: Final = frozenset({b"/health", b"/ready"})
"""Paths that are answered although all places are taken."""
_PIECE_BYTES: Final = 512
"""Bytes that are parsed at a time. Requests in a pipeline wait here, a few dozen of the smallest."""
_LINGER_SECONDS: Final = 2.0
_LINGER_BYTES: Final = 1 << 20
"""What a client may still send of a request that was answered before its end, so that it can read the answer."""


class _RefusedHeadError(Exception):
    """Raised into the parser, which stops so that the request is refused."""


class _Flow(FlowControl):
    """uvicorn's flow control, which also reads nothing while received bytes wait to be parsed."""

    held = False

    def resume_reading(self) -> None:
        """Read on, unless bytes wait."""
        if not self.held:
            super().resume_reading()


class HttpConnection(HttpToolsProtocol):
    """uvicorn's connection with limits on a request's head, on its framing and on the time it may take.

    A request that is answered before it is complete ends the connection: the rest of it is dropped.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._unfinished = 0  # bytes of an incomplete head
        self._in_head = True
        self._in_request = False
        self._body_bytes = 0
        self._bytes_after_head = 0
        self._lingering_bytes: int | None = None  # None: the connection goes on
        self._refused_with = NOT_HTTP
        self._wants_upgrade = False
        self._held = memoryview(b"")  # received bytes that must wait to be parsed
        self._is_extra = False  # beyond the places, for health checks
        self._write_deadline: asyncio.TimerHandle | None = None
        self._served: RequestResponseCycle | None = None  # the one at work; `cycle` is the newest of a pipeline

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a client, and wait for its first request."""
        super().connection_made(transport)
        self.flow = self._flow = _Flow(transport)
        self._address = site_of(self.client[0] if self.client else "")
        self._room: ConnectionLimiter = self.config.room  # type: ignore[attr-defined]  # the server made it
        if not self._room.enter(self, self._address):
            self._room = self.config.reserve  # type: ignore[attr-defined]
            self._is_extra = True
            if not self._room.enter(self, self._address):
                self._refuse(FULL)
                return
        self._expect_head()
        transport.set_write_buffer_limits(high=1, low=0)  # so that each unread byte is noticed

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the client is gone."""
        self._unset_deadline()
        self._unset_write_deadline()
        self._held = memoryview(b"")
        self._room.leave(self)
        super().connection_lost(exc)
        if self._served is not None:  # uvicorn informs the newest request alone
            self._served.disconnected = True
            self._served.message_event.set()

    def give_way(self) -> None:
        """End an idle connection to make room for a new one, without waiting for its client to read."""
        self.transport.abort()

    def pause_writing(self) -> None:
        """Note that the client has unread data."""
        super().pause_writing()
        self._room.mark_idle(self)
        self._expect_reading()

    def resume_writing(self) -> None:
        """Note that it has read everything."""
        super().resume_writing()
        self._unset_write_deadline()
        if self._served is not None and not self._served.response_complete:
            self._room.mark_busy(self)
        self._parse()

    def data_received(self, data: bytes) -> None:
        """Receive bytes of a head, of a body, or of both."""
        if self._lingering_bytes is not None:
            self._linger(len(data))
            return
        self._held = memoryview(bytes(self._held) + data if self._held else data)
        self._parse()

    def _parse(self) -> None:
        """Parse what arrived, until a request must wait for the one before it, or for its client to read."""
        while self._held and not self._must_wait():
            piece, self._held = self._held[:_PIECE_BYTES], self._held[_PIECE_BYTES:]
            self._parse_piece(piece)
        if self.transport.is_closing() or self._lingering_bytes is not None:
            self._held = memoryview(b"")
        was_held, self._flow.held = self._flow.held, bool(self._held)
        if self._flow.held:
            self._flow.pause_reading()
        elif was_held:
            self._flow.resume_reading()

    def _must_wait(self) -> bool:
        over = self.transport.is_closing() or self._lingering_bytes is not None
        return over or len(self.pipeline) > 0 or self._flow.write_paused

    def _parse_piece(self, piece: memoryview) -> None:
        if self._in_request:
            self._bytes_after_head += len(piece)
        self._feed(piece)
        if self._has_too_much_framing() and not self.transport.is_closing():
            self._refuse(FRAMING_TOO_LARGE)
        self._unfinished = self._unfinished + len(piece) if self._in_head else 0
        if self._unfinished > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(HEAD_TOO_LARGE)

    def _feed(self, piece: memoryview) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_without_upgrade(piece[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(self._refused_with)

    def _read_without_upgrade(self, rest: memoryview) -> None:
        """Handle a request that asks for another protocol as if it did not (RFC 9110, section 7.8).

        The parser reads no body behind such a head. It would take the body's bytes for the next request.
        """
        head = without_upgrade(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)
        self._wants_upgrade = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        self._feed(memoryview(head))
        if rest and not self.transport.is_closing():
            self._feed(rest)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._served = cycle
        super()._start_asgi_task(cycle, app)

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._in_head = True
        self._body_bytes = self._bytes_after_head = 0
        super().on_message_begin()
        self.scope[ABORT] = self.transport.abort  # type: ignore[typeddict-unknown-key]
        self.scope[HSTS_SECONDS] = self._hsts_seconds()  # type: ignore[typeddict-unknown-key]
        self.scope[PEER] = self.transport.get_extra_info("peercert")  # type: ignore[typeddict-unknown-key]

    def on_headers_complete(self) -> None:
        """Complete a head."""
        self._in_head = False
        self._unset_deadline()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            self._refused_with = HEAD_TOO_LARGE
            raise _RefusedHeadError
        parser = self.parser
        fault = fault_in(parser.get_method(), parser.get_http_version(), self.url, self.headers)
        if fault is not None:
            self._refused_with = bad_head(fault)
            raise _RefusedHeadError
        if parser.should_upgrade():
            self._wants_upgrade = True
            return
        if not self._has_place():
            self._refused_with = FULL
            raise _RefusedHeadError
        self.headers[:] = with_host_of_url(self.url, self.headers)
        self._in_request = True
        super().on_headers_complete()
        if self._is_extra:
            self.cycle.keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Receive a header. One behind the body is a trailer, which is not kept."""
        if self._in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Receive a part of the body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Complete a request."""
        if self._wants_upgrade:
            return
        self._in_request = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Complete an answer; the next request may come, in time."""
        # The newest request is the answered one: those before it in a pipeline were complete when it began.
        if self._in_request and self.cycle.response_complete:
            self._end_after_answer()
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._expect_head()
        self._parse()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own words are for its log
        """Refuse what could not be parsed, with an error of the API."""
        self._refuse(self._refused_with)

    def _has_place(self) -> bool:
        """Return whether this request is served: beyond the places only few are."""
        if not self._is_extra or self.url.partition(b"?")[0] in RESERVED_PATHS:
            return True
        room: ConnectionLimiter = self.config.room  # type: ignore[attr-defined]  # the server made it
        if not room.enter(self, self._address):
            return False
        self._room.leave(self)
        self._room, self._is_extra = room, False
        return True

    def _has_too_much_framing(self) -> bool:
        overhead = self._bytes_after_head - self._body_bytes
        return self._in_request and overhead > MAX_BODY_OVERHEAD + OVERHEAD_PER_BODY_BYTE * self._body_bytes

    def _end_after_answer(self) -> None:
        """Close the writing side, and read what the client has on its way, so that it can read the answer."""
        self._lingering_bytes = 0
        self.loop.call_later(_LINGER_SECONDS, self.transport.abort)
        if self.transport.can_write_eof():
            with contextlib.suppress(OSError):  # the client has gone
                self.transport.write_eof()
        else:
            self.transport.close()

    def _linger(self, count: int) -> None:
        assert self._lingering_bytes is not None
        self._lingering_bytes += count
        if self._lingering_bytes > _LINGER_BYTES:
            self.transport.abort()

    def _hsts_seconds(self) -> int:
        seconds: int = self.config.hsts_seconds  # type: ignore[attr-defined]  # the server set it
        return seconds

    def _refuse(self, refusal: HeadRefusal) -> None:
        self.transport.write(refusal.answer(security_headers(self._hsts_seconds())))
        self.transport.close()

    def _expect_reading(self) -> None:
        self._unset_write_deadline()
        left = self.transport.get_write_buffer_size()
        self._write_deadline = self.loop.call_later(WRITE_SECONDS, self._look_at_reading, left)

    def _look_at_reading(self, before: int) -> None:
        if before - self.transport.get_write_buffer_size() < LEAST_READ_BYTES:
            _tell_slow()
            self.transport.abort()
        else:
            self._expect_reading()

    def _unset_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def _expect_head(self) -> None:
        self._unset_deadline()
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)
        self._room.mark_idle(self)

    def _unset_deadline(self) -> None:
        self._room.mark_busy(self)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


_tell_slow: Final = Paced(lambda count: log.warning("http.slow_readers_cut", since_last_told=count))
