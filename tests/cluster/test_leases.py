"""Leases in the registry: one holder at a time, an epoch that grows, and writes that a former holder cannot make."""

import asyncio
import dataclasses
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.core.clock import HOUR_MS, system_clock
from gateway.core.postgres_address import PostgresAddress
from gateway.store import Context, Store, Tx, dialect, lease_sql, writer
from gateway.store.lease_sql import Fence, Holder, LeaseLostError
from gateway.store.location import Location
from gateway.store.postgres.connection import PostgresConnection
from tests.cluster.support import LEASE_MS, NAME, ONE, OTHER, age, lease_in, note, noted, place, take, taken, two_stores
from tests.support.postgres import database, locked
from tests.support.wait import eventually

ROUNDS = 10
WAITS = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"""


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """A registry on each engine."""
    return place(request.param, tmp_path)


async def a_lease_has_one_holder(where: Location) -> None:
    """The second one gets it when its time is over, under a higher epoch; the first one cannot renew it then."""
    async with two_stores(where) as (one, other):
        first = await taken(one, ONE)
        assert await take(other, OTHER) is None
        await age(one, LEASE_MS - 1_000)
        assert await one.write(lambda tx: lease_sql.renew(tx, first, LEASE_MS))
        await age(one, LEASE_MS - 1_000)
        assert await take(other, OTHER) is None
        await age(one, 1_000)
        second = await taken(other, OTHER)
        assert second.epoch > first.epoch
        assert not await one.write(lambda tx: lease_sql.renew(tx, first, LEASE_MS))
        await one.write(lambda tx: lease_sql.release(tx, first))
        assert await take(one, ONE) is None


async def a_former_holder_changes_nothing(where: Location) -> None:
    """Its writes fail from the moment at which another has the lease, also when it has the lease again."""
    async with two_stores(where) as (one, other):
        lost: list[str] = []
        first = await taken(one, ONE)
        former = one.under(lambda: first, lambda: lost.append("first"))
        await note(former, "of the first")
        await age(one, LEASE_MS)
        second = await taken(other, OTHER)
        await note(other.under(lambda: second, lambda: None), "of the second")
        for write in (former.write, former.write_batch):
            with pytest.raises(LeaseLostError, match=r"broker:default.*epoch 1.*Nothing was changed"):
                await write(lambda _: pytest.fail("it must not be reached"))
        await other.write(lambda tx: lease_sql.release(tx, second))
        third = await taken(one, ONE)
        assert [first.epoch, second.epoch, third.epoch] == [1, 2, 3]
        with pytest.raises(LeaseLostError):
            await note(former, "of the first")
        assert await noted(other) == "of the second"
        assert lost == ["first"] * 3
        assert one.trouble is None


async def the_clock_of_a_gateway_moves_no_lease(where: Location) -> None:
    """A gateway whose clock is an hour ahead takes no lease that another holds, and holds its own no longer."""
    async with (
        Store(where, Context()) as one,
        Store(where, Context(clock=lambda: system_clock() + HOUR_MS)) as ahead,
    ):
        await taken(one, ONE)
        assert await take(ahead, OTHER) is None
        await age(one, LEASE_MS)
        await taken(ahead, OTHER)
        held = await lease_in(one)
        now = await one.read(lambda view: lease_sql.time_of(view, system_clock()))
        assert held.until - now <= LEASE_MS


async def test_a_lease_has_one_holder(where: Location) -> None:
    """See :func:`a_lease_has_one_holder`."""
    await a_lease_has_one_holder(where)


async def a_renewal_waits_for_no_write(where: Location) -> None:
    """Another gateway is in a long transaction, or this one in a write under the very lease that is renewed."""
    assert isinstance(where, PostgresAddress)
    async with two_stores(where) as (one, _):
        fence = await taken(one, ONE)
        with locked(where):
            behind = asyncio.create_task(note(one, "behind the long transaction"))
            assert await _renews(one, fence, 2 * LEASE_MS)
            assert not behind.done()
        await behind
        inside, go_on = threading.Event(), threading.Event()

        def held(_: Tx) -> None:
            inside.set()
            go_on.wait()

        writing = asyncio.create_task(one.under(lambda: fence, lambda: None).write(held))
        try:
            await eventually(inside.is_set, "it is in its own write")
            assert await _renews(one, fence, 4 * LEASE_MS)
        finally:
            go_on.set()
            await writing


async def _renews(store: Store, fence: Fence, lease_ms: int) -> bool:
    before = (await lease_in(store)).until
    renewing = asyncio.create_task(store.renew(lambda tx: lease_sql.renew(tx, fence, lease_ms)))

    async def waits() -> bool:
        return bool(await store.read(lambda view: view.value(f"{WAITS} AND wait_event <> 'advisory'")))

    async def ends() -> bool:
        return renewing.done() or await waits()

    await eventually(ends, "the renewal is at the database")
    assert not await waits(), "the renewal waits for another transaction"
    return await renewing and (await lease_in(store)).until > before


async def test_a_renewal_waits_for_no_write(tmp_path: Path) -> None:
    """See :func:`a_renewal_waits_for_no_write`."""
    await a_renewal_waits_for_no_write(database(tmp_path))


async def test_a_former_holder_changes_nothing(where: Location) -> None:
    """See :func:`a_former_holder_changes_nothing`."""
    await a_former_holder_changes_nothing(where)


async def test_the_clock_of_a_gateway_moves_no_lease(tmp_path: Path) -> None:
    """See :func:`the_clock_of_a_gateway_moves_no_lease`."""
    await the_clock_of_a_gateway_moves_no_lease(database(tmp_path))


# --- planted faults -------------------------------------------------------------------------------------------------


def _no_epoch_check(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(writer, "require", lambda *_: None)


def _a_checked_epoch_locks_more(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        "gateway.store.postgres.connection.PostgresConnection.dialect",
        dataclasses.replace(dialect.POSTGRESQL, share=" FOR SHARE"),
    )


def _epoch_not_raised(patch: pytest.MonkeyPatch) -> None:
    real = Tx.value

    def value(tx: Tx, sql: str, *values: object) -> object:
        return real(tx, sql.replace("epoch = leases.epoch + 1", "epoch = leases.epoch"), *values)

    patch.setattr(Tx, "value", value)


def _until_by_the_gateways_clock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        "gateway.store.postgres.connection.PostgresConnection.dialect",
        dataclasses.replace(dialect.POSTGRESQL, _now=dialect.SQLITE._now),  # noqa: SLF001 - the fault
    )


def _renewed_without_the_epoch(patch: pytest.MonkeyPatch) -> None:
    def renew(tx: Tx, fence: Fence, lease_ms: int) -> bool:
        return tx.run("UPDATE leases SET until = until + ? WHERE name = ?", lease_ms, fence.name).rowcount == 1

    patch.setattr(lease_sql, "renew", renew)


def _released_without_the_epoch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        lease_sql, "release", lambda tx, fence: tx.run("UPDATE leases SET until = 0 WHERE name = ?", fence.name)
    )


def _taken_from_its_holder(patch: pytest.MonkeyPatch) -> None:
    real = Tx.value

    def value(tx: Tx, sql: str, *values: object) -> object:
        return real(tx, sql.replace("leases.until <=", "leases.until > 0 OR leases.until <="), *values)

    patch.setattr(Tx, "value", value)


FAULTS: dict[Callable[[pytest.MonkeyPatch], None], Callable[[Location], Awaitable[None]]] = {
    _no_epoch_check: a_former_holder_changes_nothing,
    _a_checked_epoch_locks_more: a_renewal_waits_for_no_write,
    _epoch_not_raised: a_former_holder_changes_nothing,
    _until_by_the_gateways_clock: the_clock_of_a_gateway_moves_no_lease,
    _renewed_without_the_epoch: a_lease_has_one_holder,
    _released_without_the_epoch: a_lease_has_one_holder,
    _taken_from_its_holder: a_lease_has_one_holder,
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.lstrip("_"))
async def test_a_planted_fault_is_found(
    fault: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the tests above fails on the fault that it is there for."""
    fault(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        await FAULTS[fault](database(tmp_path))


# --- at once --------------------------------------------------------------------------------------------------------


async def test_two_that_ask_at_once_get_one_epoch(where: Location) -> None:
    """In each round one of the two has it, and no epoch is given twice."""
    async with two_stores(where) as (one, other):
        epochs = []
        for _ in range(ROUNDS):
            answers = await asyncio.gather(take(one, ONE), take(other, OTHER))
            (fence,) = [each for each in answers if each is not None]
            epochs.append(fence.epoch)
            await one.write(lambda tx, fence=fence: lease_sql.release(tx, fence))  # type: ignore[misc]
        assert epochs == list(range(1, ROUNDS + 1))


async def test_a_renewal_and_a_take_over_at_once(where: Location) -> None:
    """When the time of a lease is over, either its holder renews it or the other takes it."""
    async with two_stores(where) as (one, other):
        for _ in range(ROUNDS):
            fence = await taken(one, ONE)
            await age(one, LEASE_MS)
            renewed, second = await asyncio.gather(
                one.renew(lambda tx, fence=fence: lease_sql.renew(tx, fence, LEASE_MS)),  # type: ignore[misc]
                take(other, OTHER),
            )
            assert renewed == (second is None)
            await one.write(lease_sql.forget_all)


async def test_a_release_and_a_take_over_at_once(where: Location) -> None:
    """The other gets it, or asks again and gets it then; what is released stays free."""
    async with two_stores(where) as (one, other):
        for _ in range(ROUNDS):
            fence = await taken(one, ONE)
            _, second = await asyncio.gather(
                one.write(lambda tx, fence=fence: lease_sql.release(tx, fence)),  # type: ignore[misc]
                take(other, OTHER),
            )
            second = second or await taken(other, OTHER)
            assert (await lease_in(one))[1:4] == (*OTHER, second.epoch)
            await other.write(lambda tx, fence=second: lease_sql.release(tx, fence))  # type: ignore[misc]


class Session:
    """A session at the server that takes no lock of the registry: only the statements themselves keep order."""

    def __init__(self, where: Path) -> None:
        self.connection = PostgresConnection(database(where))
        self.connection.execute("BEGIN")
        self.tx = Tx(self.connection, Context())
        self.answers: list[object] = []
        self._thread: threading.Thread | None = None

    def begin(self, call: Callable[[Tx], object]) -> None:
        """Call in a thread: it will have to wait."""
        self._thread = threading.Thread(target=lambda: self.answers.append(call(self.tx)))
        self._thread.start()

    def end(self) -> object:
        """Commit; return what the call returned."""
        assert self._thread is not None
        self._thread.join()
        self.connection.execute("COMMIT")
        return self.answers[0]


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[tuple[Session, Session]]:
    """Two of them."""
    one, other = Session(tmp_path), Session(tmp_path)
    with closing(one.connection), closing(other.connection):
        yield one, other


async def _waiting(session: Session) -> None:
    with closing(PostgresConnection(session.connection._address)) as looking:  # noqa: SLF001 - the same registry
        await eventually(lambda: looking.execute(WAITS).fetchone()[0] == 1, "the other session waits")


def _take(holder: Holder) -> Callable[[Tx], Fence | None]:
    return lambda tx: lease_sql.acquire(tx, NAME, holder, LEASE_MS)


async def test_the_statement_alone_gives_a_lease_once(sessions: tuple[Session, Session]) -> None:
    """The second waits for the first, sees what it committed, and gets nothing: also without the registry's lock."""
    one, other = sessions
    fence = _take(ONE)(one.tx)
    other.begin(_take(OTHER))
    await _waiting(one)
    one.connection.execute("COMMIT")
    assert (fence is not None, other.end()) == (True, None)


async def test_a_checked_epoch_stays_until_the_commit(sessions: tuple[Session, Session]) -> None:
    """A take-over waits for a write that has checked its epoch: such a write commits before it, or not at all."""
    one, other = sessions
    fence = _take(ONE)(one.tx)
    assert fence is not None
    one.tx.run("UPDATE leases SET until = 0")
    one.connection.execute("COMMIT")
    one.connection.execute("BEGIN")
    lease_sql.require(one.tx, fence)
    other.begin(_take(OTHER))
    await _waiting(one)
    one.connection.execute("COMMIT")
    assert other.end() == Fence(NAME, OTHER.instance, 2)
    with pytest.raises(LeaseLostError):
        lease_sql.require(one.tx, fence)
