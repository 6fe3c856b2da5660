"""Who may do what on a broker, tried on the wire: each role, each action, judged by what arrives and nothing else.

For roles that are no device, "its own" topics are those of some device. A SUBACK or a PUBACK says nothing here: brokers
grant what they then do not deliver, and acknowledge what they drop; some close the connection instead.
"""

import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.store import account_sql
from tests.mqtt.brokers import ADMIN_PASSWORD, EmbeddedUnderTest, MosquittoUnderTest, RabbitMqUnderTest
from tests.mqtt.devices import Device
from tests.mqtt.support import MqttTestbed
from tests.support import wire
from tests.support.auth_endpoint import PROBES
from tests.support.wait import eventually

NOBODY, WRONG = "nobody", "wrong password"
ACTIVE, RESET_ONLY, REVOKED = "active device", "reset_only device", "revoked device"
INTEGRATOR, DOCTOR, GATEWAY = "integrator", "doctor", "gateway"
ROLES = (NOBODY, WRONG, ACTIVE, RESET_ONLY, REVOKED, INTEGRATOR, DOCTOR, GATEWAY)
DEVICES = frozenset({ACTIVE, RESET_ONLY})
LOST = (wire.ConnectionClosedError, ConnectionError)
END = "gateways/end/status"


@dataclass(frozen=True)
class Account:
    """A role with its credentials; `own` is the device whose topics are its own, `other` another one."""

    role: str
    username: str | None
    password: str | None
    own: str
    other: str

    @property
    def ending(self) -> str:
        """A topic that it may read, so that it knows when all before has come."""
        return f"devices/{self.own}/errors" if self.role in DEVICES else END

    def topic(self, pattern: str) -> str:
        """`own` and `other` filled in."""
        return pattern.format(own=self.own, other=self.other)


class AccessBench:
    """A broker with everybody bound who has to be, and with two administrators at it: one listens, one speaks."""

    def __init__(
        self, testbed: MqttTestbed, listener: wire.Wire, sender: wire.Wire, victim: tuple[Device, wire.Wire]
    ) -> None:
        self.testbed = testbed
        self.listener = listener
        self.sender = sender
        self.other, self.victim = victim
        self._numbers = itertools.count()

    def payload(self) -> bytes:
        """One that has not been sent before."""
        return b"attempt %d" % next(self._numbers)

    @asynccontextmanager
    async def connected_as(self, account: Account, will: wire.Will | None = None) -> AsyncIterator[wire.Wire | None]:
        """A connection as this role; `None` when the broker refuses it. It ends without a DISCONNECT."""
        async with wire.Wire.open("127.0.0.1", self.testbed.broker.port) as client:
            answer = await client.connect(account.username or "stranger", account.username, account.password, will=will)
            yield client if answer == wire.ACCEPTED else None

    async def received(self) -> dict[bytes, bool]:
        """Payloads that have reached the listener by now, and whether each was marked as retained."""
        await self.sender.publish("marks/end", b"")
        return {message.payload: message.retain for message in await self.listener.read_until("marks/end")}

    async def take_retained(self, topic: str) -> bytes | None:
        """What is retained on a topic; it is taken away."""
        async with self.testbed.admin("third") as reader:
            await reader.subscribe("marks/kept", topic)
            await self.sender.publish("marks/kept", b"")
            found = await reader.read_until("marks/kept")
        await self.sender.publish(topic, b"", retain=True)
        return found[0].payload if found else None

    async def wait_disconnected(self, account: Account) -> None:
        """Wait until the broker is done with the connection of this role, its will included."""
        if isinstance(self.testbed.broker, RabbitMqUnderTest) and account.username:
            node, username = self.testbed.broker.node, account.username
            await eventually(lambda: not node.connections(username), f"{username} is gone")
        async with wire.Wire.open("127.0.0.1", self.testbed.broker.port) as reference:
            will = wire.Will("marks/will", b"")
            assert await reference.connect("third", "third", ADMIN_PASSWORD, will=will) == wire.ACCEPTED


Attempt = Callable[[AccessBench, Account], Awaitable[bool]]


@dataclass(frozen=True)
class Row:
    """An action, who may do it by the contract, and where a broker gives more, or less; the note says why."""

    action: str
    attempt: Attempt
    granted: frozenset[str]
    more: Mapping[str, frozenset[str]] = field(default_factory=dict)
    less: Mapping[str, frozenset[str]] = field(default_factory=dict)
    note: str = ""

    def expected(self, broker: str) -> set[str]:
        """Who may do it there."""
        return set((self.granted | self.more.get(broker, frozenset())) - self.less.get(broker, frozenset()))


async def connects(bench: AccessBench, account: Account) -> bool:
    """The CONNECT is accepted."""
    async with bench.connected_as(account) as client:
        return client is not None


async def _delivered(bench: AccessBench, client: wire.Wire, topic: str, payload: bytes, *, retain: bool) -> None:
    """Say it, and wait until the broker has dealt with it: at the embedded one a PUBACK waits for the listener."""
    say = client.say if isinstance(bench.testbed.broker, EmbeddedUnderTest) else client.publish
    await say(topic, payload, retain=retain)


