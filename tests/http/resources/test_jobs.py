"""Jobs over HTTP: created, looked at, paused, resumed, cancelled; and what a bad request gets."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.domain import devices, job_creation, job_work
from gateway.http.resources import fleet as bulk
from gateway.models.job_requests import MOST_TARGETS
from gateway.models.resets import ResetDevice
from gateway.store import health_sql, job_sql
from gateway.workers.jobs import JobWorker
from tests.http.support import Api, Json, body, error
from tests.support.faults import refuse
from tests.support.receipts import receipt_of
from tests.support.wait import eventually


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


async def targets(api: Api, job: Json, query: str = "") -> list[tuple[str, str, str | None]]:
    """Device, outcome and reason of each target on the first page."""
    listed = body(await api.back_end.get(f"/v1/jobs/{job['id']}/devices{query}"), 200)["data"]
    return [(each["device_id"], each["outcome"], each["reason"]) for each in listed]


async def test_a_job_resets_its_devices(api: Api) -> None:
    """From its creation to its end: what it says of itself, what the worker does, what a device reports."""
    bound = await api.bound()
    job = await create(api, [bound["id"], "dev_never"], reason="Batch 12")
    assert job["counts"] == {
        "total": 2, "queued": 0, "delivered": 0, "executed": 0, "failed": 0, "cancelled": 0, "skipped": 1
    }  # fmt: skip
    assert (job["status"], job["name"], job["reason"]) == ("running", "recall", "Batch 12")
    assert job["action"] == {"type": "factory_reset", "params": {"recordings": "keep"}, "ttl_seconds": None}
    assert (job["pace"], job["rate_per_minute"]) == ({"per_minute": 3_000, "ramp": None}, 3_000)
    assert job["abort"] == {"failed_percent": 10, "min_done": 20}
    assert (job["created_by"], job["created_by_name"]) == (api.key_id, "back end")
    assert await targets(api, job) == [(bound["id"], "waiting", None), ("dev_never", "skipped", "not_found")]
    await work(api)
    assert (await show(api, job))["counts"]["queued"] == 1
    device = api.as_(bound["device_token"])
    (command,) = body(await device.post("/v1/devices/me/heartbeat"), 200)["commands"]
    (listed, _) = body(await api.back_end.get(f"/v1/jobs/{job['id']}/devices"), 200)["data"]
    assert (listed["command_id"], listed["serial_number"]) == (command["id"], "BP-1")
    for status in ("delivered", "executed"):
        ack = {"status": status, "receipt": receipt_of(bound["device_token"], command, status)}
        body(await device.post(f"/v1/devices/me/commands/{command['id']}/ack", json=ack), 200)
        assert (await show(api, job))["counts"][status] == 1
    ended = await show(api, job)
    assert (ended["status"], ended["rate_per_minute"]) == ("completed", None)
    told = [each["type"] for each in body(await api.back_end.get("/v1/events"), 200)["data"]]
    assert told[0] == "job.completed"


async def test_a_filter_chooses_the_devices_of_this_moment(api: Api) -> None:
    """Those that pass it in the list. One that comes later, or belongs to another project, is no target."""
    pins = await fleet(api, 2)
    await api.registered("BP-8", model="bota_note")
    other = api.as_(await api.another_key(project="two"))
    body(await other.post("/v1/devices", json={"serial_number": "BP-0", "model": "bota_pin"}), 201)
    job = await create(api, targets={"filter": {"model": "bota_pin", "status": "bound"}})
    await api.bound("BP-9")
    assert [device_id for device_id, _, _ in await targets(api, job)] == pins
    assert (await create(api, targets={"filter": {}}))["counts"]["total"] == 4


async def test_a_large_job_is_prepared_in_parts(api: Api) -> None:
    """It appears whole: until its last part is written no list has it."""
    number = 2 * job_creation.PART + 1
    ids = [f"dev_{each}" for each in range(number)]
    job = await create(api, ids, action="reboot")
    assert (job["counts"]["total"], job["counts"]["skipped"], job["status"]) == (number, number, "completed")
    await api.store.write(lambda tx: refuse(tx, "poison", "INSERT", "job_targets", f"NEW.position = {number - 1}"))
    asked = {"name": "recall", "action": "reboot", "targets": {"device_ids": ids}}
    error(await api.back_end.post("/v1/jobs", json=asked), 500, "internal_error")
    assert [each["id"] for each in body(await api.back_end.get("/v1/jobs"), 200)["data"]] == [job["id"]]
    assert await api.store.read(lambda view: view.value("SELECT count(*) FROM jobs WHERE status = 'preparing'")) == 1


async def test_a_dry_run_says_what_would_happen(api: Api) -> None:
    """To how many, and why to others not; it changes nothing, to the byte of the registry."""
    free, pending, unbound = [*(await fleet(api, 2)), (await api.registered("BP-9"))["id"]]
    await api.reset(pending)
    await api.settled()
    before = api.dump()
    ids = [free, pending, unbound, "dev_never"]
    preview = await create(api, ids, 200, dry_run=True)
    assert preview["counts"] == {"would_queue": 2, "already_pending": 1, "not_found": 1}
    assert (preview["total"], preview["has_more"]) == (4, False)
    assert [(each["device_id"], each["outcome"], each["reason"]) for each in preview["devices"]] == [
        (free, "would_queue", None),
        (pending, "skipped", "already_pending"),
        (unbound, "would_queue", None),
        ("dev_never", "skipped", "not_found"),
    ]
    reboot = await create(api, ids, 200, dry_run=True, action="reboot")
    assert reboot["counts"] == {"would_queue": 1, "not_bound": 2, "not_found": 1}
    assert api.dump() == before


async def test_a_dry_run_says_how_many_wait(api: Api) -> None:
    """Of those that it does not skip: offline, never heard, or seen over Bluetooth alone; each counts once."""
    bound = [await api.bound(f"BP-{number}") for number in range(5)]
    for each in bound[:3]:
        body(await api.as_(each["device_token"]).post("/v1/devices/me/heartbeat"), 200)
    beat = {"connection_type": ["ble"]}
    body(await api.back_end.post(f"/v1/devices/{bound[3]['id']}/heartbeat", json=beat), 200)
    ids = [each["id"] for each in bound]
    await api.reset(ids[0])
    preview = await create(api, [*ids, "dev_never"], 200, dry_run=True)
    assert preview["waits"] == {"offline": 0, "never_seen": 1, "bluetooth_only": 1}
    await api.store.write(lambda tx: health_sql.set_offline(tx, devices.require(tx, api.project_id, ids[1]).pk))
    preview = await create(api, [*ids, "dev_never"], 200, dry_run=True)
    assert preview["waits"] == {"offline": 1, "never_seen": 1, "bluetooth_only": 1}
    assert preview["counts"] == {"would_queue": 4, "already_pending": 1, "not_found": 1}


async def test_a_dry_run_shows_a_thousand(api: Api) -> None:
    """It counts all."""
    preview = await create(api, [f"dev_{each}" for each in range(1_001)], 200, dry_run=True)
    assert (preview["total"], len(preview["devices"]), preview["has_more"]) == (1_001, 1_000, True)
    assert preview["counts"] == {"not_found": 1_001}


async def test_a_large_factory_reset_is_confirmed_by_its_count(api: Api) -> None:
    """More than 100 devices: without the count, or with another one, nothing is done and the answer has it."""
    ids = [f"dev_{each}" for each in range(101)]
    for given in ({}, {"confirm_count": 100}):
        asked = {"name": "recall", "action": "factory_reset", "targets": {"device_ids": ids}, **given}
        refused = error(await api.back_end.post("/v1/jobs", json=asked), 409, "confirmation_needed")
        assert refused["details"] == {"field": "confirm_count", "count": 101}
    assert body(await api.back_end.get("/v1/jobs"), 200)["data"] == []
    await create(api, ids, confirm_count=101)
    await create(api, ids[:100])
    await create(api, ids, action="reboot")
    asked = {"name": "recall", "action": "reboot", "targets": {"device_ids": ids[:1]}, "confirm_count": 2}
    error(await api.back_end.post("/v1/jobs", json=asked), 409, "confirmation_needed")


async def test_pause_resume_and_cancel(api: Api) -> None:
    """Each answers with the job; the second of each is a conflict that names the status."""
    device_id, other = await fleet(api, 2)
    job = await create(api, [device_id, other], pace={"per_minute": 1})
    path = f"/v1/jobs/{job['id']}"
    paused = body(await api.back_end.post(f"{path}/pause"), 200)
    assert (paused["status"], paused["rate_per_minute"]) == ("paused", None)
    assert paused["paused_at"] is not None
    refused = error(await api.back_end.post(f"{path}/pause"), 409, "job_not_running")
    assert refused["details"] == {"status": "paused"}
    assert "GET /v1/jobs/" in refused["message"]
    await work(api)
    assert (await show(api, job))["counts"]["queued"] == 0
    assert body(await api.back_end.post(f"{path}/resume"), 200)["status"] == "running"
    error(await api.back_end.post(f"{path}/resume"), 409, "job_not_paused")
    await work(api)
    assert (await show(api, job))["counts"]["queued"] == 1
    cancelled = body(await api.back_end.post(f"{path}/cancel"), 200)
    assert (cancelled["status"], cancelled["finished_at"] is not None) == ("cancelled", True)
    for verb in ("pause", "resume", "cancel"):
        answer = await api.back_end.post(f"{path}/{verb}")
        assert body(answer, 409)["error"]["details"] == {"status": "cancelled"}
    await work(api)
    assert (await show(api, job))["counts"]["cancelled"] == 2
    (command,) = body(await api.back_end.get(f"/v1/devices/{device_id}/commands"), 200)["data"]
    assert command["status"] == "cancelled"


async def test_lists_are_paged_and_filtered(api: Api) -> None:
    """Jobs newest first; targets in the order of their turns, also of several outcomes."""
    device_id, other = await fleet(api, 2)
    made = [await create(api, ["dev_a", device_id, "dev_b", other, "dev_c"], action="reboot") for _ in range(3)]
    await create(api, ["dev_a"])
    first = body(await api.back_end.get("/v1/jobs?status=running&limit=2"), 200)
    assert [each["id"] for each in first["data"]] == [made[2]["id"], made[1]["id"]]
    rest = body(await api.back_end.get(f"/v1/jobs?status=running&limit=2&cursor={first['next_cursor']}"), 200)
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == ([made[0]["id"]], False)
    job = made[0]
    await api.store.write(
        lambda tx: tx.run("UPDATE job_targets SET outcome = 'failed' WHERE job_id = ? AND position = 2", job["id"])
    )
    query = "?outcome=skipped&outcome=failed&limit=2"
    page = body(await api.back_end.get(f"/v1/jobs/{job['id']}/devices{query}"), 200)
    assert [each["device_id"] for each in page["data"]] == ["dev_a", "dev_b"]
    after = body(await api.back_end.get(f"/v1/jobs/{job['id']}/devices{query}&cursor={page['next_cursor']}"), 200)
    assert ([each["device_id"] for each in after["data"]], after["next_cursor"]) == (["dev_c"], None)
    assert [name for name, _, _ in await targets(api, job, "?outcome=waiting")] == [device_id, other]
    assert len(await targets(api, job)) == 5
    for wrong in ("/v1/jobs?cursor=dev_1", f"/v1/jobs/{job['id']}/devices?cursor=x", "/v1/jobs?status=open"):
        error(await api.back_end.get(wrong), 400, "invalid_request")


async def test_jobs_of_another_project_are_not_found(api: Api) -> None:
    """Not shown, not paused, not cancelled."""
    job = await create(api, ["dev_a"])
    other = api.as_(await api.another_key(project="two"))
    assert body(await other.get("/v1/jobs"), 200)["data"] == []
    for method, path in (("GET", ""), ("GET", "/devices"), ("POST", "/pause"), ("POST", "/cancel")):
        error(await other.request(method, f"/v1/jobs/{job['id']}{path}"), 404, "not_found")


async def test_a_key_that_reads_creates_and_cancels_nothing(api: Api) -> None:
    """It may look."""
    job = await create(api, ["dev_a"])
    reader = api.as_(await api.another_key("devices:read"))
    body(await reader.get(f"/v1/jobs/{job['id']}"), 200)
    asked = {"name": "recall", "action": "factory_reset", "targets": {"device_ids": ["dev_a"]}}
    error(await reader.post("/v1/jobs", json=asked), 403, "insufficient_scope")
    error(await reader.post(f"/v1/jobs/{job['id']}/cancel"), 403, "insufficient_scope")


async def test_a_repeated_request_makes_one_job(api: Api) -> None:
    """``Idempotency-Key``, of a small job and of one that is prepared in parts."""
    for number in (1, job_creation.PART + 1):
        ids = [f"dev_{each}" for each in range(number)]
        asked = {"name": f"recall {number}", "action": "reboot", "targets": {"device_ids": ids}}
        headers = {"Idempotency-Key": f"k{number}"}
        first = await api.back_end.post("/v1/jobs", json=asked, headers=headers)
        again = await api.back_end.post("/v1/jobs", json=asked, headers=headers)
        assert body(first, 201) == body(again, 201)
    assert len(body(await api.back_end.get("/v1/jobs"), 200)["data"]) == 2


# --- bad requests -----------------------------------------------------------------------------------------------------

GOOD: Json = {"name": "recall", "action": "factory_reset", "targets": {"device_ids": ["dev_1"]}}
LONG_AGO = (datetime.now(UTC) - timedelta(days=1)).isoformat()


@pytest.mark.parametrize(
    ("more", "field", "remedy"),
    [
        ({"targets": {"device_ids": []}}, "targets.device_ids", "at least 1"),
        ({"targets": {}}, "targets", "either device_ids or filter"),
        ({"targets": {"device_ids": ["dev_1"], "filter": {}}}, "targets", "Leave one of them out"),
        ({"targets": {"filter": {"search": "nowhere"}}}, "targets.filter", "GET /v1/devices"),
        ({"targets": {"filter": {"limit": 5}}}, "targets.filter.limit", "unknown field"),
        ({"targets": {"filter": {"status": "lost"}}}, "targets.filter.status", "'bound' or 'unbound'"),
        ({"targets": {"device_ids": ["d"] * (MOST_TARGETS + 1)}}, "targets.device_ids", "at most 100000"),
        ({"pace": {"per_minute": 0}}, "pace.per_minute", "greater than or equal to 1"),
        ({"pace": {"per_minute": 60_001}}, "pace.per_minute", "less than or equal to 60000"),
        (
            {"pace": {"ramp": {"from_per_minute": 0, "double_after": 60}}},
            "pace.ramp.from_per_minute",
            "greater than or equal to 1",
        ),
        ({"pace": {"ramp": {"from_per_minute": 1, "double_after": 0}}}, "pace.ramp.double_after", "equal to 1"),
        (
            {"pace": {"per_minute": 5, "ramp": {"from_per_minute": 6, "double_after": 1}}},
            "pace.ramp.from_per_minute",
            "lower it",
        ),
        ({"abort": {"failed_percent": 0}}, "abort.failed_percent", "equal to 1"),
        ({"abort": {"min_done": 0}}, "abort.min_done", "equal to 1"),
        ({"start_at": LONG_AGO}, "start_at", "Leave it out to start at once"),
        ({"start_at": "tomorrow"}, "start_at", "RFC 3339"),
        ({"action": "explode"}, "action.type", "'factory_reset'"),
        ({"action": "set_grant_key"}, "action", "gateway signing-keys deliver"),
        ({"action": {"type": "factory_reset", "params": {"recordings": "sell"}}}, "action", "'keep' or 'wipe'"),
        ({"action": {"type": "factory_reset", "ttl_seconds": 5}}, "action", "Leave ttl_seconds out"),
        ({"action": {"type": "reboot", "ttl_seconds": 0}}, "action.ttl_seconds", "equal to 1"),
        ({"name": " "}, "name", "can be seen"),
        ({"name": "of eu_42"}, "name", "should not name an end user"),
        ({"reason": "of eu_42"}, "reason", "should not name an end user"),
        ({"confirm_count": -1}, "confirm_count", "equal to 0"),
        ({"tragets": {}}, "tragets", "Did you mean 'targets'?"),
    ],
)
async def test_a_bad_request_names_the_field_and_the_remedy(api: Api, more: Json, field: str, remedy: str) -> None:
    """And nothing is done."""
    refused = error(await api.back_end.post("/v1/jobs", json={**GOOD, **more}), 400, "invalid_request")
    assert refused["details"]["field"] == field
    assert refused["message"].startswith(f"{field}:")
    assert remedy in refused["message"]
    assert await api.store.read(lambda view: view.value("SELECT count(*) FROM jobs")) == 0


async def test_too_large_a_body_is_refused(api: Api) -> None:
    """4 MiB for this call alone."""
    asked = {**GOOD, "reason": "x" * 4 * 2**20}
    refused = error(await api.back_end.post("/v1/jobs", json=asked), 413, "payload_too_large")
    assert refused["details"] == {"max_body_bytes": 4 * 2**20}


# --- bulk reset -------------------------------------------------------------------------------------------------------


async def test_a_bulk_reset_is_a_job(api: Api) -> None:
    """With a target for each device and its outcome; it is completed by the last report."""
    bound = [await api.bound(f"BP-{number}") for number in range(3)]
    one, pending, broken = (each["id"] for each in bound)
    await api.reset(pending)
    await api.store.write(lambda tx: refuse(tx, "poison", "UPDATE", "devices", f"NEW.id = '{broken}'"))
    asked = {"device_ids": [one, pending, "dev_never", broken], "reason": "Batch 12", "recordings": "wipe"}
    body(await api.back_end.post("/v1/devices/bulk/reset", json=asked), 200)
    (job,) = body(await api.back_end.get("/v1/jobs"), 200)["data"]
    assert (job["name"], job["reason"], job["status"], job["abort"]) == ("Bulk reset", "Batch 12", "running", None)
    assert job["action"]["params"] == {"recordings": "wipe"}
    assert await targets(api, job) == [
        (one, "queued", None),
        (pending, "skipped", "already_pending"),
        ("dev_never", "skipped", "not_found"),
        (broken, "failed", "internal_error"),
    ]
    assert job["counts"] == {
        "total": 4, "queued": 1, "delivered": 0, "executed": 0, "failed": 1, "cancelled": 0, "skipped": 2
    }  # fmt: skip
    body(await api.back_end.post("/v1/devices/bulk/reset/cancel", json={"device_ids": [one]}), 200)
    assert (await show(api, job))["status"] == "completed"


async def test_a_bulk_reset_that_broke_off_is_finished_by_the_worker(api: Api) -> None:
    """After a minute, at the usual pace: until then its request may still be at work."""
    ids = await fleet(api, 3)
    made = await api.store.write(
        lambda tx: job_creation.create_for_bulk_reset(tx, api.project_id, api.key_id, ids, ResetDevice())
    )
    await work(api)
    assert (await api.store.read(lambda view: job_sql.by_id(view, made.id))).queued == 0
    await api.store.write(lambda tx: job_sql.change(tx, made.id, held_until=tx.now))

    async def is_finished() -> bool:
        await work(api)
        return (await api.store.read(lambda view: job_sql.by_id(view, made.id))).queued == 3

    await eventually(is_finished, "the worker has given each target its turn")


async def test_a_repeated_bulk_reset_does_no_device_twice_and_no_new_owner(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request broke off, the worker went on, a device has a new owner; then the client repeats the request."""
    done, sold, waiting = await fleet(api, 3)
    request: Any = {"json": {"device_ids": [done, sold, waiting]}, "headers": {"Idempotency-Key": "recall"}}
    with monkeypatch.context() as broken:
        broken.setattr(bulk, "_each", refuse_all)
        assert (await api.back_end.post("/v1/devices/bulk/reset", **request)).status_code == 500
    (job,) = body(await api.back_end.get("/v1/jobs"), 200)["data"]
    await api.store.write(lambda tx: job_work.take_turns(tx, job_sql.change(tx, job["id"], held_until=0).id, limit=1))
    body(
        await api.back_end.post(f"/v1/devices/{done}/bind", json={"end_user_id": "eu_2", "supersede_reset": True}), 200
    )
    body(await api.back_end.post(f"/v1/devices/{sold}/unbind"), 200)
    body(await api.back_end.post(f"/v1/devices/{sold}/bind", json={"end_user_id": "eu_2"}), 200)
    told = body(await api.back_end.post("/v1/devices/bulk/reset", **request), 200)["data"]
    assert [(each["id"], each["outcome"], (each["error"] or {}).get("code")) for each in told] == [
        (done, "reset", None),
        (sold, "failed", "device_already_bound"),
        (waiting, "reset", None),
    ]
    for device_id in (done, sold):
        assert body(await api.back_end.get(f"/v1/devices/{device_id}"), 200)["end_user_id"] == "eu_2"
    assert await targets(api, job) == [
        (done, "cancelled", None),
        (sold, "skipped", "bound_anew"),
        (waiting, "queued", None),
    ]


async def refuse_all(*_: object) -> None:
    """Break off, as a kill between two transactions does."""
    raise RuntimeError("killed")
