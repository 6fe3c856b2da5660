"""Many devices at once over HTTP: counted, reset, and their resets taken back."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from gateway.domain import devices
from gateway.store import health_sql, outbox_sql
from tests.http.support import Api, Json, body, error, serving
from tests.support.faults import refuse
from tests.support.receipts import receipt_of
from tests.support.wait import eventually

NOTHING = {
    "total_count": 0,
    "online_count": 0,
    "offline_count": 0,
    "never_seen_count": 0,
    "low_battery_count": 0,
    "storage_full_count": 0,
    "pending_reset_count": 0,
    "is_exact": True,
}


async def stats(api: Api, key: str | None = None) -> Json:
    """What the key's project is told."""
    return body(await api.as_(key or api.key).get("/v1/devices/stats"), 200)


async def reset(api: Api, device_ids: list[str], **more: Any) -> list[Json]:
    """The outcomes of a bulk reset."""
    answer = await api.back_end.post("/v1/devices/bulk/reset", json={"device_ids": device_ids, **more})
    outcomes: list[Json] = body(answer, 200)["data"]
    return outcomes


# --- stats ------------------------------------------------------------------------------------------------------------


async def test_an_empty_project_counts_nothing(api: Api) -> None:
    """Zeros, not nulls."""
    assert await stats(api) == {**NOTHING, "project_id": api.project_id}


async def test_stats_count_each_device_in_each_of_its_states(api: Api) -> None:
    """Bound, unbound, online, low, full and waiting for a reset; deleted ones no more."""
    tokens = {serial: await api.bound(serial) for serial in ("low", "full", "both", "reset", "gone")}
    await api.registered("silent")
    away = await api.bound("away")
    body(await api.as_(away["device_token"]).post("/v1/devices/me/heartbeat"), 200)
    await api.store.write(lambda tx: health_sql.set_offline(tx, devices.require(tx, api.project_id, away["id"]).pk))
    beats = {
        "low": {"battery_percent": 5},
        "full": {"flags": 4},
        "both": {"battery_percent": 5, "flags": 6},
        "gone": {},
    }
    for serial, beat in beats.items():
        body(await api.as_(tokens[serial]["device_token"]).post("/v1/devices/me/heartbeat", json=beat), 200)
    await api.reset(tokens["reset"]["id"])
    body(await api.back_end.delete(f"/v1/devices/{tokens['gone']['id']}"), 200)
    assert await stats(api) == {
        "project_id": api.project_id,
        "total_count": 6,
        "online_count": 3,
        "offline_count": 1,
        "never_seen_count": 2,
        "low_battery_count": 2,
        "storage_full_count": 2,
        "pending_reset_count": 1,
        "is_exact": True,
    }


async def test_an_open_reset_is_counted_until_its_end(api: Api) -> None:
    """Pending and delivered; not once it is cancelled."""
    bound = await api.bound()
    command = await api.reset(bound["id"])
    path = f"/v1/devices/{bound['id']}/commands/{command['id']}"
    assert (await stats(api))["pending_reset_count"] == 1
    body(await api.back_end.post(f"{path}/cancel"), 200)
    assert (await stats(api))["pending_reset_count"] == 0


async def test_stats_see_one_project_alone(api: Api) -> None:
    """Another project's devices, online and with an open reset, are not counted."""
    bound = await api.bound()
    body(await api.as_(bound["device_token"]).post("/v1/devices/me/heartbeat", json={"battery_percent": 1}), 200)
    await api.reset((await api.bound("BP-2"))["id"])
    other = await stats(api, await api.another_key(project="two"))
    assert {name: count for name, count in other.items() if name != "project_id"} == NOTHING
    assert other["project_id"] != api.project_id


# --- bulk reset -------------------------------------------------------------------------------------------------------


async def test_each_device_has_its_outcome(api: Api) -> None:
    """In the order of the request, each once; no device holds up another; unknown devices are not found."""
    one, two, pending = [(await api.bound(f"BP-{number}"))["id"] for number in range(3)]
    await api.reset(pending)
    deleted = (await api.registered("BP-8"))["id"]
    await api.back_end.delete(f"/v1/devices/{deleted}")
    other = api.as_(await api.another_key(project="two"))
    foreign = body(await other.post("/v1/devices", json={"serial_number": "BP-0"}), 201)["id"]
    asked = [one, "dev_never", pending, foreign, one, deleted, "not an id", two, one]
    outcomes = await reset(api, asked)
    assert [(each["id"], each["outcome"]) for each in outcomes] == [
        (one, "reset"),
        ("dev_never", "not_found"),
        (pending, "already_pending"),
        (foreign, "not_found"),
        (deleted, "not_found"),
        ("not an id", "not_found"),
        (two, "reset"),
    ]
    for each in outcomes:
        if each["outcome"] == "not_found":
            assert each["error"]["code"] == "not_found"
            assert f"There is no device '{each['id']}' in this project." in each["error"]["message"]
        else:
            assert each["error"] is None
    for device_id in (one, two):
        device = body(await api.back_end.get(f"/v1/devices/{device_id}"), 200)
        assert (device["status"], device["binding_generation"]) == ("unbound", 2)
        (command,) = body(await api.back_end.get(f"/v1/devices/{device_id}/commands"), 200)["data"]
        assert (command["type"], command["status"]) == ("factory_reset", "pending")
    assert body(await other.get(f"/v1/devices/{foreign}/commands"), 200)["data"] == []
    assert [each["outcome"] for each in await reset(api, [one, two])] == ["already_pending"] * 2


