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
from tests.mqtt.brokers import ADMIN_PASSWORD, Asking, Embedded, External
from tests.mqtt.support import Device, Site
from tests.support import wire
from tests.support.asking import PROBES
from tests.support.wait import eventually

NOBODY, WRONG = "nobody", "wrong password"
ACTIVE, RESET_ONLY, REVOKED = "active device", "reset_only device", "revoked device"
INTEGRATOR, DOCTOR, GATEWAY = "integrator", "doctor", "gateway"
ROLES = (NOBODY, WRONG, ACTIVE, RESET_ONLY, REVOKED, INTEGRATOR, DOCTOR, GATEWAY)
DEVICES = frozenset({ACTIVE, RESET_ONLY})
LOST = (wire.ConnectionClosedError, ConnectionError)
END = "gateways/end/status"


@dataclass(frozen=True)
class Who:
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


class Place:
    """A broker with everybody bound who has to be, and with two administrators at it: one listens, one speaks."""

    def __init__(self, site: Site, listener: wire.Wire, speaker: wire.Wire, victim: tuple[Device, wire.Wire]) -> None:
        self.site = site
        self.listener = listener
        self.speaker = speaker
        self.other, self.victim = victim
        self._numbers = itertools.count()

    def payload(self) -> bytes:
        """One that has not been sent before."""
        return b"attempt %d" % next(self._numbers)

    @asynccontextmanager
    async def joined(self, who: Who, will: wire.Will | None = None) -> AsyncIterator[wire.Wire | None]:
        """A connection as this role; `None` when the broker refuses it. It ends without a DISCONNECT."""
        async with wire.Wire.open("127.0.0.1", self.site.broker.port) as client:
            answer = await client.connect(who.username or "stranger", who.username, who.password, will=will)
            yield client if answer == wire.ACCEPTED else None

    async def heard(self) -> dict[bytes, bool]:
        """Payloads that have reached the listener by now, and whether each was marked as retained."""
        await self.speaker.publish("marks/end", b"")
        return {message.payload: message.retain for message in await self.listener.read_until("marks/end")}

    async def kept(self, topic: str) -> bytes | None:
        """What is retained on a topic; it is taken away."""
        async with self.site.admin("third") as reader:
            await reader.subscribe("marks/kept", topic)
            await self.speaker.publish("marks/kept", b"")
            found = await reader.read_until("marks/kept")
        await self.speaker.publish(topic, b"", retain=True)
        return found[0].payload if found else None

    async def ended(self, who: Who) -> None:
        """Wait until the broker is done with the connection of this role, its will included."""
        if isinstance(self.site.broker, Asking) and who.username:
            node, username = self.site.broker.node, who.username
            await eventually(lambda: not node.connections(username), f"{username} is gone")
        async with wire.Wire.open("127.0.0.1", self.site.broker.port) as reference:
            will = wire.Will("marks/will", b"")
            assert await reference.connect("third", "third", ADMIN_PASSWORD, will=will) == wire.ACCEPTED


Attempt = Callable[[Place, Who], Awaitable[bool]]


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


async def connects(place: Place, who: Who) -> bool:
    """The CONNECT is accepted."""
    async with place.joined(who) as client:
        return client is not None


async def _said(place: Place, client: wire.Wire, topic: str, payload: bytes, *, retain: bool) -> None:
    """Say it, and wait until the broker has dealt with it: at the embedded one a PUBACK waits for the listener."""
    say = client.say if isinstance(place.site.broker, Embedded) else client.publish
    await say(topic, payload, retain=retain)


def publishes(pattern: str, *, retain: bool = False) -> Attempt:
    """A message reaches the listener."""

    async def attempt(place: Place, who: Who) -> bool:
        topic, payload = who.topic(pattern), place.payload()
        async with place.joined(who) as client:
            if client is None:
                return False
            with contextlib.suppress(*LOST):
                await _said(place, client, topic, payload, retain=retain)
        reached = payload in await place.heard()
        if retain and reached:
            await place.speaker.publish(topic, b"", retain=True)
        return reached

    return attempt


def leaves(pattern: str) -> Attempt:
    """A message that was sent retained is still there for who comes later."""

    async def attempt(place: Place, who: Who) -> bool:
        topic, payload = who.topic(pattern), place.payload()
        async with place.joined(who) as client:
            if client is None:
                return False
            with contextlib.suppress(*LOST):
                await _said(place, client, topic, payload, retain=True)
        return await place.kept(topic) == payload

    return attempt


