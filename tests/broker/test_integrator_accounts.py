"""Integrators at real brokers: let in with their own password, they read the fleet and write nothing."""

import json
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from gateway.mqtt.background_publisher import BackgroundPublisher
from gateway.mqtt.retained_scan import ScanMarker
from gateway.outbound.event_publisher import EventPublisher
from gateway.outbound.retained_mirror import RetainedMirror
from gateway.outbound.states import StateTopic
from gateway.store import account_sql
from gateway.workers.change_poller import ChangePoller
from tests.mqtt.brokers import EmbeddedUnderTest, MosquittoUnderTest
from tests.mqtt.devices import heartbeat_payload
from tests.mqtt.support import MqttTestbed, on_every_broker, open_testbed
from tests.support import wire
from tests.support.wait import eventually

NAME = "integrator"
REFUSED = {wire.NOT_AUTHORISED, wire.BAD_CREDENTIALS}


def states(testbed: MqttTestbed, mark: ScanMarker) -> BackgroundPublisher:
    """States, at a pace for tests."""
    return RetainedMirror(testbed.store, StateTopic(testbed.topics), mark, tick_seconds=0.05)


def events(testbed: MqttTestbed, _: ScanMarker) -> BackgroundPublisher:
    """Events."""
    return EventPublisher(testbed.store, testbed.topics, testbed.wakeups)


class Accounts:
    """The command line beside the gateway, and the gateway that looks for what it did."""

    def __init__(self, testbed: MqttTestbed) -> None:
        self.testbed = testbed
        self._watcher = ChangePoller(testbed.store, testbed.wakeups)

    async def make(self) -> str:
        """Make the account; its password."""
        await self._watcher.look()
        password = await self.testbed.store.write(lambda tx: account_sql.create(tx, NAME))
        await self._watcher.look()
        return password

    async def rotate(self) -> str:
        """Another password."""
        password = await self.testbed.store.write(lambda tx: account_sql.rotate(tx, NAME))
        await self._watcher.look()
        return password

    async def revoke(self) -> None:
        """Refuse it."""
        await self.testbed.store.write(lambda tx: account_sql.revoke(tx, NAME))
        await self._watcher.look()

    async def answer(self, password: str) -> int:
        """What the broker says to it."""
        async with wire.Wire.open("127.0.0.1", self.testbed.broker.port) as client:
            return await client.connect(NAME, NAME, password)

    async def refuses(self, password: str) -> bool:
        """Whether the broker does."""
        return await self.answer(password) in REFUSED


async def is_accepted(testbed: MqttTestbed, stack: AsyncExitStack, password: str) -> wire.Wire:
    """Connect, as soon as the broker knows the password."""

    async def attempt_connect() -> wire.Wire | None:
        client = await stack.enter_async_context(wire.Wire.open("127.0.0.1", testbed.broker.port))
        return client if await client.connect(NAME, NAME, password) == wire.ACCEPTED else None

    client = await eventually(attempt_connect, "the integrator was let in")
    assert client
    return client


@on_every_broker
async def test_an_integrator_reads_the_fleet_and_nothing_else(kind: str, tmp_path: Path) -> None:
    """State, events, the gateway's own status; no command with its grant, no heartbeat, whatever it subscribes to."""
    async with open_testbed(kind, tmp_path, rules={"mirrored": ("state",)}) as testbed, AsyncExitStack() as stack:
        testbed.outlets = [partial(states, testbed), partial(events, testbed)]
        await testbed.start()
        client = await is_accepted(testbed, stack, await Accounts(testbed).make())
        for each in ("devices/+/state", "devices/+/events/#", "gateways/#", "#", "devices/+/commands/+"):
            await client.subscribe(each)
        device = await testbed.bound()
        await testbed.command(device)
        async with testbed.join(device) as other:
            await other.publish(device.topic("heartbeat"), heartbeat_payload(42))
            heard: dict[str, bytes] = {}
            wanted = {device.topic(leaf) for leaf in ("events/device.bound", "events/command.created")}
            while not wanted <= set(heard) or not _shows(heard.get(device.topic("state"), b"{}"), 42):
                message = await client.read_publish()
                await client.acknowledge(message)
                heard[message.topic] = message.payload
        told = {topic.removeprefix(device.topic("")) for topic in heard if topic.startswith(device.topic(""))}
        assert {each.partition("/")[0] for each in told} == {"state", "events"}
        assert testbed.status_topic in heard


