"""The gateway's connection over its lives: birth and will, versions, back-off, brokers that refuse, hang or vanish."""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway import __version__
from gateway.core.backoff import Pauses
from gateway.core.command_types import CommandType
from gateway.domain import commands
from gateway.domain import devices as lifecycle
from gateway.models.commands import CreateCommand
from gateway.store import Tx
from gateway.store.wakeups import EVERY
from tests.mqtt.brokers import MosquittoUnderTest
from tests.mqtt.devices import Device, heartbeat_payload
from tests.mqtt.support import MqttTestbed, on_every_broker, on_mosquitto, open_testbed
from tests.support import wire
from tests.support.ports import closed_port
from tests.support.wait import eventually

READ_ONLY = """
user gateway
topic read #
topic write gateways/#
pattern read devices/%u/commands/+
pattern write devices/%u/heartbeat
"""
FAST = Pauses(first_seconds=0.01, longest_seconds=0.16, steady_seconds=3600)


async def said(client: wire.Wire, topic: str) -> dict[str, Any]:
    """The next message on this topic, decoded."""
    while (message := await client.read_publish()).topic != topic:
        pass
    decoded: dict[str, Any] = json.loads(message.payload)
    return decoded


@contextlib.asynccontextmanager
async def onlooker(testbed: MqttTestbed) -> AsyncIterator[wire.Wire]:
    """A client that receives the gateway's status."""
    async with testbed.admin("other") as client:
        await client.subscribe("gateways/+/status")
        yield client


@on_every_broker
async def test_online_will_and_offline_are_published(kind: str, tmp_path: Path) -> None:
    """Online at connect; offline by the last will when the link dies, online again; offline at a clean stop, once."""
    async with open_testbed(kind, tmp_path) as testbed, onlooker(testbed) as other:
        await testbed.start()
        birth = await said(other, testbed.status_topic)
        assert (birth["status"], birth["version"]) == ("online", __version__)
        assert birth["started_at"].endswith("Z")
        assert (await said(other, testbed.status_topic))["status"] == "online"  # once more, before the comparison
        assert json.loads((await testbed.retained("gateways/+/status"))[testbed.status_topic]) == birth
        testbed.proxy.cut()
        assert (await said(other, testbed.status_topic))["status"] == "offline"
        again = await said(other, testbed.status_topic)
        assert again["connected_at"] > birth["connected_at"]
        assert again == birth | {"connected_at": again["connected_at"]}
        assert await said(other, testbed.status_topic) == again
        await testbed.settled()
        await testbed.stop()
        assert (await said(other, testbed.status_topic))["status"] == "offline"
        async with testbed.admin() as admin:
            await admin.publish("gateways/end/status", b"")
        assert (await other.read_publish()).topic == "gateways/end/status", "nothing was said after the farewell"
        held = await testbed.retained("gateways/+/status")
        assert json.loads(held[testbed.status_topic])["status"] == "offline"


@on_mosquitto
async def test_a_stop_is_a_clean_disconnect(kind: str, tmp_path: Path) -> None:
    """The broker sees DISCONNECT and keeps the will to itself."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        await testbed.stop()
        assert testbed.proxy.to_broker[wire.Kind.DISCONNECT] == 1


@on_mosquitto
async def test_an_internal_error_publishes_the_will(kind: str, tmp_path: Path) -> None:
    """When the gateway gives up a connection that is still good, it does not stay `online` on the broker."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        await testbed.settled()
        async with onlooker(testbed) as other:
            assert (await said(other, testbed.status_topic))["status"] == "online"
            with capture_logs() as logs:
                await testbed.store.write(lambda tx: tx.run("ALTER TABLE outbox RENAME TO elsewhere"))
                testbed.wakeups.notify_outbox(EVERY)
                assert (await said(other, testbed.status_topic))["status"] == "offline"
                await eventually(lambda: _of(logs, "broker.disconnected"), "the loss was logged")
            assert testbed.proxy.to_broker[wire.Kind.DISCONNECT] == 0
            await testbed.store.write(lambda tx: tx.run("ALTER TABLE elsewhere RENAME TO outbox"))
            await testbed.settled()


def _of(logs: Any, event: str) -> list[Any]:
    return [each for each in logs if each["event"] == event]


async def test_mqtt_5_falls_back_to_3_1_1(tmp_path: Path) -> None:
    """The embedded broker refuses version 5; with `auto` the next try speaks 3.1.1."""
    async with open_testbed("embedded", tmp_path) as testbed:
        testbed.address, testbed.auto_version = replace(testbed.address, version="5"), True
        await testbed.start()
        assert testbed.connection.status.version == "3.1.1"
        assert testbed.proxy.connects == 2


