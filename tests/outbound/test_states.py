"""`devices/{id}/state` on real brokers: the device object, retained, for as long as there is such a device."""

import json
from collections.abc import AsyncIterator, MutableMapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.domain import devices, messages
from gateway.models.devices import Device as DeviceAnswer
from gateway.models.devices import RegisterDevice
from gateway.mqtt.background_publisher import BackgroundPublisher
from gateway.mqtt.retained_scan import RetainedScan, ScanMarker
from gateway.mqtt.session import Session
from gateway.outbound import retained_mirror
from gateway.outbound.retained_mirror import RetainedMirror
from gateway.outbound.states import StateTopic
from gateway.store import Tx, View, device_sql
from tests.mqtt.devices import Device, heartbeat_payload
from tests.mqtt.support import MqttTestbed, on_every_broker, open_testbed
from tests.support.wait import eventually

STATES = "devices/+/state"
ON = {"mirrored": ("state",)}
FLEET = 1_500
SHORT_QUEUE = "max_inflight_messages 20\nmax_queued_bytes 800000\n"
"""Mosquitto then returns a part of that fleet's states to a wildcard, as it does with 64 MiB and a large fleet."""


def make_state_mirror(testbed: MqttTestbed, mark: ScanMarker) -> BackgroundPublisher:
    """The worker, at a pace for tests."""
    return RetainedMirror(testbed.store, StateTopic(testbed.topics), mark, tick_seconds=0.05)


@asynccontextmanager
async def open_state_testbed(
    kind: str, directory: Path, *, settings: str = "", **rules: Any
) -> AsyncIterator[MqttTestbed]:
    """A site that shows states."""
    async with open_testbed(kind, directory, rules=ON | rules, settings=settings) as testbed:
        testbed.outlets = [partial(make_state_mirror, testbed)]
        yield testbed


def _device(view: View, pk: int) -> DeviceAnswer:
    return device_sql.to_model(device_sql.by_pk(view, pk))


async def states_of(testbed: MqttTestbed, *found: Device) -> dict[str, dict[str, Any]]:
    """What should be retained of these, by topic."""
    rows = [(await testbed.rows("SELECT pk FROM devices WHERE id = ?", each.id))[0][0] for each in found]
    objects = [await testbed.store.read(partial(_device, pk=pk)) for pk in rows]
    return {each.topic("state"): one.model_dump(mode="json") for each, one in zip(found, objects, strict=True)}


async def wait_for_states(testbed: MqttTestbed, *found: Device) -> None:
    """Wait until exactly these devices are shown, as the registry knows them."""

    async def same() -> bool:
        held = {topic: json.loads(payload) for topic, payload in (await testbed.retained(STATES)).items() if payload}
        return held == await states_of(testbed, *found)

    await eventually(same, "the broker shows what the registry holds")


async def delete(testbed: MqttTestbed, device: Device) -> None:
    """Delete it."""
    await testbed.store.write(lambda tx: devices.delete(tx, testbed.project_id, device.id, "key_test"))


async def restore(testbed: MqttTestbed, device: Device) -> None:
    """Bring it back."""
    await testbed.store.write(lambda tx: devices.restore(tx, testbed.project_id, device.id, "key_test"))


@on_every_broker
async def test_the_state_follows_the_device(kind: str, tmp_path: Path) -> None:
    """Bound, heard, reset, deleted, restored: retained is what GET /v1/devices/{id} answers, or nothing."""
    async with open_state_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device, other = await testbed.bound(), await testbed.bound("SN-2")
        await wait_for_states(testbed, device, other)
        async with testbed.join(device) as client:
            await client.publish(device.topic("heartbeat"), heartbeat_payload(80, signal_strength_dbm=-61))

            async def heard() -> bool:
                state = (await testbed.retained(STATES)).get(device.topic("state"), b"{}")
                return (json.loads(state)["battery_percent"], json.loads(state)["connection"]) == (80, "online")

            await eventually(heard, "the heartbeat shows")
        await testbed.reset(device)
        await wait_for_states(testbed, device, other)
        await delete(testbed, other)
        await wait_for_states(testbed, device)
        await restore(testbed, other)
        await wait_for_states(testbed, device, other)


@on_every_broker
async def test_differences_at_the_broker_are_repaired(kind: str, tmp_path: Path) -> None:
    """Missing, old, of a deleted device, of an unknown one: after the next connect it is as it should be."""
    async with open_state_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        lost, old, gone = [await testbed.bound(f"SN-{number}") for number in range(3)]
        await wait_for_states(testbed, lost, old, gone)
        await testbed.stop()
        await delete(testbed, gone)
        async with testbed.admin("other") as client:
            await client.publish(lost.topic("state"), b"", retain=True)
            await client.publish(old.topic("state"), b'{"id": "old"}', retain=True)
            await client.publish(gone.topic("state"), b'{"id": "gone"}', retain=True)
            await client.publish("devices/dev_nobody/state", b"{}", retain=True)
        await testbed.start()
        await wait_for_states(testbed, lost, old)


