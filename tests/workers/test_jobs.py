"""The worker of jobs: nothing waits for one job or one device, and a lost lease stops it."""

import asyncio

import pytest

from gateway.core.clock import DAY_MS
from gateway.store import job_sql, lease_sql
from gateway.store.lease_sql import LeaseLostError
from gateway.workers.jobs import JobWorker
from tests.http.fixtures import api
from tests.http.support import Api, Json, body
from tests.support.faults import refuse
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


async def read_at_once(seconds: float) -> bool:
    """The broker's backlog is read."""
    del seconds
    return True


async def test_a_device_that_the_gateway_fails_at_holds_up_no_other(api: Api) -> None:
    """It fails alone, with ``internal_error``; the others of its group have their turn."""
    job = await reset(api, "recalled", *(f"BP-{number}" for number in range(4)))
    await api.store.write(lambda tx: refuse(tx, "poison", "UPDATE", "devices", "NEW.serial_number = 'BP-2'"))
    await api.store.write(lambda tx: job_sql.change(tx, job, paced_at=tx.now - 1_000))
    await JobWorker(api.store, read_at_once).step()
    found = body(await api.back_end.get(f"/v1/jobs/{job}/devices"), 200)["data"]
    assert [(each["outcome"], each["reason"]) for each in found] == [
        ("queued", None),
        ("queued", None),
        ("failed", "internal_error"),
        ("queued", None),
    ]


async def test_a_gateway_that_lost_its_lease_gives_no_turn(api: Api) -> None:
    """Another one has taken the fleet's lease: the first one's transaction is rolled back, and its work ends."""
    await reset(api, "recalled", "BP-1")
    lost = asyncio.Event()
    former = await api.store.write(lambda tx: lease_sql.acquire(tx, "fleet", lease_sql.Holder("gw_1", "a"), 0))
    await api.store.write(lambda tx: lease_sql.acquire(tx, "fleet", lease_sql.Holder("gw_2", "b"), 60_000))
    assert former is not None
    await api.settled()
    before = api.dump()
    with pytest.raises(LeaseLostError):
        await JobWorker(api.store.under(lambda: former, lost.set), read_at_once).step()
    assert lost.is_set()
    assert api.dump() == before


async def test_old_jobs_are_deleted_with_their_targets(api: Api) -> None:
    """A finished one after as long as events are kept, one that broke off in preparation after ten minutes."""
    asked = {"name": "recall", "action": "reboot", "targets": {"device_ids": ["dev_a", "dev_b"]}}
    made = body(await api.back_end.post("/v1/jobs", json=asked), 201)["id"]
    kept = await reset(api, "recalled", "BP-1")
    days = api.store.context.rules.event_history_days
    await api.store.write(lambda tx: job_sql.change(tx, made, finished_at=tx.now - days * DAY_MS - 1))
    await JobWorker(api.store, read_at_once).delete_old()
    assert [each["id"] for each in body(await api.back_end.get("/v1/jobs"), 200)["data"]] == [kept]
    assert await api.store.read(lambda view: view.value("SELECT count(*) FROM job_targets")) == 1