async def test_the_session_at_the_broker_never_expires(tmp_path: Path) -> None:
    """Under MQTT 5 that has to be said in so many bytes; what expires can crash Mosquitto (docs/mosquitto.md)."""
    async with open_testbed("mosquitto-5", tmp_path) as testbed:
        await testbed.start()
        assert testbed.proxy.last_connect[7] & 2 == 0, "clean start is off"
        assert b"\x11\xff\xff\xff\xff" in testbed.proxy.last_connect


async def test_without_auto_a_refused_version_is_reported(tmp_path: Path) -> None:
    """It keeps trying what it was told to."""
    async with open_testbed("embedded", tmp_path) as testbed:
        testbed.address = replace(testbed.address, version="5")
        await testbed.start(settled=False)
        await eventually(lambda: testbed.proxy.connects >= 3, "it keeps trying")
        error = await eventually(lambda: testbed.connection.status.last_error or "", "the error is shown")
        assert "does not speak this version of MQTT" in error


async def test_mqtt_5_is_used_if_the_broker_supports_it(tmp_path: Path) -> None:
    """`auto` stays with 5 on Mosquitto, also when the broker was away for a while."""
    async with open_testbed("mosquitto-5", tmp_path) as testbed:
        testbed.auto_version = True
        testbed.address = replace(testbed.address, port=testbed.broker.port)
        await testbed.start()
        await testbed.broker.stop()
        await eventually(lambda: not testbed.connection.status.connected, "the loss was noticed")
        await testbed.broker.start()
        await eventually(lambda: testbed.connection.status.reconciled, "the gateway is back")
        assert testbed.connection.status.version == "5"


@on_mosquitto
async def test_pauses_grow_after_short_connections_too(kind: str, tmp_path: Path) -> None:
    """Cut right after each CONNACK the gateway slows down: the pauses double, jittered, up to the longest."""
    async with open_testbed(kind, tmp_path) as testbed:
        testbed.pauses, testbed.proxy.cut_after = FAST, wire.Kind.CONNACK
        with capture_logs() as logs:
            await testbed.start(settled=False)
            await eventually(lambda: len(_of(logs, "broker.disconnected")) >= 7, "it was cut seven times")
        assert len(_of(logs, "broker.connected")) >= 6
        pauses = [each["retry_in_seconds"] for each in _of(logs, "broker.disconnected")[:7]]
        longest = [0.01, 0.02, 0.04, 0.08, 0.16, 0.16, 0.16]
        for pause, bound in zip(pauses, longest, strict=True):
            assert bound / 2 <= round(pause, 3) <= bound
        assert len(set(pauses[4:])) > 1, "jittered"
        testbed.proxy.cut_after = None
        await testbed.settled()


async def test_a_closed_connection_is_noticed_at_once(tmp_path: Path) -> None:
    """No ten seconds of waiting for a CONNACK that cannot come; `auto` tries the other version meanwhile."""
    async with open_testbed("mosquitto-5", tmp_path) as testbed:
        testbed.auto_version, testbed.proxy.closed = True, True
        with capture_logs() as logs:
            await testbed.start(settled=False)
            await eventually(lambda: len(_of(logs, "broker.disconnected")) >= 4, "it tried four times")
        reasons = [each["reason"] for each in _of(logs, "broker.disconnected")]
        assert ["MQTT 5" in reason for reason in reasons[:4]] == [True, False, True, False]
        testbed.proxy.closed = False
        await testbed.settled()


@on_every_broker
async def test_a_wrong_password_is_logged_and_retried(kind: str, tmp_path: Path) -> None:
    """The status names the setting to look at; nothing of the password is in it."""
    async with open_testbed(kind, tmp_path) as testbed:
        good = testbed.address
        testbed.address = replace(good, password="not-the-password")
        await testbed.start(settled=False)
        await eventually(lambda: testbed.proxy.connects >= 3, "it keeps trying")
        error = await eventually(lambda: testbed.connection.status.last_error or "", "the error is shown")
        assert "Check the user and password of 'broker'" in error
        assert "not-the-password" not in error
        ready = await testbed.ready()
        assert (ready["ready"], ready["broker"]["connected"]) == (False, False)
        await testbed.stop()
        testbed.address = good
        await testbed.start()


async def test_a_closed_port_is_retried(tmp_path: Path) -> None:
    """No broker at that port: said so, tried again."""
    with closed_port() as port:
        async with open_testbed("mosquitto-5", tmp_path) as testbed:
            testbed.address = replace(testbed.address, port=port)
            await testbed.start(settled=False)
            error = await eventually(lambda: testbed.connection.status.last_error or "", "the error is shown")
            assert f"127.0.0.1:{port} cannot be reached" in error