def publishes(pattern: str, *, retain: bool = False) -> Attempt:
    """A message reaches the listener."""

    async def attempt(bench: AccessBench, account: Account) -> bool:
        topic, payload = account.topic(pattern), bench.payload()
        async with bench.connected_as(account) as client:
            if client is None:
                return False
            with contextlib.suppress(*LOST):
                await _delivered(bench, client, topic, payload, retain=retain)
        reached = payload in await bench.received()
        if retain and reached:
            await bench.sender.publish(topic, b"", retain=True)
        return reached

    return attempt


def leaves(pattern: str) -> Attempt:
    """A message that was sent retained is still there for who comes later."""

    async def attempt(bench: AccessBench, account: Account) -> bool:
        topic, payload = account.topic(pattern), bench.payload()
        async with bench.connected_as(account) as client:
            if client is None:
                return False
            with contextlib.suppress(*LOST):
                await _delivered(bench, client, topic, payload, retain=True)
        return await bench.take_retained(topic) == payload

    return attempt


def clears(pattern: str) -> Attempt:
    """A message that the gateway retained is gone after an empty one."""

    async def attempt(bench: AccessBench, account: Account) -> bool:
        topic, payload = account.topic(pattern), bench.payload()
        await bench.sender.publish(topic, payload, retain=True)
        async with bench.connected_as(account) as client:
            if client is not None:
                with contextlib.suppress(*LOST):
                    await _delivered(bench, client, topic, b"", retain=True)
        return await bench.take_retained(topic) != payload

    return attempt


def leaves_will(pattern: str) -> Attempt:
    """A last will reaches the listener when the connection breaks."""

    async def attempt(bench: AccessBench, account: Account) -> bool:
        payload = bench.payload()
        async with bench.connected_as(account, wire.Will(account.topic(pattern), payload)):
            pass
        await bench.wait_disconnected(account)
        told = {message.payload for message in await bench.listener.read_until("marks/will")}
        return payload in told

    return attempt


def reads(topic_filter: str, pattern: str, *, retained: bool = False) -> Attempt:
    """A message reaches who subscribed to a filter: a new one, or (`retained`) one that lay there before."""

    async def attempt(bench: AccessBench, account: Account) -> bool:
        topic, payload = account.topic(pattern), bench.payload()
        if retained:
            await bench.sender.publish(topic, payload, retain=True)
        try:
            async with bench.connected_as(account) as client:
                if client is None:
                    return False
                await client.subscribe(account.ending)
                await client.subscribe(account.topic(topic_filter))
                if not retained and not topic.startswith("$"):
                    await bench.sender.publish(topic, payload)
                arrived = await _arrived(bench, client, account)
        except LOST:
            return False
        finally:
            if retained:
                await bench.sender.publish(topic, b"", retain=True)
        return any(each.payload == payload or each.topic.startswith("$") for each in arrived)

    return attempt


async def _arrived(bench: AccessBench, client: wire.Wire, account: Account) -> list[wire.Message]:
    """All that was on its way to this client."""
    last, arrived = bench.payload(), []
    await bench.sender.publish(account.ending, last)
    while (message := await client.read_publish()).payload != last:
        arrived.append(message)
        await client.acknowledge(message)
    return arrived


async def takes_over_session(bench: AccessBench, account: Account) -> bool:
    """Coming under another device's client id ends that one's session, or makes one's own of it."""
    async with wire.Wire.open("127.0.0.1", bench.testbed.broker.port) as thief:
        await thief.connect(bench.other.id, account.username, account.password, clean=False)
        topic, payload = bench.other.topic("commands/reboot"), bench.payload()
        await bench.sender.publish(topic, payload)
        try:
            message = await bench.victim.read_publish()
            await bench.victim.acknowledge(message)
        except LOST:
            return True
        return message.payload != payload or thief.session_present


@asynccontextmanager
async def prepare(testbed: MqttTestbed) -> AsyncIterator[tuple[AccessBench, list[Account]]]:
    """Create every role until the broker knows it, then stop the gateway: only the test's clients send now."""
    await testbed.start()
    password = await testbed.store.write(lambda tx: account_sql.create(tx, INTEGRATOR))
    testbed.wakeups.access.set()
    active, waiting, revoked, other = [await testbed.bound(f"SN-{name}") for name in ("A", "W", "R", "O")]
    await testbed.reset(waiting)
    await testbed.unbind(revoked)
    await testbed.settled()
    known = {ACTIVE: active, RESET_ONLY: waiting, REVOKED: revoked}
    accounts = [
        Account(NOBODY, None, None, active.id, other.id),
        Account(WRONG, active.id, f"{active.mqtt_password}x", active.id, other.id),
        *(Account(role, device.id, device.mqtt_password, device.id, other.id) for role, device in known.items()),
        Account(INTEGRATOR, INTEGRATOR, password, active.id, other.id),
        Account(DOCTOR, "doctor", PROBES.reader, active.id, other.id),
        Account(GATEWAY, "gateway", testbed.broker.gateway_password, active.id, other.id),
    ]
    async with testbed.join(other) as victim, testbed.admin() as listener, testbed.admin("other") as sender:
        await victim.subscribe(other.topic("commands/reboot"))
        await testbed.stop()
        await listener.subscribe("#")
        if isinstance(testbed.broker, MosquittoUnderTest):
            await listener.subscribe("$SYS/attempt", "$CONTROL/#")  # granted, whatever comes by them
        bench = AccessBench(testbed, listener, sender, (other, victim))
        await bench.received()
        yield bench, accounts
