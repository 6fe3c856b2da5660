"""Connect to a broker that speaks MQTT 5. The session itself: :mod:`gateway.mqtt.v5.session`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import mqtt5

from gateway.mqtt.session import (
    CONNECT_SECONDS,
    RECEIVE_MAXIMUM,
    BrokerAddress,
    LinkError,
    Session,
    VersionRefusedError,
)
from gateway.mqtt.v5.session import Mqtt5Session, words
from gateway.mqtt.v5.wire import MAX_PACKET_BYTES, ProtocolError

NEVER: Final = 0xFFFF_FFFF  # a session that expires can crash Mosquitto 2.0 (docs/mosquitto.md)


@asynccontextmanager
async def open_session(address: BrokerAddress, *, client_id: str, will: tuple[str, bytes]) -> AsyncIterator[Session]:
    """See :func:`gateway.mqtt.connect.open_session`."""
    session = Mqtt5Session()
    try:
        await _connect(address, session)
        answer = await _greeting(session, address, _hello(address, client_id, will))
        session.begin(answer, address.keepalive_seconds)
        yield session
    finally:
        session.wire.abort()


async def _connect(address: BrokerAddress, session: Mqtt5Session) -> None:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.get_running_loop().create_connection(
                lambda: session.wire, address.host, address.port, ssl=address.tls
            )
    except OSError as error:  # TimeoutError is one
        reason = str(error) or "it does not answer"
        raise LinkError(f"The broker at {address.host}:{address.port} cannot be reached: {reason}") from error


async def _greeting(session: Mqtt5Session, address: BrokerAddress, hello: mqtt5.ConnectPacket) -> mqtt5.ConnAckPacket:
    try:
        answer = await session.greet(hello)
    except ProtocolError as error:
        raise _of_old(error) if session.wire.old_version else error from error
    except LinkError as error:
        raise VersionRefusedError.closed(address) if session.wire.closed.done() else error from error
    if answer.reason_code == mqtt5.ConnAckReasonCode.UNSUPPORTED_PROTOCOL_VERSION:
        raise _of_old(answer.reason_code.name)
    if answer.reason_code != mqtt5.ConnAckReasonCode.SUCCESS:
        raise LinkError(f"The broker refused the gateway: {words(answer)}. Check the user and password of 'broker'.")
    return answer


def _of_old(said: object) -> VersionRefusedError:
    return VersionRefusedError(f"The broker does not speak this version of MQTT: {said}.")


def _hello(address: BrokerAddress, client_id: str, will: tuple[str, bytes]) -> mqtt5.ConnectPacket:
    return mqtt5.ConnectPacket(
        client_id,
        username=address.username,
        password=None if address.password is None else address.password.encode(),
        will=mqtt5.Will(will[0], payload=will[1], qos=mqtt5.QoS.AT_LEAST_ONCE, retain=True),
        keep_alive=address.keepalive_seconds,
        session_expiry_interval=NEVER,
        receive_max=RECEIVE_MAXIMUM,
        max_packet_size=MAX_PACKET_BYTES,
    )
