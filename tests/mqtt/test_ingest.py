"""From the broker into the registry: committed, then acknowledged; nothing lost, one bad message holds up no other."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from device_sim.wire import receipt
from gateway.domain.message_batches import LEAST
from gateway.mqtt.session import BATCH, WAITING_AT_QOS_0
from gateway.store import Context, Rules, Tx
from tests.mqtt.devices import heartbeat_payload
from tests.mqtt.support import MqttTestbed, on_every_broker, on_mosquitto, open_testbed
from tests.support import wire
from tests.support.clock import ShiftedClock
from tests.support.colliding_ids import CollidingIds
from tests.support.faults import locked, refuse
from tests.support.wait import eventually

POISON = ("poison", "INSERT", "heartbeats", "NEW.battery_percent = 13")
NO_REFUSALS = ("no_refusals", "INSERT", "refusals")


async def arrived(testbed: MqttTestbed, count: int) -> None:
    """Wait until the broker has sent the gateway that many messages altogether."""
    await eventually(lambda: testbed.proxy.to_gateway[wire.Kind.PUBLISH] >= count, "the gateway got the messages")


async def stored(testbed: MqttTestbed, *stored_batteries: int) -> None:
    """Wait until the registry holds exactly these heartbeats."""

    async def are_there() -> bool:
        return await testbed.stored_batteries() == list(stored_batteries)

    await eventually(are_there, f"heartbeats {stored_batteries} were stored")


def _all_acknowledged(testbed: MqttTestbed) -> bool:
    return testbed.proxy.to_broker[wire.Kind.PUBACK] == testbed.proxy.to_gateway[wire.Kind.PUBLISH]


@on_every_broker
async def test_a_heartbeat_is_acknowledged_after_its_commit(kind: str, tmp_path: Path) -> None:
    """While the writer is busy nothing is acknowledged; the session dies; all comes again and is stored once."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        async with testbed.join(device) as client:
            await client.publish(device.topic("heartbeat"), heartbeat_payload(81))
            await stored(testbed, 81)
            await eventually(lambda: _all_acknowledged(testbed), "what came before is acknowledged")
            seen, acknowledged = testbed.proxy.to_gateway[wire.Kind.PUBLISH], testbed.proxy.to_broker[wire.Kind.PUBACK]
            release = threading.Event()
            busy = asyncio.create_task(testbed.store.write(lambda _: release.wait()))
            try:
                for battery in (80, 79, 78):
                    await client.say(device.topic("heartbeat"), heartbeat_payload(battery))
                await arrived(testbed, seen + 3)
                await testbed.retained()  # several round trips to the broker later
                assert testbed.proxy.to_broker[wire.Kind.PUBACK] == acknowledged
                testbed.proxy.cut()
            finally:
                release.set()
            await busy
            await eventually(lambda: testbed.proxy.connects == 2, "the gateway came back")
            await arrived(testbed, seen + 6)
            await testbed.settled()
            await stored(testbed, 81, 80, 79, 78)
            await client.publish(device.topic("heartbeat"), heartbeat_payload(77))
            await stored(testbed, 81, 80, 79, 78, 77)
        assert testbed.proxy.to_broker[wire.Kind.PUBACK] >= acknowledged + 4


@on_every_broker
async def test_messages_during_an_outage_reach_the_gateway(kind: str, tmp_path: Path) -> None:
    """Heartbeats and acknowledgements wait in the persistent session at the broker."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        async with testbed.join(device) as client:
            command = await testbed.command(device)
            await testbed.settled()
            await testbed.stop()
            for battery in (60, 59):
                await client.say(device.topic("heartbeat"), heartbeat_payload(battery))
            word = b'{"command_id": "%s", "status": "executed"}' % command.id.encode()
            await client.say(device.topic("commands/reboot/ack"), word)
            await testbed.start()
            await stored(testbed, 60, 59)
            await eventually(lambda: executed(testbed), "the acknowledgement arrived")
            await eventually(testbed.is_in_sync, "the command was cleared")


async def executed(testbed: MqttTestbed) -> bool:
    """Whether the one command is executed."""
    return [row[0] for row in await testbed.rows("SELECT status FROM commands")] == ["executed"]


async def _confirmed(client: wire.Wire) -> bool:
    await client.ping()
    return not client.waits_for


@on_every_broker
async def test_no_message_is_lost_while_commits_fail(kind: str, tmp_path: Path) -> None:
    """A write that the database refuses is tried again and acknowledged only then."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        await testbed.settled()
        async with testbed.join(device) as client:
            with capture_logs() as logs:
                async with locked(testbed.store, testbed.broker.directory / "data"):
                    await client.say(device.topic("heartbeat"), heartbeat_payload(50), heartbeat_payload(49))
                    await eventually(
                        lambda: [each for each in logs if each["event"] == "ingest.not_stored"], "a commit failed"
                    )
                    acknowledged = testbed.proxy.to_broker[wire.Kind.PUBACK]
                    await client.ping()
                    assert client.waits_for == (2 if kind == "embedded" else 0)
                await stored(testbed, 50, 49)
                await eventually(lambda: _confirmed(client), "the device has its PUBACKs")
            await eventually(
                lambda: testbed.proxy.to_broker[wire.Kind.PUBACK] >= acknowledged + 2, "both were acknowledged"
            )
        assert testbed.proxy.connects == 1, "the connection was kept"


