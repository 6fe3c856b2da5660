"""A receiver of webhooks on a real socket: takes down what comes, answers as the test says, checks the signatures."""

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.wait import eventually

OK = b"HTTP/1.1 204 No Content\r\n\r\n"
BUSY = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\nbusy"


@dataclass
class Received:
    """One request, with its headers in lower case."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """What it tells."""
        event: dict[str, Any] = json.loads(self.body)
        return event

    def is_signed_with(self, secret: str) -> bool:
        """By both signatures, checked from the contract alone, without the gateway's code."""
        stamped = self.headers["webhook-timestamp"].encode() + b"." + self.body
        key = base64.b64decode(secret.removeprefix("whsec_"))
        standard = hmac.new(key, self.headers["webhook-id"].encode() + b"." + stamped, hashlib.sha256).digest()
        own = hmac.new(secret.encode(), stamped, hashlib.sha256).hexdigest()
        return (self.headers["webhook-signature"], self.headers["x-bota-signature"]) == (
            f"v1,{base64.b64encode(standard).decode()}",
            f"v1={own}",
        )


@dataclass
class Receiver:
    """Answers ``answers`` one after the other, then ``OK``. While ``open`` is clear it takes and does not answer."""

    answers: deque[bytes] = field(default_factory=deque)
    received: list[Received] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    scheme: str = "http"

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self.scheme}://127.0.0.1:{self.port}/hook?x=1"

    @property
    def types(self) -> list[str]:
        """Types of the events, in the order they came."""
        return [each.event["type"] for each in self.received]

    async def got(self, number: int) -> list[Received]:
        """Wait until so many have come; all that have."""
        await eventually(lambda: len(self.received) >= number, f"the receiver has {number} ({self.received})")
        return self.received

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in head[1:-2])}
            body = await reader.readexactly(int(headers["content-length"]))
            self.received.append(Received(head[0], headers, body))
            await self.open.wait()
            writer.write(self.answers.popleft() if self.answers else OK)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the gateway has gone: a test may have wanted that
        finally:
            writer.close()


@asynccontextmanager
async def receiving(*answers: bytes, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[Receiver]:
    """A receiver on a port that the kernel picks, or on this one."""
    receiver = Receiver(deque(answers), scheme="http" if tls is None else "https")
    receiver.open.set()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", port, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        receiver.open.set()
        server.close()