def clears(pattern: str) -> Attempt:
    """A message that the gateway retained is gone after an empty one."""

    async def attempt(place: Place, who: Who) -> bool:
        topic, payload = who.topic(pattern), place.payload()
        await place.speaker.publish(topic, payload, retain=True)
        async with place.joined(who) as client:
            if client is not None:
                with contextlib.suppress(*LOST):
                    await _said(place, client, topic, b"", retain=True)
        return await place.kept(topic) != payload

    return attempt


def bequeaths(pattern: str) -> Attempt:
    """A last will reaches the listener when the connection breaks."""

    async def attempt(place: Place, who: Who) -> bool:
        payload = place.payload()
        async with place.joined(who, wire.Will(who.topic(pattern), payload)):
            pass
        await place.ended(who)
        told = {message.payload for message in await place.listener.read_until("marks/will")}
        return payload in told

    return attempt


def reads(topic_filter: str, pattern: str, *, retained: bool = False) -> Attempt:
    """A message reaches who subscribed to a filter: a new one, or (`retained`) one that lay there before."""

    async def attempt(place: Place, who: Who) -> bool:
        topic, payload = who.topic(pattern), place.payload()
        if retained:
            await place.speaker.publish(topic, payload, retain=True)
        try:
            async with place.joined(who) as client:
                if client is None:
                    return False
                await client.subscribe(who.ending)
                await client.subscribe(who.topic(topic_filter))
                if not retained and not topic.startswith("$"):
                    await place.speaker.publish(topic, payload)
                arrived = await _arrived(place, client, who)
        except LOST:
            return False
        finally:
            if retained:
                await place.speaker.publish(topic, b"", retain=True)
        return any(each.payload == payload or each.topic.startswith("$") for each in arrived)

    return attempt


async def _arrived(place: Place, client: wire.Wire, who: Who) -> list[wire.Message]:
    """All that was on its way to this client."""
    last, arrived = place.payload(), []
    await place.speaker.publish(who.ending, last)
    while (message := await client.read_publish()).payload != last:
        arrived.append(message)
        await client.acknowledge(message)
    return arrived


async def disturbs(place: Place, who: Who) -> bool:
    """Coming under another device's client id ends that one's session, or makes one's own of it."""
    async with wire.Wire.open("127.0.0.1", place.site.broker.port) as thief:
        await thief.connect(place.other.id, who.username, who.password, clean=False)
        topic, payload = place.other.topic("commands/reboot"), place.payload()
        await place.speaker.publish(topic, payload)
        try:
            message = await place.victim.read_publish()
            await place.victim.acknowledge(message)
        except LOST:
            return True
        return message.payload != payload or thief.session_present


@asynccontextmanager
async def prepared(site: Site) -> AsyncIterator[tuple[Place, list[Who]]]:
    """Create every role until the broker knows it, then stop the gateway: only the test's clients send now."""
    await site.start()
    password = await site.store.write(lambda tx: account_sql.create(tx, INTEGRATOR))
    site.wakeups.access.set()
    active, waiting, revoked, other = [await site.bound(f"SN-{name}") for name in ("A", "W", "R", "O")]
    await site.reset(waiting)
    await site.unbind(revoked)
    await site.settled()
    known = {ACTIVE: active, RESET_ONLY: waiting, REVOKED: revoked}
    people = [
        Who(NOBODY, None, None, active.id, other.id),
        Who(WRONG, active.id, f"{active.mqtt_password}x", active.id, other.id),
        *(Who(role, device.id, device.mqtt_password, device.id, other.id) for role, device in known.items()),
        Who(INTEGRATOR, INTEGRATOR, password, active.id, other.id),
        Who(DOCTOR, "doctor", PROBES.reader, active.id, other.id),
        Who(GATEWAY, "gateway", site.broker.gateway_password, active.id, other.id),
    ]
    async with site.join(other) as victim, site.admin() as listener, site.admin("other") as speaker:
        await victim.subscribe(other.topic("commands/reboot"))
        await site.stop()
        await listener.subscribe("#")
        if isinstance(site.broker, External):
            await listener.subscribe("$SYS/attempt", "$CONTROL/#")  # granted, whatever comes by them
        place = Place(site, listener, speaker, (other, victim))
        await place.heard()
        yield place, people
