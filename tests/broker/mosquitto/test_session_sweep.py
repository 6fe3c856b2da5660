"""Sweep after a start of Mosquitto 2.0: restored sessions end a piece at a time, and revocations go first."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker_config import local
from gateway.broker.mosquitto.access import MosquittoAccess
from gateway.broker.mosquitto.password_entries import kept_entries, own_entry
from gateway.broker.mosquitto.password_file import PasswordFile
from gateway.broker.mosquitto.session_locks import NAME as LOCKS
from gateway.broker.mosquitto.session_locks import SessionLocks, derived_password
from gateway.broker.mosquitto.session_sweep import AT_ONCE
from gateway.core.addresses import Address
from gateway.errors import UnavailableError
from gateway.mqtt.probe import ProbeTarget
from gateway.store import Store
from gateway.store.outbox_sql import OutboxRow
from tests.broker.support import REFUSED, answer
from tests.mqtt.brokers import MosquittoUnderTest
from tests.mqtt.devices import Device
from tests.mqtt.support import MqttTestbed, open_testbed
from tests.support import wire
from tests.support.mosquitto import GATEWAY_PASSWORD, Mosquitto
from tests.support.wait import eventually

pytestmark = pytest.mark.skipif(
    (local.version(local.binary()) or (0, 0)) >= local.NEEDS_NO_LOCKS, reason="this Mosquitto needs no locks"
)

KIND = "mosquitto-5"
DEVICES = 4 * AT_ONCE
MANY = 1_000


class GatedLocks(SessionLocks):
    """Locks that stop in each piece of a sweep until the test lets it go on."""

    def __init__(self, target: ProbeTarget, password: str) -> None:
        super().__init__(target, password)
        self.order: list[str] = []
        """What was done, in order: ``piece`` or ``revocation``."""
        self.swept: list[Collection[str]] = []
        self.most_locked = 0
        self.at_piece = asyncio.Queue[asyncio.Event]()
        """Each piece puts an event here, and goes on when it is set."""
        self.failing = 0
        """How many further pieces fail."""

    async def sweep(self, usernames: Collection[str]) -> None:
        """Wait in the piece."""
        self.order.append("piece")
        go = asyncio.Event()
        self.at_piece.put_nowait(go)
        await go.wait()
        if self.failing:
            self.failing -= 1
            raise UnavailableError("not this one")
        await super().sweep(usernames)
        self.swept.append(usernames)

    async def end(self, usernames: Collection[str]) -> Collection[str]:
        """Note it."""
        if usernames:
            self.order.append("revocation")
        return await super().end(usernames)

    async def _take_over(self, names: Sequence[str], once: str) -> None:
        self.most_locked = max(self.most_locked, len(self._held | self._passing))
        await super()._take_over(names, once)

    async def let_all_go(self) -> None:
        """Let each piece go on, until cancelled."""
        while True:
            (await self.at_piece.get()).set()


class NotedAccess(MosquittoAccess):
    """Says that devices are about to be brought in step."""

    locks: GatedLocks

    def __init__(self, file: PasswordFile, store: Store, target: ProbeTarget, locks: GatedLocks) -> None:
        super().__init__(file, store, target, locks=locks, secret=GATEWAY_PASSWORD)
        self.locks = locks
        self.asked = asyncio.Event()

    async def sync(self, devices: Sequence[OutboxRow]) -> Sequence[OutboxRow]:
        """Note that it is asked. It reaches the lock before anything else runs."""
        self.asked.set()
        return await super().sync(devices)


def mosquitto_of(testbed: MqttTestbed) -> Mosquitto:
    """The broker."""
    assert isinstance(testbed.broker, MosquittoUnderTest)
    return testbed.broker.mosquitto


def access_of(testbed: MqttTestbed) -> NotedAccess:
    """What keeps the password file."""
    assert isinstance(testbed.access_syncer.access, NotedAccess)
    return testbed.access_syncer.access


def reloads(testbed: MqttTestbed) -> int:
    """How often the broker has read its files again."""
    return mosquitto_of(testbed).log_text().count("Reloading config")


@asynccontextmanager
async def with_locks(directory: Path) -> AsyncIterator[MqttTestbed]:
    """A gateway beside a Mosquitto whose store it cannot read, and which has the plugin."""

    def made(store: Store) -> NotedAccess:
        mosquitto, locking = mosquitto_of(testbed), derived_password(GATEWAY_PASSWORD)
        kept, target = kept_entries(mosquitto.password_file), ProbeTarget(Address(mosquitto.host, mosquitto.port))
        own = {"gateway": own_entry(GATEWAY_PASSWORD, kept.get("gateway")), LOCKS: own_entry(locking, kept.get(LOCKS))}
        file = PasswordFile(mosquitto.password_file, pid_file=mosquitto.pid_file, fixed=own)
        return NotedAccess(file, store, target, GatedLocks(target, locking))

    async with open_testbed(KIND, directory) as testbed:
        testbed.broker.access = made  # type: ignore[method-assign]
        yield testbed


async def away(testbed: MqttTestbed, device: Device) -> None:
    """Leave a session at the broker that expires in an hour."""
    login = ("-i", device.id, "-u", device.id, "-P", device.mqtt_password, "-c", "-W", "1")
    session = ("-V", "mqttv5", "-x", "3600", "-q", "1", "-t", device.topic("commands/reboot"))
    command = ("mosquitto_sub", "-p", str(mosquitto_of(testbed).port), *login, *session)
    await (await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)).wait()


async def fleet(testbed: MqttTestbed) -> list[Device]:
    """Bind some devices; one of them is away with a session when the broker is started again, as the gateway is."""
    await testbed.start()
    bound = [await testbed.bound(f"SN-{number}") for number in range(5)]
    await testbed.store.write(
        lambda tx: tx.run(
            """WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
            INSERT INTO devices (id, project_id, serial_number, model, binding_generation, created_at, updated_at)
            SELECT 'dev_0AWAY' || i, project_id, 'AWAY-' || i, model, 1, created_at, updated_at
            FROM n, (SELECT * FROM devices ORDER BY pk LIMIT 1)""",
            DEVICES,
        )
    )
    await testbed.store.write(
        lambda tx: tx.run(
            """INSERT INTO tokens (device_pk, generation, hash, mqtt_hash, broker_entry, state, grant_kid, created_at)
            SELECT d.pk, 1, randomblob(32), randomblob(32), t.broker_entry, 'revoked', t.grant_kid, t.created_at
            FROM devices d, (SELECT * FROM tokens ORDER BY id LIMIT 1) t WHERE d.id LIKE 'dev_0AWAY%'"""
        )
    )
    await testbed.settled()
    await away(testbed, bound[0])
    await testbed.stop()
    await mosquitto_of(testbed).restart()
    await testbed.start()
    await eventually(access_of(testbed).to_check.is_set, "access was compared")
    return bound


async def test_a_revocation_goes_first(tmp_path: Path) -> None:
    """It locks the device out and ends its session after the piece under way. The broker gets no signal before the end.

    What is bound meanwhile is let in afterwards.
    """
    async with with_locks(tmp_path) as testbed:
        _, revoked, again, other, *_ = await fleet(testbed)
        access, signals = access_of(testbed), reloads(testbed)
        locks = access.locks
        async with testbed.join(revoked) as client, testbed.join(other) as stays:
            sweep = asyncio.create_task(access.prepare())
            first = await locks.at_piece.get()
            access.asked.clear()
            await testbed.unbind(revoked)
            await access.asked.wait()
            first.set()
            await client.closed()
            second = await locks.at_piece.get()
            assert locks.order[:3] == ["piece", "revocation", "piece"]
            assert await answer(testbed, revoked) in REFUSED
            assert (sweep.done(), reloads(testbed)) == (False, signals)
            await testbed.unbind(again)
            bound = await testbed.bound_again(again)
            await stays.ping()
            letting = asyncio.create_task(locks.let_all_go())
            second.set()
            await sweep
            letting.cancel()
        await testbed.settled()
        assert reloads(testbed) > signals
        assert await answer(testbed, revoked) in REFUSED
        assert await answer(testbed, again) in REFUSED
        assert await answer(testbed, bound) == wire.ACCEPTED
        assert await answer(testbed, other) == wire.ACCEPTED


async def test_what_a_sweep_holds_is_bounded(tmp_path: Path) -> None:
    """It ends the sessions of all devices that ever had a token, in pieces: also of those that are in no file any more.

    That is noted, so the next start of the gateway sweeps nothing.
    """
    async with with_locks(tmp_path) as testbed:
        bound = await fleet(testbed)
        access = access_of(testbed)
        letting = asyncio.create_task(access.locks.let_all_go())
        await access.prepare()
        swept = [name for names in access.locks.swept for name in names]
        assert {device.id for device in bound} <= set(swept)
        assert len([name for name in swept if name.startswith("dev_0AWAY")]) == DEVICES
        assert len(swept) == len(set(swept))
        assert max(len(names) for names in access.locks.swept) <= AT_ONCE
        assert access.locks.most_locked <= AT_ONCE
        assert {LOCKS, "gateway", "gateway_sentinel"}.isdisjoint(swept)
        await testbed.stop()
        await testbed.start()
        await access_of(testbed).prepare()
        assert access_of(testbed).locks.order == []
        letting.cancel()


async def test_a_piece_that_fails_is_tried_again(tmp_path: Path) -> None:
    """A broker may be busy for a moment."""
    async with with_locks(tmp_path) as testbed:
        bound = await fleet(testbed)
        locks = access_of(testbed).locks
        letting, locks.failing = asyncio.create_task(locks.let_all_go()), 1
        await access_of(testbed).prepare()
        assert len({name for names in locks.swept for name in names}) >= DEVICES + len(bound)
        letting.cancel()


async def test_a_sweep_that_fails_holds_no_signal_back(tmp_path: Path) -> None:
    """A revocation must not wait for ever. The next sweep goes on where this one failed."""
    async with with_locks(tmp_path) as testbed:
        bound = await fleet(testbed)
        signals, locks = reloads(testbed), access_of(testbed).locks
        letting = asyncio.create_task(locks.let_all_go())
        locks.failing = MANY
        await access_of(testbed).prepare()
        await testbed.unbind(bound[1])
        await testbed.settled()
        assert reloads(testbed) > signals
        assert await answer(testbed, bound[1]) in REFUSED
        assert locks.swept == []
        locks.failing = 0
        await access_of(testbed).prepare()
        assert len({name for names in locks.swept for name in names}) >= DEVICES + len(bound)
        letting.cancel()
