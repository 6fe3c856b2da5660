"""Retained messages on the broker = open commands in the registry, whatever happens to either (contract, section 4)."""

import asyncio
import base64
import random
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.domain import acknowledgements, devices
from gateway.models.commands import Ack
from gateway.store import Context, Rules, Tx, command_sql
from gateway.store.command_sql import CommandRecord
from tests.mqtt.brokers import MosquittoUnderTest
from tests.mqtt.devices import Device
from tests.mqtt.support import MqttTestbed, attempt, on_every_broker, on_mosquitto, open_testbed
from tests.support.outbox import outbox_depth
from tests.support.receipts import receipt_of
from tests.support.wait import eventually

NOON = 1_794_312_000_000
GOLDEN = (
    '{"id":"%s","type":"factory_reset","params":{"recordings":"keep"},"binding_generation":1,'
    '"created_at":"2026-11-10T12:00:00.000Z","expires_at":null,"grant_token":"%s"}'
)
GOLDEN_CLAIMS = (
    '{"iss":"gw_test","aud":"%s","jti":"%s","cmd":"factory_reset","gen":1,"iat":1794312000,'
    '"par":"DTgs-dkFMQoUDNWvr7ZmSvwwcy_T7tFV7NHrAnmyGsE","seq":1}'
)
DEVICES = 100
STEPS = 12

WRITE_ONLY = """
user gateway
topic write #
topic read devices/+/heartbeat
topic read devices/+/status
topic read devices/+/commands/+/ack
pattern read devices/%u/commands/+
"""


async def final(testbed: MqttTestbed, device: Device, command: CommandRecord) -> None:
    """The device says `failed`."""
    ack = Ack(command_id=command.id, status="failed", receipt=receipt_of(device.token, command._asdict(), "failed"))
    await testbed.store.write(
        lambda tx: acknowledgements.acknowledge(tx, devices.require(tx, testbed.project_id, device.id), None, ack)
    )


@on_every_broker
async def test_a_reset_is_retained_until_it_is_final(kind: str, tmp_path: Path) -> None:
    """A device that subscribes to the topic's full name gets it, retained; once final the topic is empty."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        command = await testbed.reset(device)
        await testbed.settled()
        topic = device.topic("commands/factory_reset")
        async with testbed.join(device) as client:
            await client.subscribe(topic)
            message = await client.read_publish()
            assert (message.topic, message.retain, message.qos) == (topic, True, 1)
            assert message.payload == (await testbed.open_commands())[topic]
            await final(testbed, device, command)
            cleared = await client.read_publish()
            assert (cleared.topic, cleared.payload) == (topic, b"")
        await testbed.settled()
        assert await testbed.retained() == {}


async def test_the_bytes_of_a_command(tmp_path: Path) -> None:
    """The very bytes that lie on the broker, and in its grant: which fields, in which order, in which form."""
    context = Context(Rules(gateway_id="gw_test"), clock=lambda: NOON)
    async with open_testbed("mosquitto-3.1.1", tmp_path, context=context) as testbed:
        await testbed.start()
        device = await testbed.bound()
        command = await testbed.reset(device)
        await testbed.settled()
        held = (await testbed.retained())[device.topic("commands/factory_reset")]
    grant = command.grant_token
    assert held.decode() == GOLDEN % (command.id, grant)
    _, claims, _ = grant.split(".")
    assert base64.urlsafe_b64decode(claims + "==").decode() == GOLDEN_CLAIMS % (device.id, command.id)


@on_mosquitto
async def test_any_order_of_operations_ends_in_sync(kind: str, tmp_path: Path) -> None:
    """100 devices open, close and open commands again while the link dies now and then; at the end both agree."""
    seed = 20_261_110
    print(f"seed {seed}")  # noqa: T201 - pytest shows it on failure
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        devices = await asyncio.gather(*(testbed.bound(f"SN-{n}") for n in range(DEVICES)))
        async with asyncio.TaskGroup() as group:
            for number, device in enumerate(devices):
                group.create_task(_change_at_random(testbed, device, random.Random(seed + number)))  # noqa: S311 - seeded
            group.create_task(_cut_now_and_then(testbed, random.Random(seed)))  # noqa: S311 - seeded
        await testbed.settled()
        await eventually(testbed.is_in_sync, "broker and registry agree")
        statuses = await testbed.rows("SELECT status, count(*) AS n FROM commands GROUP BY status")
        print({row["status"]: row["n"] for row in statuses})  # noqa: T201 - for the curious
        assert {row["status"] for row in statuses} >= {"pending", "failed", "cancelled"}


async def _change_at_random(testbed: MqttTestbed, device: Device, dice: random.Random) -> None:
    for _ in range(STEPS):
        await asyncio.sleep(dice.uniform(0, 0.05))
        match dice.choice(("reset", "reboot", "cancel", "fail", "bind", "supersede")):
            case "reset":
                await attempt(testbed.reset(device))
            case "reboot":
                await attempt(testbed.command(device))
            case "bind":
                await attempt(testbed.bound_again(device))
            case "supersede":
                await testbed.store.write(
                    lambda tx: devices.supersede_reset(tx, testbed.project_id, device.id, "key_test")
                )
            case verb:
                await _close_one(testbed, device, verb, dice)


async def _close_one(testbed: MqttTestbed, device: Device, verb: str, dice: random.Random) -> None:
    open_ones = await testbed.store.read(lambda view: command_sql.open_of_device(view, device.pk))
    if open_ones:
        command = dice.choice(open_ones)
        await attempt(testbed.cancel(device, command) if verb == "cancel" else final(testbed, device, command))


async def _cut_now_and_then(testbed: MqttTestbed, dice: random.Random) -> None:
    for _ in range(3):
        await asyncio.sleep(dice.uniform(0, 0.1))
        testbed.proxy.cut()


@pytest.mark.guarantee("G1")
@on_every_broker
async def test_a_reset_while_the_broker_is_down_is_published_when_it_is_back(kind: str, tmp_path: Path) -> None:
    """The reset is accepted at once; the command waits in the outbox."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        await testbed.settled()
        await testbed.broker.stop()
        await eventually(lambda: not testbed.connection.status.connected, "the loss was noticed")
        await testbed.reset(device)
        assert not (await testbed.ready())["ready"]
        await testbed.broker.start()
        await eventually(lambda: testbed.connection.status.reconciled, "the gateway is back")
        await eventually(testbed.is_in_sync, "the reset was published")
        assert len(await testbed.retained()) == 1