@pytest.mark.parametrize("held", [1, 2, 60_000])
async def test_unknown_states_are_found_among_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    """Also beyond the number that is kept of an answer. Those of living devices stay, and are not published again."""
    monkeypatch.setattr(retained_mirror, "MOST_HELD", held)
    monkeypatch.setattr(retained_mirror, "BATCH", 2)
    async with open_state_testbed("mosquitto-5", tmp_path) as testbed:
        await testbed.start()
        found = [await testbed.bound(f"SN-{number}") for number in range(5)]
        await wait_for_states(testbed, *found)
        await testbed.stop()
        await delete(testbed, gone := found.pop())
        await testbed.store.write(lambda tx: tx.run("DELETE FROM outbox WHERE kind = 'mirror'"))
        async with testbed.admin("other") as client:
            await client.publish(gone.topic("state"), b'{"id": "gone"}', retain=True)
            for number in range(5):
                await client.publish(f"devices/dev_nobody{number}/state", b"{}", retain=True)
        with capture_logs() as logs:
            await testbed.start()
            await wait_for_states(testbed, *found)
        compared = _compared(logs)
        assert compared is not None
        assert compared["marked"] == 1
        assert len(compared["strangers"]) == 5


async def test_a_broker_that_lost_its_messages_gets_the_states_again(tmp_path: Path) -> None:
    """Mosquitto without its disk."""
    async with open_state_testbed("mosquitto-5", tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        await wait_for_states(testbed, device)
        await testbed.broker.stop()
        await testbed.broker.start(empty=True)
        await wait_for_states(testbed, device)


async def test_a_second_connect_publishes_nothing_though_the_broker_returns_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the wildcard did not return is asked for by its name, so a comparison that finds no difference ends.

    A broker that holds no state at all is asked for none.
    """
    asked: list[int] = []
    ask = RetainedScan.ask

    async def counted(scan: RetainedScan, session: Session, names: Sequence[str]) -> None:
        asked.append(len(names))
        await ask(scan, session, names)

    monkeypatch.setattr(RetainedScan, "ask", counted)
    async with open_state_testbed("mosquitto-3.1.1", tmp_path, settings=SHORT_QUEUE) as testbed:
        await testbed.store.write(partial(_register, project_id=testbed.project_id))
        with capture_logs() as first:
            await testbed.start()
            await eventually(lambda: _compared(first) is not None, "the first comparison")
            await eventually(partial(_nothing_waits, testbed), "all states were published")
        assert asked == []
        await testbed.stop()
        with capture_logs() as second:
            await testbed.start()
            await eventually(lambda: _compared(second) is not None, "the second comparison")
        found = _compared(second)
        assert found is not None
        assert 0 < found["held"] < FLEET
        assert sum(asked) == FLEET - found["held"]
        assert (found["marked"], found["strangers"]) == (0, [])


def _register(tx: Tx, project_id: str) -> None:
    for number in range(FLEET):
        devices.register(tx, project_id, RegisterDevice(serial_number=f"SN-{number}"), "key_test")


def _compared(logs: Sequence[MutableMapping[str, Any]]) -> MutableMapping[str, Any] | None:
    return next((each for each in logs if each["event"] == "mirror.compared"), None)


async def _nothing_waits(testbed: MqttTestbed) -> bool:
    return not await testbed.rows("SELECT 1 FROM outbox WHERE kind = 'mirror' LIMIT 1")


@on_every_broker
async def test_switching_it_off_clears_the_states(kind: str, tmp_path: Path) -> None:
    """And shows all again when it is switched on."""
    async with open_state_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        await wait_for_states(testbed, device)
        await testbed.stop()
        object.__setattr__(testbed.store.context.rules, "mirrored", ())
        await testbed.start()
        await wait_for_states(testbed)
        await testbed.unbind(device)
        assert await testbed.rows("SELECT * FROM outbox WHERE kind = 'mirror'") == []
        await testbed.stop()
        object.__setattr__(testbed.store.context.rules, "mirrored", ("state",))
        await testbed.start()
        await wait_for_states(testbed, device)


async def test_many_changes_between_two_reads_make_one_message(tmp_path: Path) -> None:
    """The last of them: a subscriber sees no state that was gone before it could be told."""
    async with open_state_testbed("mosquitto-5", tmp_path) as testbed, testbed.admin("other") as witness:
        await testbed.start()
        device = await testbed.bound()
        await wait_for_states(testbed, device)
        await testbed.stop()
        await witness.subscribe(device.topic("state"))
        assert (await witness.read_publish()).retain
        for battery in range(20):
            message = messages.Message(device.topic("heartbeat"), heartbeat_payload(battery))
            await testbed.store.write(partial(messages.apply, parsed=messages.parse(testbed.topics, message)))
        await testbed.start()
        told = json.loads((await witness.read_publish()).payload)
        assert told["battery_percent"] == 19
        await testbed.unbind(device)
        assert json.loads((await witness.read_publish()).payload)["status"] == "unbound"
