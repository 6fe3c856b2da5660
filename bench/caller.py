"""Lean HTTP/1.1 client on one persistent connection. A heavy client would hide the difference of both sides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from bench.broker import HOST

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


class Caller:
    """One connection that sends requests one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, api_key: str) -> None:
        self._reader = reader
        self._writer = writer
        self._tail = f" HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {api_key}\r\nContent-Length: 0\r\n\r\n"

    async def call(self, method: str, path: str) -> int:
        """Send a request without a body, read the whole answer, and return its status."""
        self._writer.write(f"{method} {path}{self._tail}".encode())
        head = await self._reader.readuntil(_HEAD_END)
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(_LENGTH)]
        await self._reader.readexactly(int(lengths[0].removeprefix(_LENGTH)))
        return int(head.split(b" ", 2)[1])


@asynccontextmanager
async def caller(port: int, api_key: str) -> AsyncIterator[Caller]:
    """Connect, and disconnect at the end."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield Caller(reader, writer, api_key)
    finally:
        writer.close()
        await writer.wait_closed()
