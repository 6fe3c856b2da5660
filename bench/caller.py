"""Lean HTTP/1.1 client on one persistent connection. A heavy client would hide the difference of both sides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from bench.broker import HOST

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


class Answer(NamedTuple):
    """An answer; ``head`` is its status line and headers, in lower case."""

    status: int
    head: bytes
    body: bytes


class Caller:
    """One connection that sends requests one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, api_key: str) -> None:
        self._reader = reader
        self._writer = writer
        self._headers = f"HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {api_key}\r\n"

    async def call(self, method: str, path: str) -> int:
        """Send a request without a body, read the whole answer, and return its status."""
        return (await self.ask(method, path)).status

    async def ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Send a request, whose body is JSON, and return the answer."""
        kind = "Content-Type: application/json\r\n" if body else ""
        head = f"{method} {path} {self._headers}{kind}Content-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        answer = (await self._reader.readuntil(_HEAD_END)).lower()
        lengths = [line for line in answer.split(b"\r\n") if line.startswith(_LENGTH)]
        content = await self._reader.readexactly(int(lengths[0].removeprefix(_LENGTH)))
        return Answer(int(answer.split(b" ", 2)[1]), answer, content)


@asynccontextmanager
async def caller(port: int, api_key: str) -> AsyncIterator[Caller]:
    """Connect, and disconnect at the end."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield Caller(reader, writer, api_key)
    finally:
        writer.close()
        await writer.wait_closed()
