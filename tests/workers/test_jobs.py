"""The worker of jobs: one job does not wait for another."""

import asyncio

from gateway.workers.jobs import JobWorker
from tests.http.fixtures import api
from tests.http.support import Api, Json, body
from tests.support.wait import eventually

__all__ = ["api"]


async def reset(api: Api, name: str, *serials: str) -> str:
    """A job that resets new devices; its id."""
    ids = [(await api.bound(serial))["id"] for serial in serials]
    asked = {"name": name, "action": "factory_reset", "targets": {"device_ids": ids}}
    job: str = body(await api.back_end.post("/v1/jobs", json=asked), 201)["id"]
    return job


async def counts(api: Api, job_id: str) -> Json:
    """The counts of a job."""
    found: Json = body(await api.back_end.get(f"/v1/jobs/{job_id}"), 200)["counts"]
    return found


async def test_a_job_that_waits_for_the_broker_holds_up_no_other(api: Api) -> None:
    """Commands that were sent are taken back once the broker's backlog is read. Until then other jobs go on."""
    asked, read = asyncio.Event(), asyncio.Event()

    async def taken_in(_: float) -> bool:
        asked.set()
        await read.wait()
        return True

    api.store.context.link.is_up = True  # so commands count as sent
    working = asyncio.create_task(JobWorker(api.store, taken_in).run())
    try:
        recalled = await reset(api, "recalled", "BP-1")

        async def is_queued(job_id: str, number: int) -> bool:
            return bool((await counts(api, job_id))["queued"] == number)

        await eventually(lambda: is_queued(recalled, 1), "the reset is queued")
        body(await api.back_end.post(f"/v1/jobs/{recalled}/cancel"), 200)
        await asked.wait()
        other = await reset(api, "other", "BP-2", "BP-3")
        await eventually(lambda: is_queued(other, 2), "the other job goes on")
        assert (await counts(api, recalled))["queued"] == 1
        read.set()
        await eventually(lambda: is_queued(recalled, 0), "the reset is taken back")
        assert (await counts(api, recalled))["cancelled"] == 1
    finally:
        working.cancel()
        await asyncio.wait((working,))
