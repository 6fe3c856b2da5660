"""The registry: one database, one writer, all SQL. It imports nothing of HTTP or MQTT."""

from __future__ import annotations

import asyncio
import copy
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from gateway.runtime.loop_priority import LoopPriority
from gateway.runtime.tracing import NO_TRACER, Tracer
from gateway.store.batch import Batch
from gateway.store.engine import NOTHING_AHEAD, Ahead, Row
from gateway.store.errors import DATABASE_ERRORS, store_error, was_interrupted
from gateway.store.lease_sql import LeaseLostError
from gateway.store.listener import StoreListener
from gateway.store.location import engine_of, open_database, open_existing, open_reader, open_to_serve
from gateway.store.readers import THREADS, Deadline, DeadlineError, Purpose, Readers
from gateway.store.renewals import Renewals
from gateway.store.small_reads import Outcome, SmallReads, send_ahead
from gateway.store.sqlite.connection import DATABASE_NAME
from gateway.store.transaction import Context, Rules, Tx, View, transact, transaction
from gateway.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence
    from types import TracebackType

    from gateway.store.engine import DatabaseConnection
    from gateway.store.lease_sql import Fence
    from gateway.store.location import Location

__all__ = [
    "DATABASE_NAME",
    "NOTHING_AHEAD",
    "Ahead",
    "Batch",
    "Context",
    "Deadline",
    "Purpose",
    "Row",
    "Rules",
    "Store",
    "StoreListener",
    "Tx",
    "View",
    "open_database",
    "open_existing",
    "open_reader",
    "open_to_serve",
    "transact",
    "transaction",
]

T = TypeVar("T")


