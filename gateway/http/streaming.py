"""Streaming: sends long and endless answers part by part, and ends them.

Nothing is buffered for a client: the next part is made when the last one is on its way. So a slow client costs only
what its socket holds. A client that reads nothing for too long is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import structlog
from starlette.types import Receive, Scope, Send

from gateway.errors import GatewayError, UnauthorizedError
from gateway.http.responses import Stream
from gateway.http.stream_limit import StreamLimiter

log = structlog.get_logger()

ABORT: Final = "gateway.abort"
"""Key of a request's scope for the function that closes the connection without waiting for the client."""

_GOODBYE_SECONDS: Final = 1.0


class Streaming:
    """Sends one stream; an ASGI application.

    It ends with its source, or when the client goes, the gateway stops, or another key takes its place. It also ends
    when ``still_good`` says that its credential is not good any more, and when the client reads nothing for too long.
    """

    def __init__(
        self, stream: Stream, streams: StreamLimiter, key_id: str, still_good: Callable[[], Awaitable[Any]]
    ) -> None:
        self._stream = stream
        self._streams = streams
        self._limits = streams.limits
        self._key_id = key_id
        self._still_good = still_good
        self._failed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it to its end."""
        async with contextlib.aclosing(self._stream.parts):
            with self._streams.opened(self._key_id) as makes_way:
                await send({"type": "http.response.start", "status": 200, "headers": self._headers()})
                if scope["method"] != "HEAD":
                    await self._send_parts(scope, receive, send, makes_way)
                else:
                    await _finish(send)

    def _headers(self) -> list[tuple[bytes, bytes]]:
        headers = {"content-type": self._stream.media_type, **self._stream.headers}
        return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]

    async def _send_parts(self, scope: Scope, receive: Receive, send: Send, makes_way: asyncio.Event) -> None:
        try:
            ended = await _first(
                gone=_gone(receive),
                stopping=self._streams.closing.wait(),
                revoked=self._revoked(),
                made_way=makes_way.wait(),
                over=self._pump(send),
            )
            if self._stream.is_finite and (ended != "over" or self._failed):
                ended = "failed" if self._failed else ended
                await _abort(scope, receive)
            else:
                async with asyncio.timeout(_GOODBYE_SECONDS):
                    await _finish(send)
        except TimeoutError:
            ended = "slow"
            await _abort(scope, receive)
        log.info("http.stream_ended", key_id=self._key_id, because=ended)

    async def _pump(self, send: Send) -> None:
        try:
            async for part in self._stream.parts:
                async with asyncio.timeout(self._limits.send_seconds):
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        except GatewayError as error:  # the head is out: the stream can only end
            self._failed = True
            log.warning("http.stream_failed", key_id=self._key_id, reason=error.message)

    async def _revoked(self) -> None:
        known: str | None = None
        while True:
            await asyncio.sleep(self._limits.recheck_seconds)
            try:
                await self._still_good()
                known = None
            except UnauthorizedError:
                return
            except GatewayError as error:  # unknown for now; the next check decides
                if known != error.message:
                    log.warning("http.stream_not_checked", key_id=self._key_id, reason=error.message)
                known = error.message


async def _finish(send: Send) -> None:
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _abort(scope: Scope, receive: Receive) -> None:
    """Break the connection, and wait until it is gone."""
    scope.get(ABORT, lambda: None)()
    await _gone(receive)


async def _gone(receive: Receive) -> None:
    """Wait until the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _first(**work: Coroutine[Any, Any, Any]) -> str:
    """Run all of these until the first has ended, and cancel the others; return the name of the first.

    Raises whatever the first raises.
    """
    tasks = {asyncio.create_task(each, name=name): name for name, each in work.items()}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    first = next(task for task in tasks if task in done)
    await first
    return tasks[first]