@on_mosquitto
@pytest.mark.parametrize("triggers", [[POISON], [POISON, NO_REFUSALS]], ids=["kept", "cannot even be kept"])
async def test_an_unforeseen_message_does_not_block_others(
    kind: str, tmp_path: Path, triggers: list[tuple[str, ...]]
) -> None:
    """The others of its batch are stored; it is logged with its traceback, kept if that can be, and acknowledged."""

    def prepare(tx: Tx) -> None:
        for trigger in triggers:
            refuse(tx, *trigger)

    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        await testbed.store.write(prepare)
        async with testbed.join(device) as client:
            seen, acknowledged = testbed.proxy.to_gateway[wire.Kind.PUBLISH], testbed.proxy.to_broker[wire.Kind.PUBACK]
            with capture_logs() as logs:
                release = threading.Event()
                busy = asyncio.create_task(testbed.store.write(lambda _: release.wait()))
                try:
                    for battery in (90, 13, 88):
                        await client.publish(device.topic("heartbeat"), heartbeat_payload(battery))
                    await arrived(testbed, seen + 3)
                finally:
                    release.set()
                await busy
                await stored(testbed, 90, 88)
                await eventually(
                    lambda: testbed.proxy.to_broker[wire.Kind.PUBACK] >= acknowledged + 3, "all were acknowledged"
                )
            events = [each["event"] for each in logs if each["log_level"] == "error"]
            assert "ingest.message_failed" in events
            kept = await testbed.rows("SELECT code FROM refusals")
            assert [row["code"] for row in kept] == (["internal_error"] if len(triggers) == 1 else [])
            await client.publish(device.topic("heartbeat"), heartbeat_payload(87))
            await stored(testbed, 90, 88, 87)
        assert testbed.proxy.connects == 1, "the connection was kept"


@on_mosquitto
async def test_a_flood_at_qos_0_is_bounded(kind: str, tmp_path: Path) -> None:
    """Nothing holds back QoS 0, so beyond a few thousand it is dropped, as it may be; QoS 1 is not."""
    count = 3 * BATCH + WAITING_AT_QOS_0
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device, other = await testbed.bound(), await testbed.bound("SN-2")
        async with testbed.join(device) as client, testbed.join(other) as second:
            release = threading.Event()
            with capture_logs() as logs:
                busy = asyncio.create_task(testbed.store.write(lambda _: release.wait()))
                try:
                    await client.send(
                        *(wire.publish_packet(device.topic("heartbeat"), b"{}", qos=0) for _ in range(count))
                    )
                    await eventually(lambda: dropped(logs), "some were dropped")
                    await second.publish(other.topic("heartbeat"), heartbeat_payload(42))
                finally:
                    release.set()
                await busy
            await eventually(lambda: _has_stored(testbed, 42), "the one at QoS 1 was stored")
        rows = await testbed.rows("SELECT count(*) FROM heartbeats")
        assert WAITING_AT_QOS_0 < rows[0][0] <= count
        assert len(dropped(logs)) <= count / 1_000, "not a line for each"


def dropped(logs: list[Any]) -> list[Any]:
    """What the log says of messages that were dropped."""
    return [each for each in logs if each["event"] == "ingest.dropped_at_qos_0"]


async def _has_stored(testbed: MqttTestbed, battery: int) -> bool:
    return battery in await testbed.stored_batteries()


