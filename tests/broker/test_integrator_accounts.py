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
from tests.mqtt.brokers import Embedded, External
from tests.mqtt.support import Site, beat, on_every_broker, site
from tests.support import wire
from tests.support.wait import eventually

NAME = "integrator"
REFUSED = {wire.NOT_AUTHORISED, wire.BAD_CREDENTIALS}


def states(place: Site, mark: ScanMarker) -> BackgroundPublisher:
    """States, at a pace for tests."""
    return RetainedMirror(place.store, StateTopic(place.topics), mark, tick_seconds=0.05)


def events(place: Site, _: ScanMarker) -> BackgroundPublisher:
    """Events."""
    return EventPublisher(place.store, place.topics, place.wakeups)


class Accounts:
    """The command line beside the gateway, and the gateway that looks for what it did."""

    def __init__(self, place: Site) -> None:
        self.place = place
        self._watcher = ChangePoller(place.store, place.wakeups)

    async def make(self) -> str:
        """Make the account; its password."""
        await self._watcher.look()
        password = await self.place.store.write(lambda tx: account_sql.create(tx, NAME))
        await self._watcher.look()
        return password

    async def rotate(self) -> str:
        """Another password."""
        password = await self.place.store.write(lambda tx: account_sql.rotate(tx, NAME))
        await self._watcher.look()
        return password

    async def revoke(self) -> None:
        """Refuse it."""
        await self.place.store.write(lambda tx: account_sql.revoke(tx, NAME))
        await self._watcher.look()

    async def answer(self, password: str) -> int:
        """What the broker says to it."""
        async with wire.Wire.open("127.0.0.1", self.place.broker.port) as client:
            return await client.connect(NAME, NAME, password)

    async def refuses(self, password: str) -> bool:
        """Whether the broker does."""
        return await self.answer(password) in REFUSED


async def let_in(place: Site, stack: AsyncExitStack, password: str) -> wire.Wire:
    """Connect, as soon as the broker knows the password."""

    async def knock() -> wire.Wire | None:
        client = await stack.enter_async_context(wire.Wire.open("127.0.0.1", place.broker.port))
        return client if await client.connect(NAME, NAME, password) == wire.ACCEPTED else None

    client = await eventually(knock, "the integrator was let in")
    assert client
    return client


@on_every_broker
async def test_an_integrator_reads_the_fleet_and_nothing_else(kind: str, tmp_path: Path) -> None:
    """State, events, the gateway's own status; no command with its grant, no heartbeat, whatever it subscribes to."""
    async with site(kind, tmp_path, rules={"mirrored": ("state",)}) as place, AsyncExitStack() as stack:
        place.outlets = [partial(states, place), partial(events, place)]
        await place.start()
        client = await let_in(place, stack, await Accounts(place).make())
        for each in ("devices/+/state", "devices/+/events/#", "gateways/#", "#", "devices/+/commands/+"):
            await client.subscribe(each)
        device = await place.bound()
        await place.command(device)
        async with place.join(device) as other:
            await other.publish(device.topic("heartbeat"), beat(42))
            heard: dict[str, bytes] = {}
            wanted = {device.topic(leaf) for leaf in ("events/device.bound", "events/command.created")}
            while not wanted <= set(heard) or not _shows(heard.get(device.topic("state"), b"{}"), 42):
                message = await client.read_publish()
                await client.acknowledge(message)
                heard[message.topic] = message.payload
        told = {topic.removeprefix(device.topic("")) for topic in heard if topic.startswith(device.topic(""))}
        assert {each.partition("/")[0] for each in told} == {"state", "events"}
        assert place.status_topic in heard


@on_every_broker
async def test_an_integrator_writes_nothing(kind: str, tmp_path: Path) -> None:
    """Neither a command nor a state, an event, a heartbeat, a status; retained or not, and not as its last will."""
    async with site(kind, tmp_path) as place, AsyncExitStack() as stack, place.admin() as witness:
        await place.start()
        device = await place.bound()
        client = await let_in(place, stack, await Accounts(place).make())
        await witness.subscribe("devices/#", "gateways/#", "marks/#")
        for leaf in ("commands/reboot", "state", "events/device.bound", "heartbeat", "status", "commands/reboot/ack"):
            for retain in (False, True):
                await client.send(wire.publish_packet(device.topic(leaf), b"mine", qos=0, retain=retain))
        await client.send(wire.publish_packet(place.status_topic, b"mine", qos=0, retain=True))
        await client.ping()
        async with place.admin("other") as other:
            await other.publish("marks/end", b"")
        assert [one for one in await witness.read_until("marks/end") if one.payload == b"mine"] == []
        assert await place.rows("SELECT * FROM refusals") == []


