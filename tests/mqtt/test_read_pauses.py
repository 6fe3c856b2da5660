"""Heartbeats that arrive slowly are left with the broker for a moment; messages that a caller waits for are not."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import mqtt5
import pytest

from gateway.mqtt.connect import open_session
from gateway.mqtt.session import LinkError, Session
from gateway.mqtt.v5.session import Mqtt5Session
from tests.mqtt.scripted_broker import ScriptedBroker, joined, message
from tests.mqtt.support import MqttTestbed, open_testbed
from tests.support.wait import eventually

LONG = 300.0
"""Seconds: no test waits for the end of it."""


async def _asks(session: Mqtt5Session, broker: ScriptedBroker) -> None:
    serve_auth_endpoint = asyncio.create_task(session.publish("devices/dev_A/commands/reboot", b"{}"))
    sent = await broker.until(mqtt5.PublishPacket)
    assert isinstance(sent, mqtt5.PublishPacket)
    assert sent.packet_id
    broker.say(mqtt5.PubAckPacket(sent.packet_id).write())
    await serve_auth_endpoint


def _joined(testbed: MqttTestbed) -> AbstractAsyncContextManager[Session]:
    return open_session(testbed.address, client_id=testbed.gateway_id, will=(testbed.status_topic, b"gone"))


async def _expects_reply(session: Mqtt5Session, broker: ScriptedBroker) -> None:
    del broker
    session.expect_reply()


@pytest.mark.parametrize("what", [_asks, _expects_reply])
async def test_a_pause_ends_when_a_reply_is_expected(what: Callable[..., Any]) -> None:
    """The socket is read again as soon as the broker was asked something, or a device may answer."""
    async with ScriptedBroker() as broker, joined(broker) as session:
        assert isinstance(session, Mqtt5Session)
        resting = asyncio.create_task(session.pause_reading_for(LONG))
        await eventually(lambda: session.wire.paused, "it leaves the socket alone")
        broker.say(message(1, b"one"))
        await what(session, broker)
        await resting
        assert [each.message.payload for each in await session.receive_batch()] == [b"one"]


async def test_there_is_no_pause_while_a_reply_is_expected() -> None:
    """Neither after a command, nor while an answer of the broker is outstanding: what comes is read at once."""
    async with ScriptedBroker() as broker, joined(broker) as session:
        assert isinstance(session, Mqtt5Session)
        serve_auth_endpoint = asyncio.create_task(session.publish("devices/dev_A/commands/reboot", b"{}"))
        sent = await broker.until(mqtt5.PublishPacket)
        assert isinstance(sent, mqtt5.PublishPacket)
        assert sent.packet_id
        resting = asyncio.create_task(session.pause_reading_for(LONG))
        broker.say(mqtt5.PubAckPacket(sent.packet_id).write())
        await serve_auth_endpoint
        resting.cancel()
        session.expect_reply()
        resting = asyncio.create_task(session.pause_reading_for(LONG))
        broker.say(message(1, b"one"))
        assert [each.message.payload for each in await session.receive_batch()] == [b"one"]
        resting.cancel()


async def test_a_device_that_may_answer_is_not_kept_waiting() -> None:
    """What has been read is taken soon, too: a rest that would be long is short after a command."""
    async with ScriptedBroker() as broker, joined(broker) as session:
        session.expect_reply()
        await session.pause_reading_for(LONG)


@pytest.mark.parametrize("kind", ["mosquitto-3.1.1", "embedded"])
async def test_under_3_1_1_a_waiting_device_is_not_delayed(kind: str, tmp_path: Path) -> None:
    """A rest that has begun ends, and the next is short."""
    async with open_testbed(kind, tmp_path) as testbed, _joined(testbed) as session:
        resting = asyncio.create_task(session.pause_reading_for(LONG))
        await asyncio.sleep(0)
        session.expect_reply()
        await resting
        await session.pause_reading_for(LONG)


async def test_pauses_are_short_while_a_puback_waits_for_the_commit(tmp_path: Path) -> None:
    """The embedded broker answers a device when the gateway has committed: the next commit follows soon, always."""
    async with open_testbed("embedded", tmp_path) as testbed, _joined(testbed) as session:
        for _ in range(3):
            await session.pause_reading_for(LONG)


async def test_a_stop_during_a_pause_waits_for_the_puback_of_offline() -> None:
    """The rest is cancelled, and the socket read again."""
    async with ScriptedBroker() as broker, joined(broker) as session:
        assert isinstance(session, Mqtt5Session)
        resting = asyncio.create_task(session.pause_reading_for(LONG))
        await eventually(lambda: session.wire.paused, "it leaves the socket alone")
        resting.cancel()
        await asyncio.wait((resting,))
        await _asks(session, broker)


async def test_a_closed_connection_ends_the_pause() -> None:
    """Also when it is closed from here."""
    async with ScriptedBroker() as broker, joined(broker) as session:
        assert isinstance(session, Mqtt5Session)
        resting = asyncio.create_task(session.pause_reading_for(LONG))
        await eventually(lambda: session.wire.paused, "it leaves the socket alone")
        session.wire.abort()
        await resting
        with pytest.raises(LinkError):
            await session.receive_batch()