async def test_a_dry_run_changes_nothing(api: Api) -> None:
    """It says what would happen, to the byte of the registry."""
    one, pending = [(await api.bound(f"BP-{number}"))["id"] for number in range(2)]
    await api.reset(pending)
    await stats(api)  # a first use of the key by this client
    await api.settled()
    before = api.dump()
    outcomes = await reset(api, [one, "dev_never", pending], dry_run=True)
    assert [each["outcome"] for each in outcomes] == ["would_reset", "not_found", "already_pending"]
    assert api.dump() == before


async def test_commands_of_a_bulk_reset_wait_for_their_turn(api: Api) -> None:
    """Fifty a second unless set otherwise, in the order of the request; the answer doesn't wait for that."""
    devices = [(await api.bound(f"BP-{number}"))["id"] for number in range(5)]
    await api.settled()
    api.broker.switch(up=False)
    await reset(api, devices)
    rows = await api.store.read(
        lambda view: view.all(
            "SELECT d.id, o.not_before FROM outbox o JOIN devices d ON d.pk = o.device_pk ORDER BY o.not_before"
        )
    )
    assert [row["id"] for row in rows] == devices
    turns = [row["not_before"] for row in rows]
    assert all(later - earlier >= 20 for earlier, later in pairwise(turns))
    assert turns[-1] - turns[0] < 20 * len(devices) + 10_000


async def test_a_device_over_http_gets_its_reset_before_its_turn(api: Api) -> None:
    """The pace is for devices that receive the reset from the broker."""
    bound = await api.bound()
    api.broker.switch(up=False)
    await reset(api, [bound["id"]])
    answer = body(await api.as_(bound["device_token"]).post("/v1/devices/me/heartbeat"), 200)
    assert [each["type"] for each in answer["commands"]] == ["factory_reset"]


async def test_a_bind_does_not_wait_for_its_turn(tmp_path: Path) -> None:
    """While a reset waits for its turn, bind is refused at once, and with ``supersede_reset`` it clears and binds."""
    async with serving(tmp_path, bind_broker_wait_seconds=60) as api:
        bound = await api.bound()
        await api.settled()
        api.broker.switch(up=False)
        await reset(api, [bound["id"]])
        path = f"/v1/devices/{bound['id']}/bind"
        error(await api.back_end.post(path, json={"end_user_id": "eu_2"}), 409, "reset_pending")
        again = asyncio.create_task(api.back_end.post(path, json={"end_user_id": "eu_2", "supersede_reset": True}))

        async def cancelled() -> bool:
            return not await api.store.read(lambda view: outbox_sql.turns(view, 0))

        await eventually(cancelled, "the reset was cancelled")
        api.broker.switch(up=True)
        assert body(await again, 200)["binding_generation"] == 3


async def test_a_failure_of_one_device_does_not_affect_others(api: Api) -> None:
    """``failed`` with what to do, logged with its reason; the others are reset, and that one is as it was."""
    bound = [await api.bound(f"BP-{number}") for number in range(3)]
    one, broken, two = (each["id"] for each in bound)
    await api.store.write(lambda tx: refuse(tx, "poison", "UPDATE", "devices", f"NEW.id = '{broken}'"))
    with capture_logs() as logs:
        outcomes = await reset(api, [one, broken, two])
    assert [each["outcome"] for each in outcomes] == ["reset", "failed", "reset"]
    assert outcomes[1]["error"]["code"] == "internal_error"
    assert "Its log has the reason" in outcomes[1]["error"]["message"]
    assert [each["device_id"] for each in logs if each["event"] == "fleet.device_skipped"] == [broken]
    states = [body(await api.back_end.get(f"/v1/devices/{each}"), 200)["status"] for each in (one, broken, two)]
    assert states == ["unbound", "bound", "unbound"]