@pytest.mark.guarantee("G7")
@on_every_broker
async def test_a_broker_that_lost_its_messages_gets_them_again(kind: str, tmp_path: Path) -> None:
    """After the reconnect the retained messages are there again; how long that took is printed."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        for number in range(20):
            await testbed.reset(await testbed.bound(f"SN-{number}"))
        await testbed.settled()
        assert len(await testbed.retained()) == 20
        with capture_logs() as logs:
            await testbed.broker.start(empty=True)
            await eventually(lambda: _said(logs, "broker.connected"), "the gateway is back")
            began = asyncio.get_running_loop().time()
            await eventually(testbed.is_in_sync, "the broker has all commands again")
        print(f"{kind}: in step {asyncio.get_running_loop().time() - began:.3f} s after the reconnect")  # noqa: T201
        assert len(await testbed.retained()) == 20


def _said(logs: list[Any], event: str) -> list[Any]:
    return [each for each in logs if each["event"] == event]


@pytest.mark.guarantee("G7")
@on_every_broker
async def test_orphaned_retained_messages_are_cleared(kind: str, tmp_path: Path) -> None:
    """A bogus message, an old command of a closed reset, one of an unknown device, one of an unknown type."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device, other = await testbed.bound(), await testbed.bound("SN-2")
        old = await testbed.reset(device)
        await testbed.settled()
        old_payload = (await testbed.retained())[device.topic("commands/factory_reset")]
        await final(testbed, device, old)
        await testbed.settled()
        await testbed.stop()
        await testbed.reset(other)
        async with testbed.admin() as admin:
            await admin.publish(device.topic("commands/factory_reset"), old_payload, retain=True)
            await admin.publish(device.topic("commands/self_destruct"), b"boom", retain=True)
            await admin.publish(other.topic("commands/factory_reset"), b"not what was asked for", retain=True)
            await admin.publish("devices/dev_NOBODY/commands/reboot", b"{}", retain=True)
            await admin.publish("devices/nobody at all/commands/Re-Boot", b"{}", retain=True)
        await testbed.start()
        await eventually(testbed.is_in_sync, "only the open command lies there")
        assert list(await testbed.retained()) == [other.topic("commands/factory_reset")]