async def test_refused_publishes_stay_in_the_outbox_and_are_reported(tmp_path: Path) -> None:
    """Under MQTT 5 a broker that refuses is seen: not ready, the reason named, and put right with its rights."""
    async with open_testbed("mosquitto-5", tmp_path) as testbed:
        assert isinstance(testbed.broker, MosquittoUnderTest)
        good = testbed.broker.mosquitto.files.acl.read_text()
        await testbed.start()
        device = await testbed.bound()
        await testbed.settled()
        await testbed.broker.set_rights(READ_ONLY)
        await testbed.reset(device)
        error = await eventually(lambda: testbed.connection.status.last_error or "", "the refusal is shown")
        assert "The broker refused 1 publishes (Not authorized)" in error
        assert device.topic("commands/factory_reset") in error
        ready = await testbed.ready()
        assert (ready["ready"], ready["broker"]["error"]) == (False, error)
        assert ready["outbox"]["depth"] >= 1
        async with testbed.join(device) as client:
            await client.publish(device.topic("heartbeat"), heartbeat_payload(70))
            await eventually(lambda: _is_online(testbed, device), "heartbeats arrive all the same")
        await testbed.broker.set_rights(good)
        await testbed.settled()
        await eventually(testbed.is_in_sync, "the reset was published")
        assert (await testbed.ready())["ready"]


async def _is_online(testbed: MqttTestbed, device: Device) -> bool:
    return "device.online" in await testbed.events(device)


async def test_under_3_1_1_a_refused_publish_is_not_noticed(tmp_path: Path) -> None:
    """That version has no word for it: the broker acknowledges and drops. The next comparison finds out."""
    async with open_testbed("mosquitto-3.1.1", tmp_path) as testbed:
        assert isinstance(testbed.broker, MosquittoUnderTest)
        good = testbed.broker.mosquitto.files.acl.read_text()
        await testbed.broker.set_rights(READ_ONLY)
        await testbed.start()
        await testbed.reset(await testbed.bound())
        await testbed.settled()
        assert await testbed.retained() == {}
        await testbed.broker.set_rights(good)
        testbed.proxy.cut()
        await eventually(testbed.is_in_sync, "the comparison after the next connect put it right")
        assert len(await testbed.retained()) == 1


async def test_a_stop_does_not_wait_for_a_hanging_broker(tmp_path: Path) -> None:
    """SIGSTOPped, with megabytes on their way to it: the gateway logs that `offline` was not published, and ends."""
    async with open_testbed("mosquitto-5", tmp_path) as testbed:
        assert isinstance(testbed.broker, MosquittoUnderTest)
        await testbed.start()
        devices = [await testbed.bound(f"SN-{n}") for n in range(600)]
        await testbed.settled()
        with suspended(testbed.broker.mosquitto.pid):
            await testbed.store.write(lambda tx: _large(tx, testbed, devices))
            await eventually(lambda: testbed.connection.status.connected, "the gateway believes that it is connected")
            with capture_logs() as logs:
                began = asyncio.get_running_loop().time()
                await testbed.stop()
                print(f"stopped in {asyncio.get_running_loop().time() - began:.3f} s")  # noqa: T201 - for the curious
            assert _of(logs, "broker.offline_not_published")
        await testbed.start()
        assert await testbed.is_in_sync(), "nothing was half done"


def _large(tx: Tx, testbed: MqttTestbed, devices: list[Device]) -> None:
    body = CreateCommand(type=CommandType.REBOOT, params={"filler": "x" * 15_000})
    for device in devices:
        commands.create(tx, lifecycle.require(tx, testbed.project_id, device.id), body, "key_test")


@contextlib.contextmanager
def suspended(pid: int) -> Any:
    """The process does nothing meanwhile, and its sockets stay open."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("kind", ["mosquitto-5"])
async def test_a_stop_during_an_unanswered_connect_is_clean(kind: str, tmp_path: Path) -> None:
    """The TCP connection is there, CONNACK is not: the stop waits for neither, and nothing is left behind."""
    async with open_testbed(kind, tmp_path) as testbed:
        assert isinstance(testbed.broker, MosquittoUnderTest)
        with suspended(testbed.broker.mosquitto.pid):
            testbed.address = replace(testbed.address, port=testbed.broker.port)
            await testbed.start(settled=False)
            await asyncio.to_thread(lambda: None)
            await testbed.stop()
        testbed.address = replace(testbed.address, port=testbed.proxy.port)
        await testbed.start()


async def test_a_stop_during_the_connect_is_clean(tmp_path: Path) -> None:
    """A host that answers no SYN (its backlog is full): the connect in its thread comes to nothing."""
    async with open_testbed("mosquitto-5", tmp_path) as testbed:
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            for _ in range(4):
                caller = stack.enter_context(socket.socket())
                caller.setblocking(False)  # noqa: FBT003 - the socket module's
                caller.connect_ex(listener.getsockname())
            testbed.address = replace(testbed.address, port=listener.getsockname()[1])
            await testbed.start(settled=False)
            await asyncio.sleep(0)
            await testbed.stop()
