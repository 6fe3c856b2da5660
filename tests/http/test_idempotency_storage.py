"""What is kept of answers under an ``Idempotency-Key``: for how long, how many, how large, and no secret."""

import pytest

from gateway.store import DATABASE_NAME, idempotency_sql
from tests.http.idempotent_calls import count, keyed, rebooting, same
from tests.http.support import Api, Json, body, error

DAY_MS = 86_400_000


async def test_stored_answers_contain_no_secret(api: Api) -> None:
    """Neither the answer in clear nor what opens it lies in the registry: not the credential, not the header."""
    device = await api.registered()
    key = "0d0dd5a2-5f8c-4c39-8a7a-1f4c5a6f9c11"
    answer = await api.back_end.post(
        f"/v1/devices/{device['id']}/bind", json={"end_user_id": "eu_1"}, headers=keyed(key)
    )
    bound = body(answer, 200)
    token, password = bound["device_token"], bound["mqtt"]["password"]
    await api.settled()
    files = api.data_dir.glob(f"{DATABASE_NAME}*") if api.store.is_local else ()
    lies_there = b"".join(each.read_bytes() for each in files) or "\n".join(api.dump()).encode()
    assert device["id"].encode() in lies_there
    for secret in (token, password, key, api.key):
        assert secret.encode() not in lies_there
    row = await api.store.read(lambda view: view.one("SELECT * FROM idempotency"))
    assert row is not None
    assert token.encode() not in row["answer"]
    assert password.encode() not in row["answer"]


async def test_heartbeats_store_no_answers(api: Api) -> None:
    """Under a new key each time, with a large command open: nothing is kept. One that comes again is stored once."""
    bound = await api.bound()
    params = {"filler": "x" * 16_000}
    asked: Json = {"type": "start_recording", "params": params}
    body(await api.back_end.post(f"/v1/devices/{bound['id']}/commands", json=asked), 201)
    device = api.as_(bound["device_token"])
    for number in range(20):
        beat = {"battery_percent": 50, "sent_at": f"2026-01-01T00:00:{number // 2:02}Z"}
        answer = await device.post("/v1/devices/me/heartbeat", json=beat, headers=keyed(f"h{number}"))
        assert body(answer, 200)["commands"][0]["params"] == params
        assert "Idempotent-Replay" not in answer.headers
    assert await count(api, "SELECT count(*) FROM idempotency") == 0
    assert await count(api, "SELECT count(*) FROM heartbeats") == 10


@pytest.mark.parametrize("path", ["/v1/devices/bulk/reset", "/v1/devices/bulk/reset/cancel"])
async def test_a_dry_run_stores_no_answer(api: Api, path: str) -> None:
    """It changes nothing; its key is still good for the real one."""
    bound = await api.bound()
    asked: Json = {"device_ids": [bound["id"]]}
    for _ in range(2):
        answer = await api.back_end.post(path, json={**asked, "dry_run": True}, headers=keyed("b"))
        assert "Idempotent-Replay" not in answer.headers
        body(answer, 200)
    assert await count(api, "SELECT count(*) FROM idempotency") == 0
    answer = await api.back_end.post(path, json={**asked, "dry_run": True}, headers=keyed("two words"))
    assert error(answer, 400, "invalid_request")["details"]["field"] == "Idempotency-Key"
    body(await api.back_end.post(path, json=asked, headers=keyed("b")), 200)


async def test_the_bytes_of_a_caller_are_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device acknowledges under a new key each time: its oldest answers go, and those of others stay."""
    monkeypatch.setattr(idempotency_sql, "MOST_BYTES_OF_DEVICE", 20_000)
    register: Json = {"json": {"serial_number": "BP-9"}, "headers": keyed("other")}
    first = await api.back_end.post("/v1/devices", **register)
    bound = await api.bound()
    device = api.as_(bound["device_token"])
    path = f"/v1/devices/me/commands/{await rebooting(api, bound['id'])}/ack"
    for number in range(120):
        body(await device.post(path, json={"status": "delivered"}, headers=keyed(str(number))), 200)
    assert 10_000 < await count(api, USED.format("dev_")) <= 20_000
    newest = await device.post(path, json={"status": "delivered"}, headers=keyed("119"))
    oldest = await device.post(path, json={"status": "delivered"}, headers=keyed("0"))
    assert (newest.headers.get("Idempotent-Replay"), oldest.headers.get("Idempotent-Replay")) == ("true", None)
    same(first, await api.back_end.post("/v1/devices", **register))
    await what_is_counted_is_there(api)
    api.clock.ahead_ms += DAY_MS + 60_000
    while await api.store.write(lambda tx: idempotency_sql.prune(tx, limit=7)):
        await what_is_counted_is_there(api)
    assert await count(api, "SELECT count(*) FROM idempotency_use") == 0


USED = "SELECT sum(length(answer) + 256) FROM idempotency WHERE owner LIKE '{}%'"


async def what_is_counted_is_there(api: Api) -> None:
    """The counters say what lies in the table."""
    counted = await api.store.read(lambda view: view.all("SELECT owner, bytes FROM idempotency_use ORDER BY owner"))
    there = await api.store.read(
        lambda view: view.all("SELECT owner, sum(length(answer) + 256) FROM idempotency GROUP BY owner ORDER BY owner")
    )
    assert [tuple(row) for row in counted] == [tuple(row) for row in there]


async def test_errors_are_not_stored(api: Api) -> None:
    """A refused request is tried again under the same key: the reason may be gone."""
    bound = await api.bound()
    path = f"/v1/devices/{bound['id']}/commands"
    open_one = body(await api.back_end.post(path, json={"type": "reboot"}), 201)
    error(await api.back_end.post(path, json={"type": "reboot"}, headers=keyed("c")), 409, "command_pending")
    body(await api.back_end.post(f"{path}/{open_one['id']}/cancel"), 200)
    body(await api.back_end.post(path, json={"type": "reboot"}, headers=keyed("c")), 201)


async def test_answers_are_stored_for_a_day(api: Api) -> None:
    """A minute before the day is over it is replayed, after it the request is a new one; then the old row goes."""
    asked: Json = {"json": {"serial_number": "BP-1"}, "headers": keyed("a")}
    first = await api.back_end.post("/v1/devices", **asked)
    api.clock.ahead_ms += DAY_MS - 60_000
    same(first, await api.back_end.post("/v1/devices", **asked))
    api.clock.ahead_ms += 60_001
    body(await api.back_end.post("/v1/devices", **asked), 200)
    assert await api.store.write(idempotency_sql.prune) == 0
    api.clock.ahead_ms += DAY_MS
    assert await api.store.write(idempotency_sql.prune) == 1


async def test_the_number_of_answers_is_bounded(api: Api) -> None:
    """The oldest go."""
    for number in range(5):
        await api.back_end.post("/v1/devices", json={"serial_number": f"BP-{number}"}, headers=keyed(str(number)))
    assert await api.store.write(lambda tx: idempotency_sql.prune(tx, most=2)) == 3
    again = await api.back_end.post("/v1/devices", json={"serial_number": "BP-4"}, headers=keyed("4"))
    assert again.headers["Idempotent-Replay"] == "true"
