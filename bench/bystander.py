"""HTTP server that answers every request with the same bytes, the floor of a read under load.

Run it with ``python -m bench.bystander``, until SIGTERM. Beside a broker under full load, its latency is the delay that
the machine causes for any program.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from bench.broker import HOST

_BODY: Final = b"{}".ljust(620)
"""A body as long as a device's."""
_ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY) + _BODY


class _Connection(asyncio.Protocol):
    """One client, whose requests are short enough to arrive in one piece."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - the content plays no role
        """Send the answer."""
        self._transport.write(_ANSWER)


async def main() -> None:
    """Serve until SIGTERM."""
    with socket.create_server((HOST, 0)) as listener:
        server = await asyncio.get_running_loop().create_server(_Connection, sock=listener)
        print("HTTP", listener.getsockname()[1], flush=True)  # noqa: T201 - the benchmark reads it
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
