"""Writer thread: runs write functions, and returns their results after the commit.

Waiting writes share one transaction (group commit), each in its own savepoint, so that one that raises undoes none of
the others. A result is returned only after the commit that holds it. Urgent writes go before ordinary ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from gateway.errors import UnavailableError
from gateway.runtime import tracing
from gateway.runtime.loop_priority import LoopPriority
from gateway.runtime.tracing import NO_TRACER, Traced, Tracer
from gateway.store import measurements
from gateway.store.batch import Batch
from gateway.store.device_cache import DeviceCache
from gateway.store.engine import NOTHING_AHEAD, Ahead
from gateway.store.errors import DATABASE_ERRORS, StorageHealth, concerns_all, conflict, id_was_taken
from gateway.store.follow_up import FollowUps
from gateway.store.lease_sql import Fence, require
from gateway.store.listener import StoreListener
from gateway.store.measurements import Measure
from gateway.store.transaction import ID_TRIES, Context, Tx, View, rollback

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.store.engine import DatabaseConnection

log = structlog.get_logger()

T = TypeVar("T")

GROUP: Final = 64
CONFLICT_TRIES: Final = 4
"""How often a transaction is run that another one made the server undo. Locks have a fixed order, so none should."""


@dataclass
class _Job:
    write: Callable[[Tx], Any]
    future: asyncio.Future[Any]
    traceparent: str | None = None
    fence: Fence | None = None
    shared: bool = False
    ahead: Ahead = NOTHING_AHEAD
    result: Any = None
    error: BaseException | None = None

    def run(self, tx: Tx) -> Any:
        tx.connection.writes_about(self.ahead.device_id)
        self.check_lease(tx)
        return self.write(tx)

    def check_lease(self, view: View) -> None:
        if self.fence is not None:
            require(view, self.fence)

    def settle(self) -> None:
        if self.future.done():  # the caller went away; what was committed stays
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Writer:
    """Owns the write connection and its thread.

    ``listener`` is called in the loop after each commit, and ``tracer`` gets what belongs to a trace. ``changed`` is
    called in the writer's thread after each commit. A batch yields to the loop as
    ``loop_priority`` says.
    """

    def __init__(
        self,
        connection: DatabaseConnection,
        context: Context,
        listener: StoreListener,
        *,
        changed: Callable[[], None] = lambda: None,
        tracer: Tracer = NO_TRACER,
        loop_priority: LoopPriority | None = None,
    ) -> None:
        self._connection = connection
        self._context = context
        self._listener = listener
        self._changed = changed
        self._tracer = tracer
        self._devices = DeviceCache()
        self._loop_priority = loop_priority or LoopPriority()
        self._urgent: deque[_Job] = deque()
        self._ordinary: deque[_Job] = deque()
        self._wake = threading.Condition()
        self._ordinary_was_last = True
        self._stopping = False
        self.trouble = StorageHealth()
        self.follow_ups = FollowUps()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what waits, then end the thread. Blocks until it has ended."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    async def write(
        self,
        write: Callable[[Tx], T],
        *,
        urgent: bool = True,
        fence: Fence | None = None,
        shared: bool = False,
        ahead: Ahead = NOTHING_AHEAD,
    ) -> T:
        """Run ``write`` in a transaction; return its result once committed. With a fence its lease is checked there.

        It may be run again, so it has no effect outside of the transaction. One that is ``shared`` is not urgent. What
        it reads ``ahead`` is asked for when the transaction begins (:class:`gateway.store.engine.Ahead`).

        Raises:
            LeaseLostError: the lease of the fence is another's by now; nothing was changed.
            StoreError: the database could not commit; nothing was changed.
            UnavailableError: the gateway is stopping.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        with self._wake:
            if self._stopping:
                raise UnavailableError("The gateway is stopping. Send the same request again when it is back.")
            job = _Job(write, future, tracing.here(), fence, shared, ahead)
            (self._urgent if urgent else self._ordinary).append(job)
            self._wake.notify()
        return await future

    async def write_batch(self, write: Callable[[Batch], T], fence: Fence | None = None, *, shared: bool = False) -> T:
        """Run ``write`` as a batch: in a transaction without other writes, after urgent ones.

        ``shared``: beside such batches of other gateways. It locks the rows of devices before it reads or writes
        what belongs to them, and the row of the numbers of events before anything that devices share.

        Raises:
            LeaseLostError: as above.
            StoreError: the database could not commit; nothing was changed.
            UnavailableError: the gateway is stopping.
        """
        return await self.write(lambda tx: write(self._batch(tx)), urgent=False, fence=fence, shared=shared)

    def _batch(self, tx: Tx) -> Batch:
        return Batch(tx, self._devices, self._should_stop, self._yield_to_loop)

    def _should_stop(self) -> bool:
        """Return whether an urgent write waits. What the batch has posted is executed first, as part of its time."""
        self._connection.flush()
        return bool(self._urgent)

    def _run(self) -> None:
        while jobs := self._take():
            calls = self._commit(jobs)
            self._loop.call_soon_threadsafe(partial(self._settle, jobs, calls))

    def _take(self) -> list[_Job]:
        with self._wake:
            while not (self._urgent or self._ordinary or self._stopping):
                self._wake.wait()
            return self._next_group()

    def _yield_to_loop(self) -> None:
        if not self._urgent:  # an urgent write is served best by the end of this batch
            self._loop_priority.yield_to_loop()

    def _next_group(self) -> list[_Job]:
        # An ordinary write may be a large batch, so it gets a transaction without others. Where both kinds wait they
        # take turns: an urgent one waits for at most one batch, and a stream of urgent ones starves no batch.
        if self._ordinary and not (self._urgent and self._ordinary_was_last):
            self._ordinary_was_last = True
            return [self._ordinary.popleft()]
        self._ordinary_was_last = False
        return [self._urgent.popleft() for _ in range(min(GROUP, len(self._urgent)))]

    def _commit(self, jobs: list[_Job]) -> list[Callable[[], None]]:
        """Commit them all; return the calls to make in the loop for that."""
        began = time.perf_counter()
        try:
            tx = self._transact(jobs)
        except BaseException as error:  # noqa: BLE001 - any error goes to the callers, and the thread lives on
            with contextlib.suppress(*DATABASE_ERRORS):  # what cannot be undone now is undone before the next BEGIN
                rollback(self._connection)
            return self._failed(jobs, error)
        self.trouble.written()
        tx.measure(measurements.COMMIT, "", time.perf_counter() - began)
        self._changed()
        calls = (
            (partial(self._listener.notify_outbox, frozenset(tx.outbox_kinds)), tx.outbox_kinds),
            (self._listener.notify_events, tx.wrote_events),
            (partial(self._trace, tx.traced), tx.traced),
        )
        told = (call for call, is_due in calls if is_due)
        return [*self.follow_ups.read(tx), *told, partial(self._count, tx.measures)]

    def _transact(self, jobs: list[_Job]) -> Tx:
        """Run these jobs in one transaction; again where another one made the server undo it, or an id was taken.

        The statements of several jobs are sent together, with reads that follow the commit. If one of them fails, the
        jobs are run again, one by one.
        """
        conflicts: list[str] = []
        together = True
        more_ids = ID_TRIES - 1
        while True:
            try:
                return self._transact_once(jobs, conflicts, together=together)
            except DATABASE_ERRORS as error:
                kind = conflict(error)
                if kind is not None and len(conflicts) < CONFLICT_TRIES - 1:
                    log.warning("store.conflict", kind=kind, reason=str(error))
                    conflicts.append(kind)
                elif together and not concerns_all(error) and (len(jobs) > 1 or self.follow_ups.is_asked):
                    together = False
                elif len(jobs) == 1 and id_was_taken(error) and more_ids:
                    log.warning("store.id_was_taken", reason=str(error))
                    more_ids -= 1
                else:
                    raise
            self._devices.forget()
            for job in jobs:
                job.result = job.error = None

    def _transact_once(self, jobs: list[_Job], conflicts: Sequence[str], *, together: bool) -> Tx:
        rollback(self._connection)
        first = jobs[0]
        ahead = [Ahead((first.check_lease,)), *(job.ahead for job in jobs if together)]
        if newer := self._connection.begin_checked(shared=first.shared, ahead=ahead):
            raise self.trouble.outgrown(newer)
        tx = Tx(self._connection, self._context)
        for kind in conflicts:
            tx.measure(measurements.CONFLICT, kind)
        self._do(jobs, tx, one_by_one=not together)
        self._connection.commit_with(self.follow_ups.due(tx) if together else ())
        return tx

    def _trace(self, traced: list[Traced]) -> None:
        for each in traced:
            self._tracer.begin(each.name, each.parent, each.kind, began=each.began, **each.facts).end()

    def _count(self, samples: list[Measure]) -> None:
        """Report after the tasks that the other calls woke: the publisher has a command for a device."""
        self._loop.call_soon(self._listener.notify_measured, samples)

    def _do(self, jobs: list[_Job], tx: Tx, *, one_by_one: bool) -> None:
        if len(jobs) > 1:
            for job in jobs:
                self._savepoint(job, tx, one_by_one=one_by_one)
        else:  # alone it needs no savepoint: an error undoes everything
            tx.traceparent = jobs[0].traceparent
            jobs[0].result = jobs[0].run(tx)

    def _back_to_savepoint(self) -> None:
        self._connection.execute("ROLLBACK TO job")

    def _run_job(self, job: _Job, tx: Tx, *, one_by_one: bool) -> Any:
        """Run this write beside others. ``one_by_one``: an error is its own; with new ids if one was taken."""
        tx.traceparent, tx.client_address, tx.request_id = job.traceparent, None, None
        if not one_by_one:
            return job.run(tx)
        before = tx.mark()
        for _ in range(ID_TRIES - 1):
            try:
                return self._executed(job, tx)
            except DATABASE_ERRORS as error:
                if not id_was_taken(error):
                    raise
                log.warning("store.id_was_taken", reason=str(error))
            self._back_to_savepoint()
            self._devices.forget()
            tx.forget_since(before)
        return self._executed(job, tx)

    def _executed(self, job: _Job, tx: Tx) -> Any:
        """Run this write, and have each of its statements executed: its errors are its own."""
        result = job.run(tx)
        self._connection.flush()
        return result

    def _failed(self, jobs: list[_Job], error: BaseException) -> list[Callable[[], None]]:
        self._devices.forget()
        reason = self.trouble.met(error) if concerns_all(error) else error
        for job in jobs:
            job.error = reason
        return []

    def _savepoint(self, job: _Job, tx: Tx, *, one_by_one: bool) -> None:
        self._connection.post("SAVEPOINT job")
        before = tx.mark()
        try:
            job.result = self._run_job(job, tx, one_by_one=one_by_one)
        except Exception as error:
            if concerns_all(error) or (isinstance(error, DATABASE_ERRORS) and not one_by_one):
                raise
            self._back_to_savepoint()
            self._devices.forget()
            tx.forget_since(before)
            job.error = error  # only this job's caller gets it
        self._connection.post("RELEASE job")

    def _settle(self, jobs: list[_Job], calls: list[Callable[[], None]]) -> None:
        try:
            for call in calls:
                call()
        finally:
            for job in jobs:
                job.settle()