@on_every_broker
async def test_an_integrator_writes_nothing(kind: str, tmp_path: Path) -> None:
    """Neither a command nor a state, an event, a heartbeat, a status; retained or not, and not as its last will."""
    async with open_testbed(kind, tmp_path) as testbed, AsyncExitStack() as stack, testbed.admin() as witness:
        await testbed.start()
        device = await testbed.bound()
        client = await is_accepted(testbed, stack, await Accounts(testbed).make())
        await witness.subscribe("devices/#", "gateways/#", "marks/#")
        for leaf in ("commands/reboot", "state", "events/device.bound", "heartbeat", "status", "commands/reboot/ack"):
            for retain in (False, True):
                await client.send(wire.publish_packet(device.topic(leaf), b"mine", qos=0, retain=retain))
        await client.send(wire.publish_packet(testbed.status_topic, b"mine", qos=0, retain=True))
        await client.ping()
        async with testbed.admin("other") as other:
            await other.publish("marks/end", b"")
        assert [one for one in await witness.read_until("marks/end") if one.payload == b"mine"] == []
        assert await testbed.rows("SELECT * FROM refusals") == []


@on_every_broker
async def test_a_session_with_a_replaced_password_is_cut(kind: str, tmp_path: Path) -> None:
    """Rotated: cut, the old one refused, the new one good. Revoked: cut and refused. Devices do not notice."""
    async with open_testbed(kind, tmp_path) as testbed, AsyncExitStack() as stack:
        await testbed.start()
        device = await testbed.bound()
        accounts_there = Accounts(testbed)
        async with testbed.join(device) as witness:
            old = await accounts_there.make()
            client = await is_accepted(testbed, stack, old)
            new = await accounts_there.rotate()
            await client.closed()
            assert await accounts_there.refuses(old)
            client = await is_accepted(testbed, stack, new)
            await accounts_there.revoke()
            await client.closed()
            assert await accounts_there.refuses(new)
            await witness.ping()
        assert testbed.proxy.connects == 1
        if isinstance(testbed.broker, MosquittoUnderTest):
            assert f"{NAME}:" not in testbed.broker.mosquitto.password_file.read_text()


async def test_the_queue_of_a_revoked_account_is_dropped(tmp_path: Path) -> None:
    """Sessions of clients that are away, which hold subscriptions and messages, go with the account."""
    async with open_testbed("embedded", tmp_path) as testbed, AsyncExitStack() as stack:
        await testbed.start()
        assert isinstance(testbed.broker, EmbeddedUnderTest)
        accounts_there, broker = Accounts(testbed), testbed.broker.broker
        password = await accounts_there.make()
        await is_accepted(testbed, stack, password)
        for name in ("one", "two"):
            async with wire.Wire.open("127.0.0.1", testbed.broker.port) as client:
                assert await client.connect(name, NAME, password, clean=False) == wire.ACCEPTED
                await client.disconnect()
        assert set(broker.kept_sessions()) >= {NAME, f"{NAME}/one", f"{NAME}/two"}
        await accounts_there.revoke()
        await eventually(lambda: not [key for key in broker.kept_sessions() if key.startswith(NAME)], "all are gone")


@on_every_broker
async def test_an_account_created_while_the_gateway_was_down_works(kind: str, tmp_path: Path) -> None:
    """It is in the registry, and the broker learns of it at the start."""
    async with open_testbed(kind, tmp_path) as testbed, AsyncExitStack() as stack:
        password = await Accounts(testbed).make()
        await testbed.start()
        await is_accepted(testbed, stack, password)


async def test_only_hashes_are_stored(tmp_path: Path) -> None:
    """Neither the registry nor Mosquitto's password file holds the password."""
    async with open_testbed("mosquitto-5", tmp_path) as testbed:
        await testbed.start()
        password = await Accounts(testbed).make()
        await eventually(lambda: f"{NAME}:$6$" in _password_file(testbed), "the broker's file has the account")
        assert password not in _password_file(testbed)
        kept = [value for row in await testbed.rows("SELECT * FROM broker_accounts") for value in row]
        assert all(password not in str(value) for value in kept)


def _shows(state: bytes, battery: int) -> bool:
    return bool(json.loads(state).get("battery_percent") == battery)


def _password_file(testbed: MqttTestbed) -> str:
    assert isinstance(testbed.broker, MosquittoUnderTest)
    return testbed.broker.mosquitto.password_file.read_text()


@on_every_broker
async def test_a_device_never_reads_integrator_topics(kind: str, tmp_path: Path) -> None:
    """Neither about itself nor about another, whether its token is active or good for its reset alone."""
    async with open_testbed(kind, tmp_path, rules={"mirrored": ("state",)}) as testbed:
        testbed.outlets = [partial(states, testbed), partial(events, testbed)]
        await testbed.start()
        device, other = await testbed.bound(), await testbed.bound("SN-2")
        async with testbed.join(device) as client, testbed.admin() as witness:
            await witness.subscribe(other.topic("state"), device.topic("events/#"))
            for each in ("state", "events/#", "events/+"):
                await client.subscribe(device.topic(each), other.topic(each))
            await client.subscribe(device.topic("commands/factory_reset"))
            await testbed.unbind(other)
            await testbed.reset(device)
            while "reset.requested" not in (await witness.read_publish()).topic:
                pass
            while (heard := await client.read_publish()).topic != device.topic("commands/factory_reset"):
                raise AssertionError(f"{heard.topic} reached a device")
            await client.ping()
            assert not client.inbox
