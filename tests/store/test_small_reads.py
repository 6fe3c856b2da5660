"""Small reads that wait for a thread together: one message to PostgreSQL, and the same results."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.store import Context, Store, View, key_sql
from gateway.store.readers import THREADS, Purpose
from tests.support.messages import Messages
from tests.support.postgres import database

FACTS = [f"fact {number}" for number in range(20)]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store on PostgreSQL with some facts."""
    async with Store(database(tmp_path), Context()) as opened:
        for fact in FACTS:
            await opened.write(partial(key_sql.set_meta, key=fact, value=fact.upper()))
        yield opened


class Hold:
    """Reads that hold every thread of the purpose until they are let go."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open = threading.Event()
        self._held = threading.Semaphore(0)
        self._reads: list[asyncio.Task[None]] = []

    def _hold(self, _: View) -> None:
        self._held.release()
        assert self._open.wait(20), "nothing opened the threads"

    async def reached(self) -> None:
        """Hold them, one after the other: two that wait together would get one thread."""
        for _ in range(THREADS[Purpose.STEERING]):
            self._reads.append(asyncio.create_task(self._store.read_small(self._hold)))
            assert await asyncio.to_thread(self._held.acquire, timeout=20), "no thread is free"

    async def let_go(self) -> None:
        """Let them go."""
        self._open.set()
        await asyncio.gather(*self._reads)


def _fact(key: str) -> Callable[[View], str | None]:
    return lambda view: key_sql.meta(view, key)


async def _together(store: Store, *reads: Callable[[View], object]) -> list[object]:
    """Ask for these while no thread is free."""
    hold = Hold(store)
    await hold.reached()
    asked = [asyncio.create_task(store.read_small(read)) for read in reads]
    await asyncio.sleep(0)  # each waits for a thread
    await hold.let_go()
    return await asyncio.gather(*asked, return_exceptions=True)


async def test_reads_that_wait_together_are_one_message(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its own answer, whichever thread takes them."""
    for _ in range(2):  # until both threads have a connection, and the statement is prepared there
        await _together(store, *map(_fact, FACTS))
    messages = Messages(monkeypatch)
    assert await _together(store, *map(_fact, FACTS)) == [fact.upper() for fact in FACTS]
    assert len([sent for sent in messages.sent if "fact" in sent]) == 1


@dataclass(frozen=True)
class _Counted:
    key: str
    made: list[str] = field(compare=False)

    def __call__(self, view: View) -> str | None:
        found = key_sql.meta(view, self.key)
        self.made.append(self.key)
        return found


async def test_equal_reads_are_made_once(store: Store) -> None:
    """Such as the look-ups of one credential."""
    made: list[str] = []
    found = await _together(store, *(_Counted(FACTS[0], made) for _ in range(5)), _Counted(FACTS[1], made))
    assert (found, made) == (["FACT 0"] * 5 + ["FACT 1"], FACTS[:2])


async def test_a_read_that_fails_leaves_the_others(store: Store) -> None:
    """Its error is its caller's alone: of the database, of the read itself, or before its first statement."""

    def broken(view: View) -> None:
        key_sql.meta(view, FACTS[0])
        raise LookupError("no such thing")

    def begins_badly(_: View) -> None:
        raise ValueError("not a question")

    found = await _together(
        store,
        _fact(FACTS[0]),
        lambda view: view.value("SELECT 1 FROM no_such_table"),
        broken,
        begins_badly,
        _fact(FACTS[1]),
    )
    assert [type(each) for each in found] == [str, StoreError, LookupError, ValueError, str]
    assert store.trouble is None or "no_such_table" in store.trouble


async def test_a_caller_that_goes_away_leaves_the_others(store: Store) -> None:
    """Its answer is dropped."""
    hold = Hold(store)
    await hold.reached()
    gone, stays = (asyncio.create_task(store.read_small(_fact(fact))) for fact in FACTS[:2])
    await asyncio.sleep(0)
    gone.cancel()
    await hold.let_go()
    assert await stays == "FACT 1"
    assert await store.read_small(_fact(FACTS[2])) == "FACT 2"
