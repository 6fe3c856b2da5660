"""`devices/{id}/events/{type}` on real brokers: what happens, as CloudEvents, at least once."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiomqtt

from gateway.domain import administration
from gateway.mqtt.background_publisher import BackgroundPublisher
from gateway.mqtt.retained_scan import ScanMarker
from gateway.outbound.event_publisher import EventPublisher
from gateway.outbound.retained_mirror import RetainedMirror
from gateway.outbound.states import StateTopic
from gateway.store import Tx
from tests.mqtt.brokers import ADMIN_PASSWORD
from tests.mqtt.support import MqttTestbed, on_every_broker, open_testbed
from tests.support import wire
from tests.support.wait import eventually

EVENTS = "devices/+/events/#"


def make_event_publisher(testbed: MqttTestbed, _: ScanMarker, *, enabled: bool = True) -> BackgroundPublisher:
    """The worker."""
    return EventPublisher(testbed.store, testbed.topics, testbed.wakeups, enabled=enabled)


def make_state_mirror(testbed: MqttTestbed, mark: ScanMarker) -> BackgroundPublisher:
    """States beside it."""
    return RetainedMirror(testbed.store, StateTopic(testbed.topics), mark, tick_seconds=0.05)


@asynccontextmanager
async def open_event_testbed(kind: str, directory: Path) -> AsyncIterator[MqttTestbed]:
    """A site that tells events."""
    async with open_testbed(kind, directory) as testbed:
        testbed.outlets = [partial(make_event_publisher, testbed)]
        yield testbed


async def recorded_events(testbed: MqttTestbed) -> list[str]:
    """Ids of all events, oldest first."""
    return [row[0] for row in await testbed.rows("SELECT id FROM events ORDER BY seq")]


async def received_events(witness: wire.Wire, last: str) -> list[wire.Message]:
    """What comes up to the event of this id; each message is acknowledged."""
    messages: list[wire.Message] = []
    while not messages or json.loads(messages[-1].payload)["id"] != last:
        messages.append(await witness.read_publish())
        await witness.acknowledge(messages[-1])
    return messages


def ids(messages: list[wire.Message]) -> list[str]:
    """The events they tell, each once, in the order in which they came."""
    return list(dict.fromkeys(json.loads(message.payload)["id"] for message in messages))


async def is_position_stored(testbed: MqttTestbed) -> bool:
    """Whether the registry says that all events were told."""
    known = await testbed.rows("SELECT value FROM broker_facts WHERE key = 'events_told'")
    newest = await testbed.rows("SELECT max(seq) FROM events")
    return bool(known and newest and int(known[0][0]) == newest[0][0])


@on_every_broker
async def test_events_are_published_in_order_as_cloudevents(kind: str, tmp_path: Path) -> None:
    """Every attribute, on a topic of the event's type; not retained."""
    async with open_event_testbed(kind, tmp_path) as testbed, testbed.admin() as witness:
        await testbed.start()
        await witness.subscribe(EVENTS)
        device = await testbed.bound()
        await testbed.reset(device)
        events = await recorded_events(testbed)
        messages = await received_events(witness, events[-1])
        assert ids(messages) == events
        rows = await testbed.rows("SELECT * FROM events ORDER BY seq")
        for row, message in zip(rows, messages, strict=True):
            assert (message.topic, message.retain, message.qos) == (device.topic(f"events/{row['type']}"), False, 1)
            body: dict[str, Any] = json.loads(message.payload)
            assert body.pop("time").endswith("Z")
            assert body == {
                "specversion": "1.0",
                "id": row["id"],
                "source": "/gateways/gw_test",
                "type": row["type"],
                "subject": device.id,
                "datacontenttype": "application/json",
                "projectid": testbed.project_id,
                "data": json.loads(row["data"]),
            }


async def test_events_without_a_device_are_not_published(tmp_path: Path) -> None:
    """A hundred keys between two devices: the devices alone are told of, and the number moves past the keys."""

    def keys_come(tx: Tx) -> None:
        for number in range(100):
            administration.create_key(tx, testbed.project_id, f"key {number}", "cli")

    async with open_event_testbed("mosquitto-5", tmp_path) as testbed, testbed.admin() as witness:
        await testbed.start()
        await witness.subscribe(EVENTS)
        await testbed.bound("SN-1")
        await testbed.store.write(keys_come)
        await testbed.bound("SN-2")
        of_devices = [row[0] for row in await testbed.rows("SELECT id FROM events WHERE device_pk > 0 ORDER BY seq")]
        messages = await received_events(witness, of_devices[-1])
        assert ids(messages) == of_devices
        await testbed.store.write(keys_come)
        await eventually(partial(is_position_stored, testbed), "the number of the newest event is written down")


