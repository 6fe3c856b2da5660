"""Integrators of one project at real brokers: they read that project alone, whatever they subscribe to."""

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

import broker_config
from gateway.domain import devices
from gateway.models.devices import RegisterDevice
from gateway.mqtt.background_publisher import BackgroundPublisher
from gateway.mqtt.retained_scan import ScanMarker
from gateway.outbound.event_publisher import EventPublisher
from gateway.outbound.retained_mirror import RetainedMirror
from gateway.outbound.states import ProjectStateLeaf, StateTopic
from gateway.store import Tx, account_sql, key_sql, outbox_sql
from tests.mqtt.brokers import EmbeddedUnderTest, MosquittoUnderTest
from tests.mqtt.devices import Device, heartbeat_payload
from tests.mqtt.support import KINDS, MqttTestbed, open_testbed
from tests.support import wire
from tests.support.rabbitmq import RabbitMq
from tests.support.wait import eventually

NAME = "integrator_ward"
END = "gateways/end/status"
LOST = (wire.ConnectionClosedError, ConnectionError)


def states(testbed: MqttTestbed, mark: ScanMarker) -> BackgroundPublisher:
    """States for those who read all projects, at a pace for tests."""
    return RetainedMirror(testbed.store, StateTopic(testbed.topics), mark, tick_seconds=0.05)


def project_states(testbed: MqttTestbed, mark: ScanMarker) -> BackgroundPublisher:
    """States for those who read one project."""
    return RetainedMirror(testbed.store, ProjectStateLeaf(testbed.topics), mark, tick_seconds=0.05)


def events(testbed: MqttTestbed, _: ScanMarker) -> BackgroundPublisher:
    """Events."""
    return EventPublisher(testbed.store, testbed.topics, testbed.wakeups)


@dataclass
class TwoProjects:
    """A gateway with a device in each of two projects; no account yet."""

    testbed: MqttTestbed
    other_project: str
    own: Device
    other: Device

    @property
    def own_states(self) -> str:
        """Where the account reads states."""
        return f"projects/{self.testbed.project_id}/devices/+/state"

    def copy(self, device: Device, leaf: str) -> str:
        """A topic of this device for the integrators of its project."""
        project_id = self.testbed.project_id if device is self.own else self.other_project
        return f"projects/{project_id}/{device.topic(leaf)}"

    async def account(self) -> str:
        """Make the account of the first project; its password."""
        password = await self.testbed.store.write(lambda tx: account_sql.create(tx, NAME, self.testbed.project_id))
        self.testbed.wakeups.access_changed()
        return password

    async def revoke(self) -> None:
        """Refuse it."""
        await self.testbed.store.write(lambda tx: account_sql.revoke(tx, NAME))
        self.testbed.wakeups.access_changed()

    async def retained(self, topic: str) -> bytes | None:
        """What lies there, for who asks by its full name."""
        return (await self.testbed.retained(topic)).get(topic)

    @asynccontextmanager
    async def joined(self, password: str) -> AsyncIterator[wire.Wire]:
        """Connect as the account, as soon as the broker knows it."""
        async with contextlib.AsyncExitStack() as stack:

            async def attempt_connect() -> wire.Wire | None:
                client = await stack.enter_async_context(wire.Wire.open("127.0.0.1", self.testbed.broker.port))
                return client if await client.connect(NAME, NAME, password) == wire.ACCEPTED else None

            client = await eventually(attempt_connect, "the integrator was let in")
            assert client
            yield client


def _bind(tx: Tx, project_id: str, serial: str) -> devices.NewBinding:
    device, _ = devices.register(tx, project_id, RegisterDevice(serial_number=serial), "key_test")
    return devices.bind(tx, project_id, device.id, "eu_1", "key_test")


@pytest.fixture(params=[*KINDS, "rabbitmq"])
async def two(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TwoProjects]:
    """On each broker, with the account's rights in Mosquitto's file, as ``gateway accounts create`` prints them."""
    node: RabbitMq | None = request.getfixturevalue("rabbitmq") if request.param == "rabbitmq" else None
    async with open_testbed(request.param, tmp_path, rules={"mirrored": ("state",)}, node=node) as testbed:
        if isinstance(testbed.broker, MosquittoUnderTest):
            shipped = testbed.broker.mosquitto.files.acl.read_text()
            await testbed.broker.set_rights(f"{shipped}\n{broker_config.reading(NAME, '', testbed.project_id)}")
        testbed.outlets = [partial(each, testbed) for each in (states, project_states, events)]
        await testbed.start()
        other_project = await testbed.store.write(lambda tx: key_sql.create_project(tx, "other ward"))
        own = await testbed.bound("SN-1")
        binding = await testbed.store.write(lambda tx: _bind(tx, other_project, "SN-2"))
        row = binding.device
        other = Device(row.id, row.pk, binding.device_token, row.binding_generation)
        await testbed.settled()
        yield TwoProjects(testbed, other_project, own, other)


async def _arrives(two: TwoProjects, client: wire.Wire, admin: wire.Wire, topic_filter: str) -> set[str]:
    """Topics on which something arrives by this filter: what is retained, and what is said from now on."""
    await client.subscribe(END)
    await client.subscribe(topic_filter)
    for device in (two.own, two.other):
        for leaf in ("state", "events/device.bound", "commands/reboot", "heartbeat"):
            await admin.publish(device.topic(leaf), b"")
            await admin.publish(two.copy(device, leaf), b"")
    await admin.publish(END, b"")
    return {message.topic for message in await client.read_until(END)}