class Store:
    """The registry of one running gateway: reads on a few threads, writes on one.

    ``listener`` is called after each commit, and ``tracer`` gets writes that belong to a trace. ``loop_priority`` says
    when a batch must wait for the loop.
    """

    def __init__(
        self,
        location: Location,
        context: Context,
        listener: StoreListener | None = None,
        *,
        tracer: Tracer = NO_TRACER,
        loop_priority: LoopPriority | None = None,
    ) -> None:
        self.context = context
        self._engine = engine_of(location)
        self._listener = listener or StoreListener()
        self.tracer = tracer
        self._loop_priority = loop_priority
        self._fence: Callable[[], Fence | None] = lambda: None
        self._lost: Callable[[], None] = lambda: None
        self._local = threading.local()
        self._opened: list[DatabaseConnection] = []
        self._readers = Readers()
        self._renewals: Renewals | None = None
        self._small_reads: dict[Purpose, SmallReads] = {}

    async def __aenter__(self) -> Self:
        connection = self._engine.open_writer()
        self._opened.append(connection)
        self._writer = Writer(
            connection,
            self.context,
            self._listener,
            changed=self._engine.committed,
            tracer=self.tracer,
            loop_priority=self._loop_priority,
        )
        self._writer.start()
        renewer = self._engine.open_renewer()
        if renewer is not None:
            self._opened.append(renewer)
            self._renewals = Renewals(renewer, self.context, self._writer.trouble)
        for purpose, threads in THREADS.items():
            start = partial(self._readers.start, purpose)
            self._small_reads[purpose] = SmallReads(threads, start, self._read_together)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._writer.stop)
        await asyncio.sleep(0)  # the last results reach their callers
        self._readers.stop()
        if self._renewals is not None:
            await asyncio.to_thread(self._renewals.stop)
        await asyncio.to_thread(self._engine.stop)  # until here it ends reads that a server does not answer
        for connection in reversed(self._opened):
            connection.close()

    async def write(self, write: Callable[[Tx], T], *, urgent: bool = True, ahead: Ahead = NOTHING_AHEAD) -> T:
        """Run a write function in a transaction; see :meth:`Writer.write`."""
        with self.tracer.inside("registry.write"):
            return await self._fenced(self._writer.write(write, urgent=urgent, fence=self._fence(), ahead=ahead))

    async def write_batch(self, write: Callable[[Batch], T], *, shared: bool = False) -> T:
        """Run a write function that stores many messages; see :meth:`Writer.write_batch`."""
        with self.tracer.inside("registry.write"):
            return await self._fenced(self._writer.write_batch(write, self._fence(), shared=shared))

    async def renew(self, write: Callable[[Tx], T]) -> T:
        """Run a write function of one statement, which changes the row of a lease or of a registration.

        On PostgreSQL it waits for no other write, of this gateway or of another one (:class:`Renewals`).

        Raises:
            StoreError: the registry cannot be written.
            UnavailableError: the gateway is stopping.
        """
        if self._renewals is None:
            return await self.write(write)
        return await self._renewals.run(write)

    def read_after_commit(self, read: Callable[..., T], kinds: Collection[str]) -> asyncio.Future[T]:
        """Return a future of what this finds after the next commit that marks the outbox (:class:`FollowUps`)."""
        return self._writer.follow_ups.ask(read, kinds)

    def under(self, fence: Callable[[], Fence], lost: Callable[[], None]) -> Store:
        """Return this store for work under a lease. Once the lease is lost, its writes fail and ``lost`` is called.

        ``fence`` is called for each write. It may raise :class:`LeaseLostError` itself.
        """
        fenced = copy.copy(self)
        fenced._fence, fenced._lost = fence, lost  # noqa: SLF001 - of the same class
        return fenced

    async def _fenced(self, write: Awaitable[T]) -> T:
        try:
            return await write
        except LeaseLostError:
            self._lost()
            raise

    @property
    def trouble(self) -> str | None:
        """Return why the last commit failed, or that the file is damaged, or None.

        Reasons are a disk that is full or read only, or a lock.
        """
        return self._writer.trouble.reason

    @property
    def is_local(self) -> bool:
        """Return whether a look-up waits for no network (:class:`gateway.store.engine.Engine`)."""
        return self._engine.is_local

    async def look_at_schema(self) -> None:
        """Check whether another program has migrated the registry meanwhile. If so, nothing more is written."""
        newer = await self.read(lambda view: view.connection.newer_schema())
        if newer is not None:
            self._writer.trouble.outgrown(newer)

    async def read(
        self, read: Callable[[View], T], purpose: Purpose = Purpose.STEERING, *, deadline: Deadline | None = None
    ) -> T:
        """Run a read function on a read-only connection; it sees what was committed when it began.

        Raises:
            DeadlineError: it was not done before the deadline.
            StoreError: the database could not be read.
        """
        run = self._readers.run(purpose, partial(self._read, read, deadline))
        if deadline is None:
            return await run
        try:
            async with asyncio.timeout(deadline.left):
                return await run
        except TimeoutError as error:  # no thread was free, or the database has yet to notice
            raise DeadlineError(deadline.seconds) from error
        except asyncio.CancelledError:
            deadline.end()  # or the thread would go on in vain
            raise

    def _read(self, read: Callable[[View], T], deadline: Deadline | None) -> T:
        connection = self._reader()
        if deadline is not None:
            deadline.require()
        try:
            connection.begin_read(deadline)
            found = read(View(connection))
        except DATABASE_ERRORS as error:
            if deadline is not None and was_interrupted(error):
                raise DeadlineError(deadline.seconds) from error
            raise self._writer.trouble.met(error, "read") from error
        finally:
            connection.end_read()
        self._writer.trouble.answered()
        return found

    async def read_small(self, read: Callable[[View], T], purpose: Purpose = Purpose.STEERING) -> T:
        """Read a few indexed rows: in this thread on SQLite (:meth:`read_inline`), on a reader thread on PostgreSQL.

        Each statement sees what is committed when it begins. Reads that wait for a thread share a message to the
        server, and those that are equal are made once (:class:`SmallReads`).

        Raises:
            StoreError: the database could not be read.
        """
        if self._engine.is_local:
            return self.read_inline(read)
        return await self._small_reads[purpose].run(read)

    def _read_together(self, reads: Sequence[Callable[[View], Any]]) -> list[Outcome]:
        connection = self._reader()
        connection.refresh()
        send_ahead(connection, reads)
        return [self._outcome(read, connection) for read in reads]

    def _outcome(self, read: Callable[[View], Any], connection: DatabaseConnection) -> Outcome:
        try:
            return Outcome(self._read_each(read, connection))
        except Exception as error:  # noqa: BLE001 - it is its caller's, and the thread serves others
            return Outcome(None, error)

    def _read_each(self, read: Callable[[View], T], connection: DatabaseConnection) -> T:
        try:
            found = read(View(connection))
        except DATABASE_ERRORS as error:
            if not connection.refresh():
                raise self._writer.trouble.met(error, "read") from error
            found = self._read_again(read, connection)
        self._writer.trouble.answered()
        return found

    def _read_again(self, read: Callable[[View], T], connection: DatabaseConnection) -> T:
        """Read on a new connection, since the server may have been restarted since the last read."""
        try:
            return read(View(connection))
        except DATABASE_ERRORS as error:
            raise self._writer.trouble.met(error, "read") from error

    def read_inline(self, read: Callable[[View], T]) -> T:
        """Do the same in this thread, whatever the engine.

        On SQLite it takes about ten microseconds in the event loop's own thread. A hand-over to another thread and back
        takes ten times as long, and far longer while a third thread is busy.

        Raises:
            StoreError: the database could not be read.
        """
        try:
            return read(View(self._reader()))
        except DATABASE_ERRORS as error:
            raise store_error(error, "read") from error

    def _reader(self) -> DatabaseConnection:
        """Return this thread's connection."""
        connection: DatabaseConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._engine.open_reader()
            self._opened.append(connection)
        return connection
