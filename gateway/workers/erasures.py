"""Erasures that were accepted: each is brought to its end in short transactions, also after a restart.

Between two transactions other writes come first, so heartbeats are stored meanwhile. What is to do is in the registry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, TypeVar

import structlog

from gateway.core.command_types import CommandType
from gateway.domain import erasures
from gateway.domain.erasures import Erased
from gateway.errors import StoreError
from gateway.store import Purpose, Store, View, erasure_sql, person_sql
from gateway.store.erasure_sql import ErasureRecord

log = structlog.get_logger()

T = TypeVar("T")

INTERVAL_SECONDS: Final = 5.0
"""How often the worker looks for open erasures that no task works on."""
_AT_ONCE: Final = 200
"""Events that are changed in one transaction."""


class Erasures:
    """Works on each open erasure in one task. Callers may wait for its end."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tasks: dict[str, asyncio.Task[Erased]] = {}

    async def run(self) -> None:
        """Finish open erasures until cancelled: those of an earlier run, of another process, or that failed."""
        try:
            while True:
                await self._resume()
                await asyncio.sleep(INTERVAL_SECONDS)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _resume(self) -> None:
        try:
            for erasure in await self._store.read(erasure_sql.open_ones):
                await asyncio.wait({self._task(erasure)})
        except StoreError as error:
            log.error("erasure.not_read", reason=error.message)  # noqa: TRY400 - no bug of ours

    async def wait(self, erasure: ErasureRecord, seconds: float) -> Erased:
        """Work on this erasure; return its end, or how far it is after ``seconds``.

        Raises:
            StoreError: the registry could not be written; the erasure stays accepted, and is tried again.
        """
        task = self._task(erasure)
        await asyncio.wait({task}, timeout=seconds)
        if task.done():
            return await task
        return await self._store.read(lambda view: erasures.progress(view, erasure))

    def _task(self, erasure: ErasureRecord) -> asyncio.Task[Erased]:
        pseudonym = erasure.pseudonym
        known = self._tasks.get(pseudonym)
        if known is None:
            known = self._tasks[pseudonym] = asyncio.create_task(self._finish(erasure))
            known.add_done_callback(partial(self._ended, pseudonym))
        return known

    def _ended(self, pseudonym: str, task: asyncio.Task[Erased]) -> None:
        del self._tasks[pseudonym]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("erasure.not_finished", pseudonym=pseudonym, reason=str(error))

    async def _finish(self, erasure: ErasureRecord) -> Erased:
        find = partial(erasure_sql.find, pseudonym=erasure.pseudonym)
        while (now := await self._read(find)) is not None:
            await self._work(now)
            done = await self._store.write(partial(erasures.finish, erasure=now), urgent=False)
            if done is not None:
                log.info("erasure.done", pseudonym=done.pseudonym, **done.counts)
                return done
        return await self._read(partial(erasures.ended, erasure=erasure))

    async def _work(self, erasure: ErasureRecord) -> None:
        for step in erasures.STEPS:
            while await self._store.write(lambda tx: step(tx, erasure), urgent=False):  # noqa: B023 - awaited here
                pass
        await self._events(erasure)
        await self._commands(erasure)

    async def _events(self, erasure: ErasureRecord) -> None:
        after: int | None = 0
        while after is not None and after < erasure.last_event:
            found, after = await self._read(
                partial(
                    person_sql.naming_events,
                    project_id=erasure.project_id,
                    end_user_id=erasure.end_user_id,
                    after=after,
                )
            )
            for seqs in _parts([event.seq for event in found if event.seq <= erasure.last_event]):
                erase = partial(erasures.erase_in_events, erasure=erasure, seqs=seqs)
                await self._store.write(erase, urgent=False)

    async def _commands(self, erasure: ErasureRecord) -> None:
        for binding in await self._read(partial(erasures.bindings, erasure=erasure)):
            after = ""
            while rows := await self._read(partial(person_sql.commands_while_bound, binding=binding, after=after)):
                after = rows[-1].id
                ids = [row.id for row in rows if row.type != CommandType.FACTORY_RESET]
                await self._store.write(
                    partial(erasures.erase_commands, erasure=erasure, command_ids=ids), urgent=False
                )
        await self._texts_of_commands(erasure)

    async def _texts_of_commands(self, erasure: ErasureRecord) -> None:
        last: str | None = ""
        while last is not None:
            find = partial(
                person_sql.naming_commands,
                project_id=erasure.project_id,
                end_user_id=erasure.end_user_id,
                after=last,
            )
            found, last = await self._read(find)
            if found:
                await self._store.write(
                    partial(erasures.erase_in_commands, erasure=erasure, commands=found), urgent=False
                )

    async def _read(self, read: Callable[[View], T]) -> T:
        return await self._store.read(read, Purpose.SCANS)


def _parts(seqs: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(seqs), _AT_ONCE):
        yield seqs[start : start + _AT_ONCE]