async def test_a_project_account_reads_that_project_alone(two: TwoProjects) -> None:
    """By no wildcard, no shared subscription and no name; retained or new, states and events alike."""
    password = await two.account()
    own, other = two.testbed.project_id, two.other_project
    filters: tuple[str, ...] = (
        "#",
        "projects/#",
        "projects/+/devices/+/state",
        "projects/+/devices/+/events/#",
        f"projects/{other}/#",
    )
    filters += ("devices/+/state", "devices/#", "$share/g/#", "$share/g/projects/#", "$SYS/#")
    filters += (f"projects/{own}/#", two.copy(two.other, "state"), two.copy(two.other, "events/device.bound"))
    filters += (two.own.topic("state"), two.other.topic("state"), two.other.topic("commands/reboot"))
    good = {two.copy(two.own, leaf) for leaf in ("state", "events/device.bound", "events/device/bound")}
    await eventually(lambda: two.retained(two.copy(two.own, "state")), "the first account's states are there")
    async with two.testbed.admin("other") as admin:
        for each in filters:
            with contextlib.suppress(*LOST):
                async with two.joined(password) as client:
                    heard = await _arrives(two, client, admin, each)
                    assert {topic for topic in heard if not topic.startswith("gateways/")} <= good, each
        async with two.joined(password) as client:
            assert await _arrives(two, client, admin, two.own_states) == {two.copy(two.own, "state")}
        async with two.joined(password) as client:
            heard = await _arrives(two, client, admin, f"projects/{own}/devices/+/events/#")
            assert {topic.replace(".", "/") for topic in heard} == {two.copy(two.own, "events/device/bound")}


async def test_a_project_account_receives_its_events_in_order(two: TwoProjects) -> None:
    """The retained state from before the account was made, each change of it, and the events; none of the other."""
    password = await two.account()
    topic = two.copy(two.own, "state")
    before = await eventually(lambda: two.retained(topic), "the state is there for the first account")
    assert json.loads(before or b"{}")["id"] == two.own.id
    assert await two.retained(two.copy(two.other, "state")) is None
    async with two.joined(password) as client:
        await client.subscribe(f"projects/{two.testbed.project_id}/devices/+/events/#")
        await client.subscribe(topic)
        await two.testbed.command(two.own)
        await two.testbed.store.write(lambda tx: devices.unbind(tx, two.other_project, two.other.id, "key_test"))
        async with two.testbed.join(two.own) as device:
            await device.publish(two.own.topic("heartbeat"), heartbeat_payload(2))
        await two.testbed.unbind(two.own)
        happened = [row["id"] for row in await two.testbed.rows(_EVENTS, two.own.pk)]
        told: list[str] = []
        while not told or told[-1] != happened[-1]:
            message = await client.read_publish()
            await client.acknowledge(message)
            if message.topic != topic:
                told.append(json.loads(message.payload)["id"])
    assert len(told) > 1
    assert told == happened[-len(told) :]


_EVENTS = "SELECT id FROM events WHERE device_pk = ? ORDER BY seq"


async def test_retained_messages_of_a_project_go_with_its_last_account(two: TwoProjects) -> None:
    """And with the device; also where the account is revoked while the gateway is away."""
    topic, gone = two.copy(two.own, "state"), await two.testbed.bound("SN-3")
    gone_topic = f"projects/{two.testbed.project_id}/{gone.topic('state')}"
    await two.account()
    await eventually(lambda: two.retained(topic), "the state is there")
    await eventually(lambda: two.retained(gone_topic), "the state is there")
    await two.testbed.store.write(lambda tx: devices.delete(tx, two.testbed.project_id, gone.id, "key_test"))
    await eventually(partial(_is_away, two, gone_topic), "the state of the deleted device is gone")
    await two.testbed.stop()
    await two.revoke()
    await two.testbed.start()
    await eventually(partial(_is_away, two, topic), "the state is gone")
    assert await two.retained(two.own.topic("state")), "all projects are still shown"


async def _is_away(two: TwoProjects, topic: str) -> bool:
    return await two.retained(topic) is None


async def test_without_a_project_account_no_project_topics_are_published(two: TwoProjects) -> None:
    """Neither states nor events, nor rows in the outbox; also with an account that reads all projects."""
    await two.testbed.store.write(lambda tx: account_sql.create(tx, "integrator"))
    async with two.testbed.admin("other") as admin:
        await admin.subscribe("#", qos=0 if isinstance(two.testbed.broker, EmbeddedUnderTest) else 1)
        async with two.testbed.join(two.own) as device:
            await device.publish(two.own.topic("heartbeat"), heartbeat_payload(42))
        await eventually(partial(_shows, two, 42), "the state is shown")
        await admin.publish("marks/end", b"")
        heard = {message.topic for message in await admin.read_until("marks/end")}
    assert two.own.topic("heartbeat") in heard
    assert {topic for topic in heard if topic.startswith("projects/")} == set()
    assert await two.testbed.rows("SELECT * FROM outbox WHERE detail = ?", outbox_sql.PROJECT_STATE) == []


async def _shows(two: TwoProjects, battery: int) -> bool:
    payload = await two.retained(two.own.topic("state"))
    return payload is not None and json.loads(payload)["battery_percent"] == battery