@on_every_broker
async def test_many_heartbeats_are_stored_in_batches(kind: str, tmp_path: Path) -> None:
    """What waits is committed together, and each message is acknowledged."""
    count = 400
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        async with testbed.join(device) as client:
            burst = [
                wire.publish_packet(
                    device.topic("heartbeat"), heartbeat_payload(n % 101, sent_at=None), packet_id=n + 1
                )
                for n in range(count)
            ]
            await client.send(*burst)
            await eventually(lambda: all_stored(testbed, count), "all were stored")
            await eventually(lambda: testbed.proxy.to_broker[wire.Kind.PUBACK] >= count, "all were acknowledged")


async def all_stored(testbed: MqttTestbed, count: int) -> bool:
    """Whether that many heartbeats are there."""
    rows = await testbed.rows("SELECT count(*) FROM heartbeats")
    return bool(rows[0][0] == count)


@pytest.mark.parametrize("kind", ["mosquitto-5"])
async def test_a_reset_in_the_middle_of_a_batch(kind: str, tmp_path: Path) -> None:
    """What is done by then is committed and acknowledged, the reset comes next, and the rest of the batch after it."""
    count = 3 * LEAST
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device, other = await testbed.bound(), await testbed.bound("SN-2")
        async with testbed.join(device) as client:
            release = threading.Event()
            busy = asyncio.create_task(testbed.store.write(lambda _: release.wait()))
            acknowledged = testbed.proxy.to_broker[wire.Kind.PUBACK]
            seen = testbed.proxy.to_gateway[wire.Kind.PUBLISH]
            await client.send(
                *(wire.publish_packet(device.topic("heartbeat"), b"{}", packet_id=n + 1) for n in range(count))
            )
            await arrived(testbed, seen + count)
            resets = [asyncio.create_task(testbed.reset(other))]
            release.set()
            await busy
            await asyncio.gather(*resets)
            await eventually(lambda: all_stored(testbed, count), "all were stored")
            await eventually(
                lambda: testbed.proxy.to_broker[wire.Kind.PUBACK] >= acknowledged + count, "all were acknowledged"
            )


@on_every_broker
async def test_an_executed_reset_survives_an_id_collision(kind: str, tmp_path: Path) -> None:
    """Another process minted the ids of its events first: the acknowledgement is taken all the same, and once."""
    ids = CollidingIds()
    context = Context(Rules(gateway_id="gw_test"), clock=ShiftedClock(), ids=ids)
    async with open_testbed(kind, tmp_path, context=context) as testbed:
        await testbed.start()
        device = await testbed.bound()
        command = await testbed.reset(device)
        await testbed.settled()
        events = await testbed.rows("SELECT id FROM events ORDER BY seq")
        async with testbed.join(device) as client:
            word = {
                "command_id": command.id,
                "status": "executed",
                "result": {"wiped": ["device_token", "pairing", "wifi_networks"], "kept": ["serial_number"]},
                "receipt": receipt(device.token, command.id, "executed", device.generation),
            }
            ids.taken = [event["id"] for event in events[:2]]
            await client.publish(device.topic("commands/factory_reset/ack"), json.dumps(word).encode())

            async def final() -> str | None:
                rows = await testbed.rows("SELECT status FROM commands WHERE final_at IS NOT NULL")
                return rows[0]["status"] if rows else None

            assert await eventually(final, "the reset is final") == "executed"
        assert ids.taken == []
        assert (await testbed.events(device, "reset.completed")) == ["reset.completed"]
        assert await testbed.rows("SELECT * FROM refusals") == []


@on_every_broker
async def test_an_empty_message_is_acknowledged_without_a_transaction(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cleared its topic, and has no other effect. The gateway clears a topic at each bind."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        async with testbed.join(device) as client:
            await client.publish(device.topic("heartbeat"), heartbeat_payload(70))
            await stored(testbed, 70)
            await eventually(lambda: _all_acknowledged(testbed), "nothing is on its way")
            batches: list[object] = []
            monkeypatch.setattr(testbed.store, "write_batch", batches.append)
            before = testbed.proxy.to_gateway[wire.Kind.PUBLISH]
            for leaf in ("status", "commands/reboot/ack"):
                await client.publish(device.topic(leaf), b"")
            await arrived(testbed, before + 2)
            await eventually(lambda: _all_acknowledged(testbed), "they are acknowledged")
            assert batches == []
            monkeypatch.undo()