@on_every_broker
async def test_a_password_that_is_no_longer_good_is_cut(kind: str, tmp_path: Path) -> None:
    """Rotated: cut, the old one refused, the new one good. Revoked: cut and refused. Devices do not notice."""
    async with site(kind, tmp_path) as place, AsyncExitStack() as stack:
        await place.start()
        device = await place.bound()
        accounts_there = Accounts(place)
        async with place.join(device) as witness:
            old = await accounts_there.make()
            client = await let_in(place, stack, old)
            new = await accounts_there.rotate()
            await client.closed()
            assert await accounts_there.refuses(old)
            client = await let_in(place, stack, new)
            await accounts_there.revoke()
            await client.closed()
            assert await accounts_there.refuses(new)
            await witness.ping()
        assert place.proxy.connects == 1
        if isinstance(place.broker, External):
            assert f"{NAME}:" not in place.broker.mosquitto.password_file.read_text()


async def test_what_a_revoked_account_left_behind_is_dropped(tmp_path: Path) -> None:
    """Sessions of clients that are away, which hold subscriptions and messages, go with the account."""
    async with site("embedded", tmp_path) as place, AsyncExitStack() as stack:
        await place.start()
        assert isinstance(place.broker, Embedded)
        accounts_there, broker = Accounts(place), place.broker.broker
        password = await accounts_there.make()
        await let_in(place, stack, password)
        for name in ("one", "two"):
            async with wire.Wire.open("127.0.0.1", place.broker.port) as client:
                assert await client.connect(name, NAME, password, clean=False) == wire.ACCEPTED
                await client.disconnect()
        assert set(broker.kept_sessions()) >= {NAME, f"{NAME}/one", f"{NAME}/two"}
        await accounts_there.revoke()
        await eventually(lambda: not [key for key in broker.kept_sessions() if key.startswith(NAME)], "all are gone")


@on_every_broker
async def test_an_account_made_while_no_gateway_ran_is_good(kind: str, tmp_path: Path) -> None:
    """It is in the registry, and the broker learns of it at the start."""
    async with site(kind, tmp_path) as place, AsyncExitStack() as stack:
        password = await Accounts(place).make()
        await place.start()
        await let_in(place, stack, password)


async def test_only_hashes_are_kept(tmp_path: Path) -> None:
    """Neither the registry nor Mosquitto's password file holds the password."""
    async with site("mosquitto-5", tmp_path) as place:
        await place.start()
        password = await Accounts(place).make()
        await eventually(lambda: f"{NAME}:$6$" in _password_file(place), "the broker's file has the account")
        assert password not in _password_file(place)
        kept = [value for row in await place.rows("SELECT * FROM broker_accounts") for value in row]
        assert all(password not in str(value) for value in kept)


def _shows(state: bytes, battery: int) -> bool:
    return bool(json.loads(state).get("battery_percent") == battery)


def _password_file(place: Site) -> str:
    assert isinstance(place.broker, External)
    return place.broker.mosquitto.password_file.read_text()


@on_every_broker
async def test_a_device_never_reads_what_integrators_do(kind: str, tmp_path: Path) -> None:
    """Neither about itself nor about another, whether its token is active or good for its reset alone."""
    async with site(kind, tmp_path, rules={"mirrored": ("state",)}) as place:
        place.outlets = [partial(states, place), partial(events, place)]
        await place.start()
        device, other = await place.bound(), await place.bound("SN-2")
        async with place.join(device) as client, place.admin() as witness:
            await witness.subscribe(other.topic("state"), device.topic("events/#"))
            for each in ("state", "events/#", "events/+"):
                await client.subscribe(device.topic(each), other.topic(each))
            await client.subscribe(device.topic("commands/factory_reset"))
            await place.unbind(other)
            await place.reset(device)
            while "reset.requested" not in (await witness.read_publish()).topic:
                pass
            while (heard := await client.read_publish()).topic != device.topic("commands/factory_reset"):
                raise AssertionError(f"{heard.topic} reached a device")
            await client.ping()
            assert not client.inbox
