"""Lease: runs a piece of work while this process holds it, on one of the gateways of a registry at a time.

Two things keep a former owner from doing harm. It gives the lease up by its own monotonic clock, before the lease ends
at the database. So it stops in time when the registry is away. And each of its writes checks the epoch of the lease in
the transaction (:func:`gateway.store.lease_sql.require`). So what it does after a pause of the process changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from gateway.core.clock import SECOND_MS
from gateway.errors import StoreError
from gateway.store import lease_sql
from gateway.store.lease_sql import LeaseLostError

if TYPE_CHECKING:
    from gateway.store import Store, Tx, View
    from gateway.store.lease_sql import Fence, Holder

log = structlog.get_logger()

LOOK_SECONDS: Final = 0.5
"""How often a gateway that stands by checks whether the lease is free. It reads one row for that."""
RETRY_SECONDS: Final = 0.2
"""Pause before a renewal is tried again that could not be written."""
RELEASE_SECONDS: Final = 2.0
"""How long a stop waits until the lease is handed over. After that it ends by its time."""
_RENEWALS: Final = 3
"""A lease is renewed when a third of it is over."""
_KEPT: Final = 5 / 6
"""Part of a lease after which its owner gives it up: two clocks do not run at quite the same speed."""


def uptime() -> float:
    """Return seconds that never go back and that count on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True)
class Term:
    """The length of a lease in seconds, and the clock by which its owner gives it up."""

    seconds: float
    clock: Callable[[], float] = uptime

    @property
    def ms(self) -> int:
        """Return the length in milliseconds."""
        return round(self.seconds * SECOND_MS)

    @property
    def renewal_seconds(self) -> float:
        """Return after which time a lease is renewed."""
        return self.seconds / _RENEWALS

    @property
    def kept_seconds(self) -> float:
        """Return after which time its owner gives it up, counted from before it asked for the lease."""
        return self.seconds * _KEPT


Work = Callable[["Store"], Coroutine[Any, Any, None]]
"""Works until it is cancelled. It writes by the store that it gets."""


class Lease:
    """One lease as this process sees it."""

    def __init__(self, store: Store, name: str, holder: Holder, term: Term) -> None:
        self.name = name
        self.taken = 0
        """How often this process has taken it."""
        self._store = store
        self._holder = holder
        self._term = term
        self._fence: Fence | None = None
        self._ends = 0.0
        self._lost = asyncio.Event()

    @property
    def is_held(self) -> bool:
        """Return whether this process may act by it now."""
        return self._fence is not None and not self._lost.is_set() and self._term.clock() < self._ends

    @property
    def instance(self) -> str:
        """Return the name of this process in the rows of its leases."""
        return self._holder.instance

    @property
    def epoch(self) -> int | None:
        """Return the epoch under which this process holds it, or None."""
        return self._fence.epoch if self._fence is not None and self.is_held else None

    @property
    def store(self) -> Store:
        """Return the store for parts that outlive a loss of the lease. It writes while the lease is held."""
        return self._store.under(self._present, self._lost.set)

    def _present(self) -> Fence:
        if self._fence is None or not self.is_held:
            raise LeaseLostError(f"This gateway does not hold the lease '{self.name}' now. Nothing was changed.")
        return self._fence

    async def run(self, work: Work) -> None:
        """Take the lease whenever it is free, and work while it is held. The work has ended before it is taken again.

        Raises:
            Exception: what the work raised, unless it was the loss of the lease.
        """
        while True:
            fence = await self._acquire()
            store = self._store.under(partial(_same, fence), self._lost.set)
            working = asyncio.create_task(work(store), name=self.name)
            try:
                await self._hold(working, fence)
            finally:
                working.cancel()
                await asyncio.wait((working,))
                await self._release(fence)
                self._fence = None
            _raise_failure(working)

    async def _acquire(self) -> Fence:
        while True:
            with suppress(StoreError):  # the store has logged that
                if await self._store.read(self._is_free):
                    began = self._term.clock()
                    fence = await self._store.write(self._take)
                    if fence is not None:
                        self._note(fence, began)
                        return fence
            await asyncio.sleep(LOOK_SECONDS)

    def _is_free(self, view: View) -> bool:
        return lease_sql.is_free(view, self.name, self._holder, self._store.context.clock())

    def _take(self, tx: Tx) -> Fence | None:
        return lease_sql.acquire(tx, self.name, self._holder, self._term.ms)

    def _note(self, fence: Fence, began: float) -> None:
        self._fence, self._ends = fence, began + self._term.kept_seconds
        self._lost.clear()
        self.taken += 1
        log.info("lease.taken", lease=self.name, epoch=fence.epoch)

    async def _hold(self, working: asyncio.Task[None], fence: Fence) -> None:
        """Renew until the lease is lost, or the work has ended."""
        lost = asyncio.create_task(self._lost.wait())
        pause = self._until_renewal()
        try:
            while True:
                await asyncio.wait((working, lost), timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                if working.done():
                    return
                if not self.is_held:
                    log.warning("lease.lost", lease=self.name, epoch=fence.epoch)
                    return
                pause = self._until_renewal() if await self._renewed(fence) else RETRY_SECONDS
        finally:
            lost.cancel()

    def _until_renewal(self) -> float:
        """Return the pause before the next renewal, in seconds. A slow write of the last one shortens it."""
        asked_at = self._ends - self._term.kept_seconds
        return max(0.0, asked_at + self._term.renewal_seconds - self._term.clock())

    async def _renewed(self, fence: Fence) -> bool:
        """Renew. Return False when that was not possible; the lease may still be held then."""
        began = self._term.clock()
        try:
            async with asyncio.timeout(self._ends - began):
                kept = await self._store.renew(lambda tx: lease_sql.renew(tx, fence, self._term.ms))
        except (StoreError, TimeoutError):
            return False
        if kept:
            self._ends = began + self._term.kept_seconds
        else:
            self._lost.set()
        return kept

    async def _release(self, fence: Fence) -> None:
        if self._lost.is_set():
            return
        self._lost.set()
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._store.write(lambda tx: lease_sql.release(tx, fence))
                log.info("lease.released", lease=self.name, epoch=fence.epoch)


def _same(fence: Fence) -> Fence:
    return fence


def _raise_failure(working: asyncio.Task[None]) -> None:
    """Raise what the work failed by. The loss of the lease is no failure."""
    error = None if working.cancelled() else working.exception()
    if error is not None and not all(isinstance(each, LeaseLostError) for each in _leaves(error)):
        raise error


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
