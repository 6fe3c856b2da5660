"""Behind aiomqtt: a socket is watched only as long as it is open."""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

import aiomqtt
import pytest

from device_sim.sockets import watch_while_open as as_devices_do
from gateway.mqtt.v3.sockets import watch_while_open as as_the_gateway_does

Watch = Callable[[Any], None]
both = pytest.mark.parametrize("watch", [as_the_gateway_does, as_devices_do])


def _connected(watch: Watch) -> tuple[Any, socket.socket, socket.socket]:
    """A client of paho's that believes that it is connected over this socket, and the other end."""
    client = aiomqtt.Client("127.0.0.1")
    watch(client)
    own, other = socket.socketpair()
    paho = client._client  # noqa: SLF001 - what is tested sits behind aiomqtt
    paho._sock = own  # noqa: SLF001 - the same
    return paho, own, other


@both
async def test_a_reused_descriptor_is_not_watched(watch: Watch) -> None:
    """The connection is lost between paho's wish to write and the loop's next turn, and its number is given away."""
    paho, own, other = _connected(watch)
    number = own.fileno()
    paho._call_socket_register_write()  # noqa: SLF001 - the same
    own.close()
    os.dup2(other.fileno(), number)
    try:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not asyncio.get_running_loop().remove_writer(number)
    finally:
        os.close(number)
        other.close()


@both
async def test_an_open_socket_is_watched(watch: Watch) -> None:
    """Else nothing would ever be sent."""
    paho, own, other = _connected(watch)
    with own, other:
        paho._call_socket_register_write()  # noqa: SLF001 - the same
        await asyncio.sleep(0)
        assert asyncio.get_running_loop().remove_writer(own)
        paho._sock = None  # noqa: SLF001 - the same
