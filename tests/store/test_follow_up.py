"""Reads that follow a commit, on the real writer: what a publisher that waits has when it hears of the commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from gateway.store import Context, Store, StoreListener, Tx, View, key_sql, outbox_sql

KINDS = (outbox_sql.COMMAND, outbox_sql.TOPIC)


class _Told(StoreListener):
    """For each commit that it hears of: whether the answer was there."""

    def __init__(self) -> None:
        self.asked: asyncio.Future[str | None] | None = None
        self.had_answer: list[bool] = []

    def notify_outbox(self, kinds: frozenset[str]) -> None:
        """Note it."""
        assert kinds
        self.had_answer.append(self.asked is not None and self.asked.done())


def _note(value: str, *kinds: str) -> Callable[[Tx], None]:
    def write(tx: Tx) -> None:
        key_sql.set_meta(tx, "test", value)
        tx.outbox_kinds.update(kinds)

    return write


def _noted(view: View, now: int = 0) -> str | None:  # noqa: ARG001 - as reads after a commit are called
    return key_sql.meta(view, "test")


async def test_it_finds_what_the_commit_wrote_before_others_hear_of_it(tmp_path: Path) -> None:
    """It does not wait for a commit that marks nothing of these kinds."""
    told = _Told()
    async with Store(tmp_path, Context(), told) as store:
        told.asked = asked = store.read_after_commit(_noted, KINDS)
        await store.write(_note("no rows"))
        await store.write(_note("for another worker", outbox_sql.CREDENTIAL))
        assert not asked.done()
        await store.write(_note("a command", outbox_sql.COMMAND))
        assert (asked.result(), told.had_answer) == ("a command", [False, True])


async def test_it_is_answered_once(tmp_path: Path) -> None:
    """The next commit is for the next question; one that was cancelled is not read."""
    read: list[str | None] = []

    def noted(view: View, now: int) -> str | None:  # noqa: ARG001
        read.append(_noted(view))
        return read[-1]

    async with Store(tmp_path, Context()) as store:
        first = store.read_after_commit(noted, KINDS)
        await store.write(_note("1", outbox_sql.TOPIC))
        store.read_after_commit(noted, KINDS).cancel()
        await store.write(_note("2", outbox_sql.TOPIC))
        third = store.read_after_commit(noted, KINDS)
        await store.write(_note("3", outbox_sql.TOPIC))
        assert (first.result(), third.result(), read) == ("1", "3", ["1", "3"])


async def test_a_read_that_fails_leaves_the_commit_as_it_is(tmp_path: Path) -> None:
    """The caller of the write has its answer, and who asked is not told; the next commit finds all in order."""
    async with Store(tmp_path, Context()) as store:
        sql = "SELECT value FROM meta WHERE no_such_column > ?"
        asked = store.read_after_commit(lambda view, now: view.value(sql, now), KINDS)
        await store.write(_note("1", outbox_sql.COMMAND))
        assert not asked.done()
        asked.cancel()
        await store.write(_note("2", outbox_sql.COMMAND))
        assert await store.read(_noted) == "2"


async def test_an_error_of_the_worker_reaches_the_worker(tmp_path: Path) -> None:
    """The writer's thread lives on, and the caller of the write has its answer."""

    def broken(_: View, now: int) -> None:  # noqa: ARG001
        raise LookupError("an unknown kind of row")

    async with Store(tmp_path, Context()) as store:
        asked = store.read_after_commit(broken, KINDS)
        await store.write(_note("1", outbox_sql.COMMAND))
        assert str(asked.exception()) == "an unknown kind of row"
        await store.write(_note("2", outbox_sql.COMMAND))
        assert await store.read(_noted) == "2"


async def test_a_write_that_fails_answers_nothing(tmp_path: Path) -> None:
    """What it marked is undone with it."""

    def fails(tx: Tx) -> None:
        _note("1", outbox_sql.COMMAND)(tx)
        raise LookupError

    async with Store(tmp_path, Context()) as store:
        asked = store.read_after_commit(_noted, KINDS)
        (outcome,) = await asyncio.gather(store.write(fails), return_exceptions=True)
        assert isinstance(outcome, LookupError)
        assert not asked.done()
        asked.cancel()
