"""Reads apart by purpose, and given up at their deadline: no kind of read holds up another."""

import asyncio
import threading
from pathlib import Path

import pytest

from gateway.store import Context, Deadline, Purpose, Store, View
from gateway.store.readers import THREADS, DeadlineError
from tests.store.support import names, project

FOR_EVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
GUARD_SECONDS = 20.0


def endless(view: View) -> None:
    """A read that only an interruption ends."""
    view.value(FOR_EVER)


class BlockedReaders:
    """Every thread for this purpose, held until the block ends."""

    def __init__(self, store: Store, purpose: Purpose) -> None:
        self._store = store
        self._purpose = purpose
        self._open = threading.Event()
        self._reached = threading.Semaphore(0)
        self._reads: list[asyncio.Task[None]] = []

    def _wait(self, _: View) -> None:
        self._reached.release()
        assert self._open.wait(GUARD_SECONDS), "nobody opened the gate"

    async def __aenter__(self) -> None:
        for _ in range(THREADS[self._purpose]):
            self._reads.append(asyncio.create_task(self._store.read(self._wait, self._purpose)))
            assert await asyncio.to_thread(self._reached.acquire, timeout=GUARD_SECONDS)

    async def __aexit__(self, *_: object) -> None:
        self._open.set()
        await asyncio.gather(*self._reads)


@pytest.mark.parametrize("busy", Purpose)
async def test_no_purpose_waits_for_another(tmp_path: Path, busy: Purpose) -> None:
    """With all threads of one purpose taken every other one reads."""
    async with asyncio.timeout(GUARD_SECONDS), Store(tmp_path, Context()) as store:
        await store.write(project("ward"))
        async with BlockedReaders(store, busy):
            for purpose in set(Purpose) - {busy}:
                assert await store.read(names, purpose) == {"ward"}


async def test_a_read_is_aborted_at_its_deadline(tmp_path: Path) -> None:
    """Its thread reads on, without a deadline that was not asked for, and the registry is not in trouble."""
    async with asyncio.timeout(GUARD_SECONDS), Store(tmp_path, Context()) as store:
        await store.write(project("ward"))
        for _ in range(2 * THREADS[Purpose.SCANS]):
            with pytest.raises(DeadlineError, match=r"longer than 0\.05 s.*serial_number") as caught:
                await store.read(endless, Purpose.SCANS, deadline=Deadline(0.05))
            assert caught.value.code == "service_unavailable"
            assert caught.value.details == {"deadline_seconds": 0.05}
            assert await store.read(names, Purpose.SCANS) == {"ward"}
        assert store.trouble is None


async def test_waiting_for_a_thread_counts_towards_the_deadline(tmp_path: Path) -> None:
    """A query whose caller no longer waits is not begun."""
    begun = threading.Event()
    async with asyncio.timeout(GUARD_SECONDS), Store(tmp_path, Context()) as store:
        deadline = Deadline(GUARD_SECONDS)
        async with BlockedReaders(store, Purpose.SCANS):
            late = asyncio.create_task(store.read(lambda _: begun.set(), Purpose.SCANS, deadline=deadline))
            await asyncio.sleep(0)
            deadline.end()
        with pytest.raises(DeadlineError):
            await late
        assert not begun.is_set()


async def test_a_read_ends_when_its_caller_is_gone(tmp_path: Path) -> None:
    """Else callers that come and go would keep every thread busy."""
    began = threading.Event()

    def read(view: View) -> None:
        began.set()
        endless(view)

    async with asyncio.timeout(GUARD_SECONDS), Store(tmp_path, Context()) as store:
        for _ in range(2 * THREADS[Purpose.SCANS]):
            began.clear()
            reading = asyncio.create_task(store.read(read, Purpose.SCANS, deadline=Deadline(GUARD_SECONDS)))
            assert await asyncio.to_thread(began.wait, GUARD_SECONDS)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        assert await store.read(names, Purpose.SCANS) == set()
