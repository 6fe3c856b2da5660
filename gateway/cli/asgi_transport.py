"""Transport of httpx into an ASGI application of this process, part by part.

``httpx.ASGITransport`` collects the whole answer first. An export of a person may be a gigabyte.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx

from gateway.http.streaming import ABORT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp, Message


class StreamingTransport(httpx.AsyncBaseTransport):
    """Sends requests to the application. At most one part of an answer waits for its reader."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer when its head is there."""
        call = _Call(self._app, request, await request.aread())
        head = await call.next()
        return httpx.Response(head["status"], headers=head["headers"], stream=call)


class _Call(httpx.AsyncByteStream):
    """One request: the application runs in a task, and its messages come through a queue."""

    def __init__(self, app: ASGIApp, request: httpx.Request, body: bytes) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue(maxsize=1)
        self._body: bytes | None = body
        self._closed = asyncio.Event()
        self._broken = False
        self._task = asyncio.create_task(self._run(app, {**_scope(request), ABORT: self._break_off}))

    async def _run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        await app(scope, self._receive, self._messages.put)

    async def next(self) -> Message:
        """Return the next message of the application; raise what it raised."""
        getting = asyncio.create_task(self._messages.get())
        await asyncio.wait({getting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not getting.done() and not self._messages.empty():
            await asyncio.wait({getting})
        if getting.done():
            return getting.result()
        getting.cancel()
        await self._task
        if self._broken:
            raise httpx.RemoteProtocolError("The answer broke off.")
        raise RuntimeError("the application ended without an answer")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body."""
        more = True
        while more:
            message = await self.next()
            more = message.get("more_body", False)
            yield message.get("body", b"")

    async def aclose(self) -> None:
        """End the call: the application is told that the client is gone."""
        self._closed.set()
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    def _break_off(self) -> None:
        """End the call since the application cannot go on with an answer that has begun."""
        self._broken = True
        self._closed.set()

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._closed.wait()
        return {"type": "http.disconnect"}


def _scope(request: httpx.Request) -> dict[str, Any]:
    url = request.url
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "scheme": url.scheme,
        "path": url.path,
        "raw_path": url.raw_path.split(b"?")[0],
        "query_string": url.query,
        "server": (url.host, url.port),
        "client": ("127.0.0.1", 123),
        "root_path": "",
    }
