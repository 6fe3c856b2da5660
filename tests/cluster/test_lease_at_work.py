"""A lease at work: who works, what ends the work, and what a gateway does that was paused or away."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.cluster.lease import Lease, Term
from gateway.cluster.registration import Registration, ReplacedError
from gateway.core.clock import system_clock
from gateway.errors import AlreadyRunningError
from gateway.store import Store, Tx, lease_sql, open_database
from gateway.store.lease_sql import FLEET, Fence, GatewayRecord, Holder, LeaseLostError
from gateway.store.location import Location
from tests.cluster.support import ONE, OTHER, Worker, age, lease_in, note, noted, place, two_stores
from tests.support.wait import eventually

SHORT = 0.3
"""Seconds. Such a lease is renewed often; whether it has ended, the test's own clock says."""
LONG = 3_600.0


class Uptime:
    """The monotonic clock of a gateway, moved by the test."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        """The seconds."""
        return self.seconds


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """A registry on each engine."""
    return place(request.param, tmp_path)


async def test_a_clean_stop_hands_over(where: Location) -> None:
    """The other takes the lease while its time is far from over, when the work of the first has ended."""
    async with two_stores(where) as (one, other):
        first = Worker(one, ONE, Term(LONG))
        await first.begun()
        second = Worker(other, OTHER, Term(LONG))
        assert not second.lease.is_held
        await first.stop()
        await second.begun()
        assert (first.works, second.lease.epoch) == (False, 2)
        await second.stop()


@contextmanager
def held_up(monkeypatch: pytest.MonkeyPatch, what: str) -> Iterator[asyncio.Event]:
    """Hold up the write that calls this function of ``lease_sql`` in the block; the event says that it has begun."""
    real, may_go_on = getattr(lease_sql, what), threading.Event()
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    def slow(*values: Any) -> Any:
        loop.call_soon_threadsafe(begun.set)
        assert may_go_on.wait(60)
        return real(*values)

    with monkeypatch.context() as patched:
        patched.setattr(lease_sql, what, slow)
        try:
            yield begun
        finally:
            may_go_on.set()


async def test_a_stop_while_a_lease_is_taken_hands_it_over(where: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write that takes it is committed, although the task that waits for it was cancelled."""
    async with two_stores(where) as (one, other):
        registration = _registration(one, ONE.instance)
        await registration.begin(is_alone=False)
        with held_up(monkeypatch, "acquire") as begun:
            first = Worker(one, ONE, Term(LONG))
            await begun.wait()
            await first.stop()
        await registration.end()
        assert (await lease_in(one)).until == 0
        second = Worker(other, OTHER, Term(LONG))
        await second.begun()
        assert (first.stores, second.lease.epoch) == ([], 2)
        await second.stop()


