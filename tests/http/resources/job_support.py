"""Jobs of a test over HTTP, in short words."""

from datetime import datetime
from typing import Any

from gateway.workers.jobs import JobWorker
from tests.http.support import Api, Json, body


async def taken_in(seconds: float) -> bool:
    """The broker's backlog is read."""
    del seconds
    return True


async def work(api: Api) -> None:
    """One round of the worker."""
    worker = JobWorker(api.store, taken_in)
    await worker.step()
    await worker.take_back()


async def create(api: Api, device_ids: list[str] | None = None, status: int = 201, **more: Any) -> Json:
    """The answer to a request for a job: a factory reset of these devices unless told otherwise."""
    asked = {"name": "recall", "action": "factory_reset", "targets": {"device_ids": device_ids}, **more}
    return body(await api.back_end.post("/v1/jobs", json=asked), status)


async def fleet(api: Api, number: int) -> list[str]:
    """So many bound devices."""
    return [(await api.bound(f"BP-{each}"))["id"] for each in range(number)]


async def show(api: Api, job: Json) -> Json:
    """The job as it is now."""
    return body(await api.back_end.get(f"/v1/jobs/{job['id']}"), 200)


async def progress(api: Api, job: Json, query: str = "") -> list[tuple[int, int, int]]:
    """Whole seconds since the start, what was done and what had failed by then, at each point."""
    started = (await show(api, job))["started_at"]
    data = body(await api.back_end.get(f"/v1/jobs/{job['id']}/progress{query}"), 200)["data"]
    return [(round(_seconds_between(started, each["at"])), each["done"], each["failed"]) for each in data]


def _seconds_between(one: str, other: str) -> float:
    return (datetime.fromisoformat(other) - datetime.fromisoformat(one)).total_seconds()


async def targets(api: Api, job: Json, query: str = "") -> list[tuple[str, str, str | None]]:
    """Device, outcome and reason of each target on the first page."""
    listed = body(await api.back_end.get(f"/v1/jobs/{job['id']}/devices{query}"), 200)["data"]
    return [(each["device_id"], each["outcome"], each["reason"]) for each in listed]
