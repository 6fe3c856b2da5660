"""Worker of jobs: starts them, gives targets their turns, takes commands back, and deletes old jobs.

All that it knows is in the registry, so a restart or another gateway goes on where it was. It runs under the lease of
the fleet: each of its writes checks that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import structlog

from gateway.domain import job_pace, job_work
from gateway.errors import StoreError
from gateway.models.jobs import JobStatus
from gateway.store import Store, job_sql
from gateway.store.job_sql import JobRecord
from gateway.workers.rounds import repeat

log = structlog.get_logger()

INTERVAL_SECONDS: Final = 0.25
"""How often the worker looks for work. A turn comes at most this late."""
DELETE_SECONDS: Final = 600.0
"""Time between two looks for old jobs."""
BACKLOG_SECONDS: Final = 10.0
"""How long to wait until the broker's backlog is read, before commands that were sent are taken back."""


class JobWorker:
    """Works on all jobs, one after the other. ``taken_in`` waits for the broker's backlog, for so many seconds."""

    def __init__(self, store: Store, taken_in: Callable[[float], Awaitable[bool]]) -> None:
        self._store = store
        self._taken_in = taken_in

    async def run(self) -> None:
        """Work until cancelled. Taking back may wait for the broker; meanwhile other jobs keep their pace.

        Raises:
            LeaseLostError: another gateway does this by now.
        """
        async with asyncio.TaskGroup() as group:
            for work, seconds in (
                (self.step, INTERVAL_SECONDS),
                (self.take_back, INTERVAL_SECONDS),
                (self.delete_old, DELETE_SECONDS),
            ):
                group.create_task(repeat("jobs", self._store, work, seconds))

    async def step(self) -> None:
        """Start the jobs that are due, and give targets their turns."""
        now = self._store.context.clock()
        for job in await self._store.read(partial(job_sql.with_work, now=now)):
            if job.status == JobStatus.SCHEDULED:
                await self._store.write(partial(job_work.start, job_id=job.id), urgent=False)
                log.info("job.started", job_id=job.id)
            elif job_work.is_due(job, now):
                await self._take_turns(job)

    async def take_back(self) -> None:
        """Take back the commands of jobs that were cancelled."""
        for job in await self._store.read(job_sql.taking_back):
            await self._take_back(job)

    async def _take_turns(self, job: JobRecord) -> None:
        """Give targets their turns in groups, a batch at most."""
        taken = 0
        while taken < job_pace.BATCH:
            done = await self._group(job.id)
            taken += done
            if done < job_work.GROUP:
                return

    async def _group(self, job_id: str) -> int:
        try:
            return await self._store.write(partial(job_work.take_turns, job_id=job_id), urgent=False)
        except StoreError:
            raise
        except Exception:  # one device of the group: then each gets a separate transaction
            log.exception("job.group_failed", job_id=job_id)
        return await self._one_by_one(job_id)

    async def _one_by_one(self, job_id: str) -> int:
        taken = 0
        for _ in range(job_work.GROUP):
            try:
                taken += await self._store.write(partial(job_work.take_turns, job_id=job_id, limit=1), urgent=False)
            except StoreError:
                raise
            except Exception:
                log.exception("job.device_failed", job_id=job_id)
                await self._store.write(partial(job_work.give_up, job_id=job_id), urgent=False)
                taken += 1
        return taken

    async def _take_back(self, job: JobRecord) -> None:
        while await self._store.write(partial(job_work.cancel_waiting, job_id=job.id), urgent=False):
            pass
        if not await self._take_back_queued(job.id, taken_in=False):
            if not await self._taken_in(BACKLOG_SECONDS):
                return  # the next round tries again
            if not await self._take_back_queued(job.id, taken_in=True):
                return
        await self._store.write(partial(job_work.end_taking_back, job_id=job.id), urgent=False)
        log.info("job.taken_back", job_id=job.id)

    async def _take_back_queued(self, job_id: str, *, taken_in: bool) -> bool:
        """Cancel the commands that are not delivered; return whether none is left that needs the backlog."""
        after, left = -1, 0
        while targets := await self._store.read(
            partial(job_work.queued, job_id=job_id, after=after, limit=job_work.GROUP)
        ):
            after = targets[-1].position
            left += await self._store.write(
                partial(job_work.take_back, job_id=job_id, targets=targets, taken_in=taken_in), urgent=False
            )
        return left == 0

    async def delete_old(self) -> None:
        """Delete jobs that broke off in preparation, and those older than events are kept, in short transactions."""
        now, days = self._store.context.clock(), self._store.context.rules.event_history_days
        while found := await self._store.read(partial(job_work.deletable, now=now, history_days=days)):
            for job_id in found:
                while await self._store.write(partial(job_work.delete, job_id=job_id), urgent=False):
                    pass
                log.info("job.deleted", job_id=job_id)
