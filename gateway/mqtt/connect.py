"""Opens the gateway's connection, with the client for the MQTT version in use."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from gateway.mqtt.session import (
    BrokerAddress,
    LinkError,
    PublishRefusedError,
    Session,
    VersionRefusedError,
)
from gateway.mqtt.v3 import session
from gateway.mqtt.v5 import connect

__all__ = ["BrokerAddress", "LinkError", "PublishRefusedError", "Session", "VersionRefusedError", "open_session"]


def open_session(
    address: BrokerAddress, *, client_id: str, will: tuple[str, bytes]
) -> AbstractAsyncContextManager[Session]:
    """Connect with a persistent session and a retained last will; at the end close the socket at once.

    So the broker publishes the will, unless :meth:`Session.disconnect` was called before.

    Raises:
        VersionRefusedError: the broker does not speak this version.
        LinkError: it cannot be reached, refused us, or the connection was lost inside the block.
    """
    opener = connect.open_session if address.version == "5" else session.open_session
    return opener(address, client_id=client_id, will=will)
