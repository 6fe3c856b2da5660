"""Jobs over HTTP: created, looked at, paused, resumed, cancelled."""

from functools import partial

from gateway.core.clock import HOUR_MS, to_rfc3339
from gateway.domain import devices, job_creation
from gateway.store import Tx, health_sql
from tests.http.resources.job_support import create, fleet, progress, show, targets, work
from tests.http.support import Api, body, error
from tests.support.faults import refuse
from tests.support.receipts import receipt_of


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


def _run(sql: str, values: tuple[object, ...], tx: Tx) -> None:
    tx.run(sql, *values)


async def test_the_progress_of_a_job_over_time(api: Api) -> None:
    """From its start on, in at most so many points; the last has all that is done. Unknown devices count at once."""
    first, second, third = await fleet(api, 3)
    job = await create(api, ["dev_a", first, second, third], action="reboot")
    assert (await progress(api, job))[0][1:] == (1, 0)
    ended = """UPDATE job_targets SET outcome = ?, changed_at = (SELECT started_at FROM jobs WHERE id = ?) + ?
        WHERE job_id = ? AND position = ?"""
    for seconds, position, outcome in ((60, 1, "executed"), (120, 2, "failed"), (240, 3, "delivered")):
        values = (outcome, job["id"], seconds * 1000, job["id"], position)
        await api.store.write(partial(_run, ended, values))
    assert [each[1:] for each in await progress(api, job)] == [(1, 0), (2, 0), (3, 1)]
    assert [each[0] for each in await progress(api, job)][1:] == [60, 120]
    assert [each[1:] for each in await progress(api, job, "?points=2")] == [(2, 0), (3, 1)]
    for wrong in ("1", "1001", "x"):
        told = error(await api.back_end.get(f"/v1/jobs/{job['id']}/progress?points={wrong}"), 400, "invalid_request")
        assert "points" in told["message"]


async def test_a_job_that_has_not_started_has_no_progress(api: Api) -> None:
    """Unknown devices of it are done all the same, but no time has begun."""
    job = await create(api, ["dev_a", *await fleet(api, 1)], start_at=to_rfc3339(api.clock() + HOUR_MS))
    assert await progress(api, job) == []


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
