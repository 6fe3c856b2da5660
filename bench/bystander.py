"""An HTTP server that answers the same bytes to whatever it is asked, and does nothing else.

``python -m bench.bystander``; it runs until SIGTERM. How long its answers take beside a broker under full load is how
long the machine lets any program wait there.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from bench.broker import HOST

_BODY: Final = b"{}".ljust(620)
"""As long as a device."""
_ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY) + _BODY


class _Connection(asyncio.Protocol):
    """One client, whose requests are short enough to come in one piece."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - whatever it asks
        """It asks."""
        self._transport.write(_ANSWER)


async def main() -> None:
    """Serve until SIGTERM."""
    with socket.create_server((HOST, 0)) as listener:
        server = await asyncio.get_running_loop().create_server(_Connection, sock=listener)
        print("HTTP", listener.getsockname()[1], flush=True)  # noqa: T201 - the benchmark reads it
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
