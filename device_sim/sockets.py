"""Watch of aiomqtt's socket for writing that ends when the socket is closed.

aiomqtt 2.5.1 asks the loop to watch a file descriptor a moment later. If the connection was closed meanwhile, the
number is unused, which the loop reports, or belongs to the next open file. The loop would then run hot: that file is
writable, and the client behind the callback has nothing to write.
"""

import asyncio
from typing import Any


def watch_while_open(client: Any) -> None:
    """Replace aiomqtt's handling of paho's request to write. Call it in the client's loop, before it connects."""
    loop, paho = asyncio.get_running_loop(), client._client  # noqa: SLF001  # aiomqtt offers no way

    def write() -> None:
        try:
            paho.loop_write()
        except Exception as error:  # noqa: BLE001  # as aiomqtt: after any error the connection is broken
            if not client._disconnected.done():  # noqa: SLF001  # the same
                client._disconnected.set_exception(error)  # noqa: SLF001  # the same

    def watch(opened: Any) -> None:
        if opened.fileno() >= 0 and paho.socket() is opened:
            loop.add_writer(opened, write)

    # paho connects in a thread of aiomqtt's, and asks from there too.
    paho.on_socket_register_write = lambda _paho, _userdata, opened: loop.call_soon_threadsafe(watch, opened)