async def test_a_bulk_reset_takes_a_thousand_devices(api: Api) -> None:
    """The most that one call takes; one more, or none, is refused."""
    ids = [f"dev_{number}" for number in range(1_000)]
    outcomes = await reset(api, ids)
    assert [each["id"] for each in outcomes] == ids
    for wrong in ([*ids, "dev_x"], []):
        answer = await api.back_end.post("/v1/devices/bulk/reset", json={"device_ids": wrong})
        assert error(answer, 400, "invalid_request")["details"]["field"] == "device_ids"


async def test_a_bulk_reset_needs_its_scope(api: Api) -> None:
    """A key that may write; not one that may read, not a device."""
    bound = await api.bound()
    asked = {"device_ids": [bound["id"]]}
    for credential in (await api.another_key("devices:read"), bound["device_token"]):
        answer = await api.as_(credential).post("/v1/devices/bulk/reset", json=asked)
        error(answer, 403, "insufficient_scope")


async def test_a_repeated_request_with_an_idempotency_key_is_done_once(api: Api) -> None:
    """``Idempotency-Key``: the second gets the answer of the first, not ``already_pending``."""
    bound = await api.bound()
    request = {"json": {"device_ids": [bound["id"]]}, "headers": {"Idempotency-Key": "k1"}}
    first = await api.back_end.post("/v1/devices/bulk/reset", **request)  # type: ignore[arg-type]
    again = await api.back_end.post("/v1/devices/bulk/reset", **request)  # type: ignore[arg-type]
    assert body(first, 200) == body(again, 200)
    assert first.json()["data"][0]["outcome"] == "reset"


# --- taking it back ---------------------------------------------------------------------------------------------------


async def cancel(api: Api, device_ids: list[str], **more: Any) -> list[tuple[str, str]]:
    """Device and outcome of each reset that was to be taken back."""
    answer = await api.back_end.post("/v1/devices/bulk/reset/cancel", json={"device_ids": device_ids, **more})
    return [(each["id"], each["outcome"]) for each in body(answer, 200)["data"]]


async def test_resets_can_be_cancelled_until_they_are_delivered(api: Api) -> None:
    """Those that wait are cancelled and their tokens dead; what a device has said that it has goes on."""
    waiting, has_it, quiet = [await api.bound(f"BP-{number}") for number in range(3)]
    foreign = body(
        await api.as_(await api.another_key(project="two")).post("/v1/devices", json={"serial_number": "BP-0"}), 201
    )["id"]
    await reset(api, [waiting["id"], has_it["id"]])
    device = api.as_(has_it["device_token"])
    (command,) = body(await device.post("/v1/devices/me/heartbeat"), 200)["commands"]
    ack = {"status": "delivered", "receipt": receipt_of(has_it["device_token"], command, "delivered")}
    body(await device.post(f"/v1/devices/me/commands/{command['id']}/ack", json=ack), 200)
    asked = [waiting["id"], has_it["id"], quiet["id"], foreign, "dev_never", waiting["id"]]
    expected = ["cancelled", "too_late", "none_open", "not_found", "not_found"]
    assert await cancel(api, asked) == list(zip(dict.fromkeys(asked), expected, strict=True))
    error(await api.as_(waiting["device_token"]).post("/v1/devices/me/heartbeat"), 401, "unauthorized")
    body(await api.as_(quiet["device_token"]).post("/v1/devices/me/heartbeat"), 200)
    assert (await stats(api))["pending_reset_count"] == 1
    assert (await cancel(api, [waiting["id"]]))[0][1] == "none_open"


async def test_a_dry_run_cancels_nothing(api: Api) -> None:
    """It says what would happen, to the byte of the registry."""
    waiting, quiet = [(await api.bound(f"BP-{number}"))["id"] for number in range(2)]
    await reset(api, [waiting])
    await stats(api)
    await api.settled()
    before = api.dump()
    outcomes = await cancel(api, [waiting, quiet, "dev_never"], dry_run=True)
    assert [outcome for _, outcome in outcomes] == ["would_cancel", "none_open", "not_found"]
    assert api.dump() == before


async def test_cancelled_resets_are_cleared_at_once(api: Api) -> None:
    """Its topic is to be cleared at once, so a reset whose turn had not come never reaches the broker."""
    devices = [(await api.bound(f"BP-{number}"))["id"] for number in range(3)]
    await api.settled()
    api.broker.switch(up=False)
    await reset(api, devices)
    assert len(await api.store.read(lambda view: outbox_sql.turns(view, 0))) == len(devices)
    assert {outcome for _, outcome in await cancel(api, devices)} == {"cancelled"}
    assert await api.store.read(lambda view: outbox_sql.turns(view, 0)) == set()
