"""Jobs as they may be found in the field, worked on by the gateway's own worker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.store import Tx
from gateway.workers.jobs import JobWorker
from tests.http.page.resets import MINUTE_MS, REPORT, answered
from tests.http.support import Api, Json, body
from tests.support.wait import eventually


@asynccontextmanager
async def working(api: Api) -> AsyncIterator[None]:
    """Work on jobs meanwhile, as a gateway does."""
    worker = asyncio.create_task(JobWorker(api.store, api.services.taken_in).run())
    yield
    worker.cancel()
    await asyncio.wait([worker])


async def created(api: Api, devices: list[Json], **asked: object) -> Json:
    """A job that resets these devices."""
    job = {"name": "Recall 12", "action": "factory_reset", "targets": {"device_ids": [each["id"] for each in devices]}}
    return body(await api.back_end.post("/v1/jobs", json={**job, **asked}), 201)


async def queued(api: Api, job: Json, number: int) -> None:
    """Wait until so many resets of the job are made."""

    async def are() -> bool:
        counts = body(await api.back_end.get(f"/v1/jobs/{job['id']}"), 200)["counts"]
        return bool(sum(counts[each] for each in ("queued", "delivered", "executed", "failed")) >= number)

    await eventually(are, f"{number} resets are made")


async def reports(api: Api, bound: Json, *statuses: str) -> None:
    """What a device says of the reset that a job has queued for it."""
    command = body(await api.back_end.get(f"/v1/devices/{bound['id']}/commands"), 200)["data"][0]
    result = REPORT if statuses[-1] == "executed" else None
    await answered(api, {**bound, "command": command}, *statuses[:-1])
    await answered(api, {**bound, "command": command}, statuses[-1], result=result)


async def with_jobs(api: Api, devices: int) -> Json:
    """Have jobs of several kinds; return one that runs, with outcomes of every sort."""
    bound = [await api.bound(f"BP-0200{number:02}") for number in range(devices)]
    later = {"name": "Ward 5 moves out", "start_at": "2100-01-01T06:00:00Z"}
    await created(api, bound[:3], **later, reason="The ward is closed.")
    done = await created(api, bound[:4], name="Returned in October")
    await queued(api, done, 4)
    for each in bound[:4]:
        await reports(api, each, "delivered", "executed")
    unknown = {"id": "dev_01M8M3ZQ0000000000000000XX"}
    running = await created(
        api, [unknown, *bound[4:]], reason="Recall of firmware 1.4.2", pace={"per_minute": 600, "ramp": None}
    )
    await queued(api, running, devices - 6)
    body(await api.back_end.post(f"/v1/jobs/{running['id']}/pause"), 200)
    for each in bound[4 : devices // 2]:
        await reports(api, each, "delivered", "executed")
    await reports(api, bound[devices // 2], "delivered", "failed")
    await reports(api, bound[devices // 2 + 1], "delivered")
    await api.store.write(lambda tx: _begin_earlier(tx, running["id"], devices))
    return running


def _begin_earlier(tx: Tx, job_id: str, minutes: int) -> None:
    """Have the job begin so long ago, with an outcome each minute."""
    tx.run(
        "UPDATE jobs SET created_at = created_at - ?, started_at = started_at - ? WHERE id = ?",
        minutes * MINUTE_MS,
        minutes * MINUTE_MS,
        job_id,
    )
    tx.run(
        "UPDATE job_targets SET changed_at = changed_at - (? - position) * ? WHERE job_id = ?",
        minutes - 2,
        MINUTE_MS,
        job_id,
    )