async def test_a_stop_while_a_gateway_registers_leaves_no_registration(
    where: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next process of this gateway need not wait until the last one counts as dead."""
    async with two_stores(where) as (one, other):
        registration = _registration(one, "one")
        with held_up(monkeypatch, "register") as begun:
            begins = asyncio.create_task(registration.begin(is_alone=False))
            await begun.wait()
            begins.cancel()
            await asyncio.wait((begins,))
        await registration.end()
        assert await other.read(lease_sql.gateways) == []


async def test_a_lease_that_was_taken_slowly_is_renewed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that takes most of a lease to answer lets its holder keep it: the next renewal does not wait."""
    uptime, real, renewed = Uptime(), lease_sql.acquire, asyncio.Event()

    def acquire(tx: Tx, name: str, holder: Holder, lease_ms: int) -> Fence | None:
        uptime.seconds += 0.8 * LONG
        return real(tx, name, holder, lease_ms)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(lease_sql, "acquire", acquire)
    monkeypatch.setattr(lease_sql, "renew", lambda *_: bool(loop.call_soon_threadsafe(renewed.set)))
    async with two_stores(tmp_path) as (one, _):
        first = Worker(one, ONE, Term(LONG, uptime))
        await first.begun()
        await eventually(renewed.is_set, "the lease is renewed")
        await first.stop()


async def test_a_lease_is_renewed(where: Location) -> None:
    """It goes on for as long as its holder works; the other never gets it."""
    async with two_stores(where) as (one, other):
        first = Worker(one, ONE, Term(SHORT, Uptime()))
        await first.begun()
        before = await lease_in(one)
        second = Worker(other, OTHER, Term(SHORT))

        async def renewed() -> bool:
            return (await lease_in(one)).until > before.until + 1000 * SHORT

        await eventually(renewed, "the lease is renewed")
        assert (await lease_in(one)).epoch == before.epoch
        assert not second.stores
        await second.stop()
        await first.stop()


async def test_who_cannot_renew_gives_up_in_time(where: Location) -> None:
    """The work ends by the gateway's own clock, while the database still counts the lease as held."""
    uptime = Uptime()
    async with two_stores(where) as (one, other):
        first = Worker(one, ONE, Term(LONG, uptime))
        await first.begun()
        uptime.seconds += LONG * 4 / 5
        held = [first.lease.is_held]
        uptime.seconds += LONG / 5
        held.append(first.lease.is_held)
        assert held == [True, False]
        assert not await other.read(lambda view: lease_sql.is_free(view, first.lease.name, OTHER, system_clock()))
        await first.stop()


async def test_who_is_away_from_the_registry_ends_its_work_and_comes_back(where: Location) -> None:
    """While nothing can be written no lease is renewed; afterwards it is taken again, under a new epoch."""
    uptime = Uptime()
    async with two_stores(where) as (one, _):
        first = Worker(one, ONE, Term(SHORT, uptime))
        await first.begun()
        with closing(open_database(where)) as holding:
            holding.begin()  # whoever writes waits now
            uptime.seconds += SHORT
            await first.ended()
            assert not first.lease.is_held
            holding.execute("ROLLBACK")
        await first.begun(2)
        assert first.lease.epoch == 2
        await first.stop()


async def test_a_paused_holder_changes_nothing_and_stands_by(where: Location) -> None:
    """Its time passes at the database, the other takes over; its first write after that ends its work at once."""
    async with two_stores(where) as (one, other):
        first = Worker(one, ONE, Term(LONG))
        await first.begun()
        second = Worker(other, OTHER, Term(LONG))
        await age(other, round(1000 * LONG))
        await second.begun()
        await note(second.stores[0], "of the second")
        assert first.works, "it has noticed nothing yet"
        with pytest.raises(LeaseLostError):
            await note(first.stores[0], "of the first")
        assert not first.lease.is_held
        await first.ended()
        await second.stop()
        await first.begun(2)
        assert first.lease.epoch == 3
        with pytest.raises(LeaseLostError):  # not even by the store of its work under the first epoch
            await note(first.stores[0], "of the first")
        assert await noted(one) == "of the second"
        await first.stop()


async def test_what_the_work_fails_by_is_raised(where: Location) -> None:
    """And the lease is free then; the loss of the lease alone is no failure."""

    async def fails(_: Store) -> None:
        raise LookupError("a bug")

    async with two_stores(where) as (one, other):
        with pytest.raises(LookupError):
            await Lease(one, FLEET, ONE, Term(LONG)).run(fails)
        assert await other.read(lambda view: lease_sql.is_free(view, FLEET, OTHER, 0))


# --- registration ---------------------------------------------------------------------------------------------------


def _gateway(holder: Holder) -> GatewayRecord:
    return GatewayRecord(*holder, "1.0.0", "host-1", "http://127.0.0.1:8080", "default", 0, 0)


def _registration(store: Store, instance: str, seconds: float = LONG) -> Registration:
    return Registration(store, _gateway(Holder("gw_1", instance)), Term(seconds))


async def test_an_id_is_used_once(where: Location) -> None:
    """A second gateway of the same id is refused; the message says which one runs, and what to change."""
    async with two_stores(where) as (one, other):
        first = _registration(one, "one", SHORT)
        await first.begin(is_alone=False)
        renewing = asyncio.create_task(first.run())
        with pytest.raises(AlreadyRunningError, match=r"'gw_1' runs.*host-1.*8080.*setting gateway_id"):
            await _registration(other, "other").begin(is_alone=False)
        renewing.cancel()
        await asyncio.wait((renewing,))
        await first.end()
        await _registration(other, "other").begin(is_alone=False)  # the first has stopped cleanly


async def test_a_gateway_that_died_is_waited_for(where: Location) -> None:
    """Its registration is replaced when its time is over; the dead process, if it was only paused, ends then."""
    async with two_stores(where) as (one, other):
        dead = _registration(one, "one", SHORT)
        await dead.begin(is_alone=False)
        begins = asyncio.create_task(_registration(other, "other").begin(is_alone=False))
        await age(one, round(1000 * LONG))
        await begins
        with pytest.raises(ReplacedError, match=r"started as gateway 'gw_1'.*its own gateway_id"):
            await dead.run()
        found = await other.read(lease_sql.gateways)
        assert [each.instance for each in found] == ["other"]


async def test_the_only_process_waits_for_nothing(tmp_path: Path) -> None:
    """On SQLite the data directory is locked: whatever the last process held is free."""
    async with two_stores(tmp_path) as (one, other):
        await _registration(one, "one").begin(is_alone=True)
        fence = await one.write(lambda tx: lease_sql.acquire(tx, FLEET, ONE, 60_000))
        await _registration(other, "other").begin(is_alone=True)
        assert fence is not None
        assert await other.read(lambda view: lease_sql.is_free(view, FLEET, OTHER, system_clock()))