@on_every_broker
async def test_events_during_a_broker_outage_are_published_afterwards(kind: str, tmp_path: Path) -> None:
    """The gateway goes on after what the broker has taken."""
    async with open_event_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        async with testbed.admin() as witness:
            await witness.subscribe(EVENTS)
            await testbed.reset(device)
            await received_events(witness, (await recorded_events(testbed))[-1])
            await eventually(partial(is_position_stored, testbed), "the number of the newest event is written down")
            await testbed.stop()
            told_already = await recorded_events(testbed)
            await testbed.bound("SN-2")
            await testbed.start()
            expected = (await recorded_events(testbed))[len(told_already) :]
            assert ids(await received_events(witness, expected[-1])) == expected


async def test_after_a_kill_events_are_published_at_least_once(tmp_path: Path) -> None:
    """The number of the last one told is written later: what it is behind comes twice, under the same id."""
    async with open_event_testbed("mosquitto-5", tmp_path) as testbed, testbed.admin() as witness:
        await testbed.start()
        await witness.subscribe(EVENTS)
        await testbed.bound()
        events = await recorded_events(testbed)
        assert ids(await received_events(witness, events[-1])) == events
        await testbed.stop()
        await testbed.store.write(
            lambda tx: tx.run("UPDATE broker_facts SET value = '0' WHERE key = 'events_told'").rowcount
        )
        await testbed.start()
        assert ids(await received_events(witness, events[-1])) == events


async def test_the_position_is_stored_once_it_is_idle(tmp_path: Path) -> None:
    """One number in the registry, not a row an event."""
    async with open_event_testbed("mosquitto-5", tmp_path) as testbed:
        await testbed.start()
        await testbed.bound()
        await eventually(partial(is_position_stored, testbed), "the number of the newest event is written down")


async def test_events_while_disabled_are_left_out(tmp_path: Path) -> None:
    """A year of history is not published when it is switched on."""
    async with open_event_testbed("mosquitto-5", tmp_path) as testbed, testbed.admin() as witness:
        await witness.subscribe(EVENTS)
        testbed.outlets = [partial(make_event_publisher, testbed, enabled=False)]
        await testbed.start()
        await testbed.bound()
        await testbed.stop()
        testbed.outlets = [partial(make_event_publisher, testbed)]
        left_out = await recorded_events(testbed)
        await testbed.start()

        async def begun() -> bool:
            return bool(await testbed.rows("SELECT value FROM broker_facts WHERE key = 'events_told'"))

        await eventually(begun, "it has noted where it begins")
        await testbed.bound("SN-2")
        expected = (await recorded_events(testbed))[len(left_out) :]
        assert ids(await received_events(witness, expected[-1])) == expected


async def test_under_mqtt_5_events_have_a_content_type(tmp_path: Path) -> None:
    """The content types of CloudEvents and of JSON, and that the payload is text."""
    async with open_event_testbed("mosquitto-5", tmp_path) as testbed:
        testbed.outlets = [*testbed.outlets, partial(make_state_mirror, testbed)]
        object.__setattr__(testbed.store.context.rules, "mirrored", ("state",))
        await testbed.start()
        client = aiomqtt.Client(
            "127.0.0.1",
            testbed.broker.port,
            username="admin",
            password=ADMIN_PASSWORD,
            identifier="admin",
            protocol=aiomqtt.ProtocolVersion.V5,
        )
        found: dict[str, Any] = {}
        async with client:
            await client.subscribe([(EVENTS, 1), ("devices/+/state", 1)])
            await testbed.bound()
            async for message in client.messages:
                found[message.topic.value.split("/")[2]] = message.properties
                if len(found) == 2:
                    break
        assert {leaf: each.ContentType for leaf, each in found.items()} == {
            "state": "application/json",
            "events": "application/cloudevents+json; charset=utf-8",
        }
        assert {each.PayloadFormatIndicator for each in found.values()} == {1}