@on_mosquitto
async def test_a_broker_without_retained_wildcards_is_reconciled(kind: str, tmp_path: Path) -> None:
    """Like RabbitMQ: open commands are published again and topics that were closed lately are cleared, unseen."""
    async with open_testbed(kind, tmp_path) as testbed:
        assert isinstance(testbed.broker, MosquittoUnderTest)
        await testbed.broker.set_rights(WRITE_ONLY)
        await testbed.start()
        device, other = await testbed.bound(), await testbed.bound("SN-2")
        old = await testbed.reset(device)
        await testbed.reset(other)
        await testbed.settled()
        old_payload = (await testbed.retained())[device.topic("commands/factory_reset")]
        await final(testbed, device, old)
        await testbed.settled()
        await testbed.stop()
        async with testbed.admin() as admin:
            await admin.publish(device.topic("commands/factory_reset"), old_payload, retain=True)
            await admin.publish(other.topic("commands/factory_reset"), b"", retain=True)
        with capture_logs() as logs:
            await testbed.start()
        assert [each["wildcard_retained"] for each in _said(logs, "broker.reconciled")] == [False]
        await eventually(testbed.is_in_sync, "only the open command lies there")
        assert list(await testbed.retained()) == [other.topic("commands/factory_reset")]


@on_every_broker
async def test_the_gateway_does_not_receive_its_own_messages(kind: str, tmp_path: Path) -> None:
    """What it publishes is no message to refuse; after the comparison the broker sends it no commands any more."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        await testbed.settled()
        before = testbed.proxy.to_gateway.copy()
        for _ in range(3):
            await testbed.cancel(device, await testbed.command(device))
        await testbed.settled()
        async with testbed.join(device) as client:
            await client.publish(device.topic("heartbeat"), b"{}")
            await eventually(lambda: _heartbeats(testbed), "a heartbeat after them was stored")
        assert (testbed.proxy.to_gateway - before)[3] == 1, "the heartbeat is all that was sent to the gateway"
        assert await testbed.rows("SELECT * FROM refusals") == []


async def _heartbeats(testbed: MqttTestbed) -> int:
    return len(await testbed.stored_batteries())


@on_mosquitto
async def test_a_command_during_the_reconciliation_is_not_lost(kind: str, tmp_path: Path) -> None:
    """Opened and closed during the retained scan: in step at the end, in every order of the two."""
    async with open_testbed(kind, tmp_path) as testbed:
        devices = [await testbed.bound(f"SN-{n}") for n in range(20)]
        for device in devices[:10]:
            await testbed.reset(device)
        await testbed.start()
        for _ in range(5):
            testbed.proxy.cut()
            await eventually(lambda: not testbed.connection.status.reconciled, "the loss was noticed")
            for device in devices:
                await _turn_over(testbed, device)
            await eventually(lambda: testbed.connection.status.reconciled, "the gateway is back")
        await testbed.settled()
        await eventually(testbed.is_in_sync, "broker and registry agree")


async def _turn_over(testbed: MqttTestbed, device: Device) -> None:
    opened = await testbed.store.read(lambda view: command_sql.open_of_device(view, device.pk))
    await (final(testbed, device, opened[0]) if opened else testbed.reset(device))


@on_mosquitto
async def test_a_row_marked_again_while_it_is_published_stays(kind: str, tmp_path: Path) -> None:
    """The publisher takes away only the mark it has worked off, so the last state is the last that is published."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        await testbed.settled()
        for _ in range(20):
            command = await testbed.command(device)
            await testbed.cancel(device, command)
        last = await testbed.command(device)
        await testbed.settled()
        held = (await testbed.retained())[device.topic("commands/reboot")]
        assert last.id.encode() in held


async def test_outbox_rows_wait_for_the_first_start(tmp_path: Path) -> None:
    """What was committed before the first connect is published at it."""
    async with open_testbed("mosquitto-5", tmp_path) as testbed:

        def backlog(tx: Tx) -> int:
            return outbox_depth(tx)[0]

        for number in range(300):
            await testbed.reset(await testbed.bound(f"SN-{number}"))
        assert await testbed.store.read(lambda view: outbox_depth(view)[0]) == 900
        await testbed.start()
        assert await testbed.store.write(backlog) == 0
        assert await testbed.is_in_sync()
        assert len(await testbed.retained()) == 300
