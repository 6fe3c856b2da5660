"""Write watch of aiomqtt's socket that ends when the socket is closed.

aiomqtt 2.5.1 schedules the watch of a file descriptor with a delay. If the connection is closed in between, the loop
reports an unused descriptor, or the number belongs to the next open file. In that case the loop runs hot: the file is
writable, and the client of the callback has nothing to write.
"""

import asyncio
from typing import Any


def watch_while_open(client: Any) -> None:
    """Replace aiomqtt's handling of paho's request to write. Call it in the client's loop, before it connects."""
    loop, paho = asyncio.get_running_loop(), client._client  # noqa: SLF001  # aiomqtt has no public way

    def write() -> None:
        try:
            paho.loop_write()
        except Exception as error:  # noqa: BLE001  # as in aiomqtt: after any error the connection is broken
            if not client._disconnected.done():  # noqa: SLF001  # the same
                client._disconnected.set_exception(error)  # noqa: SLF001  # the same

    def watch(sock: Any) -> None:
        if sock.fileno() >= 0 and paho.socket() is sock:
            loop.add_writer(sock, write)

    # paho connects in a thread of aiomqtt, and also requests a watch from that thread.
    paho.on_socket_register_write = lambda _paho, _userdata, sock: loop.call_soon_threadsafe(watch, sock)
