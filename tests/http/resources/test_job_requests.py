"""Requests about jobs that are refused, and bulk resets, which are jobs inside."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.domain import job_creation, job_work
from gateway.http.resources import fleet as bulk
from gateway.models.job_requests import MOST_TARGETS
from gateway.models.resets import ResetDevice
from gateway.store import job_sql
from tests.http.resources.job_support import fleet, show, targets, work
from tests.http.support import Api, Json, body, error
from tests.support.faults import refuse
from tests.support.wait import eventually

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
