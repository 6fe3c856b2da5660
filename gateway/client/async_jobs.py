"""Calls about jobs of the client for asyncio. ``scripts/sync_client.py`` makes ``sync_jobs.py`` of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, Unpack

from gateway.client.arguments import JobOptions, Json, path
from gateway.client.async_transport import AsyncTransport
from gateway.models.jobs import Job, JobDevice, JobDeviceList, JobList, JobPreview, JobProgress

MOST_TARGETS_SHOWN: Final = 100


class AsyncJobCalls(AsyncTransport):
    """Calls about jobs."""

    async def create_job(
        self, name: str, action: str | Json, targets: Json, *, once: str | None = None, **options: Unpack[JobOptions]
    ) -> Job:
        """Create a job. ``targets`` has ``device_ids`` or ``filter``; see the HTTP reference for the others."""
        body = {"name": name, "action": action, "targets": targets, **options}
        return await self._post(Job, path("jobs"), body, once)

    async def preview_job(
        self, name: str, action: str | Json, targets: Json, **options: Unpack[JobOptions]
    ) -> JobPreview:
        """Return what such a job would do; nothing is changed."""
        body = {"name": name, "action": action, "targets": targets, **options, "dry_run": True}
        return await self._post(JobPreview, path("jobs"), body)

    async def list_jobs(
        self, *, status: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> JobList:
        """Return a page of jobs, newest first."""
        return await self._get(JobList, path("jobs"), status=status, limit=limit, cursor=cursor)

    async def get_job(self, job_id: str) -> Job:
        """Return a job."""
        return await self._get(Job, path("jobs", job_id))

    async def get_job_progress(self, job_id: str, *, points: int | None = None) -> JobProgress:
        """Return how many devices of a job were done, and had failed, over time."""
        return await self._get(JobProgress, path("jobs", job_id, "progress"), points=points)

    async def list_job_devices(
        self, job_id: str, *, outcome: list[str] | None = None, limit: int | None = None, cursor: str | None = None
    ) -> JobDeviceList:
        """Return a page of the targets of a job, with any of these outcomes."""
        return await self._get(
            JobDeviceList, path("jobs", job_id, "devices"), outcome=outcome, limit=limit, cursor=cursor
        )

    async def iterate_job_devices(self, job_id: str, *, outcome: list[str] | None = None) -> AsyncIterator[JobDevice]:
        """Return all targets of a job with any of these outcomes, page by page."""
        cursor: str | None = None
        while True:
            page = await self.list_job_devices(job_id, outcome=outcome, limit=MOST_TARGETS_SHOWN, cursor=cursor)
            for target in page.data:
                yield target
            cursor = page.next_cursor
            if cursor is None:
                return

    async def pause_job(self, job_id: str, *, once: str | None = None) -> Job:
        """Pause a running job."""
        return await self._post(Job, path("jobs", job_id, "pause"), {}, once)

    async def resume_job(self, job_id: str, *, once: str | None = None) -> Job:
        """Let a paused job go on."""
        return await self._post(Job, path("jobs", job_id, "resume"), {}, once)

    async def cancel_job(self, job_id: str, *, once: str | None = None) -> Job:
        """Cancel a job, and take back what no device has reported as delivered."""
        return await self._post(Job, path("jobs", job_id, "cancel"), {}, once)
