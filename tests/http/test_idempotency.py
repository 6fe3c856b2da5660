"""``Idempotency-Key``: what comes again is answered, not done again, also after a crash and when it comes at once."""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.http.idempotency import IdempotentRequest
from gateway.http.operation import AnyOperation
from gateway.http.resources.operations import OPERATIONS
from gateway.http.responses import ApiResponse
from gateway.http.scan_limit import ScanLimiter
from gateway.http.unit_of_work import ReplayError, UnitOfWork
from gateway.models.fields import Empty
from gateway.store import Tx, key_sql
from tests.http.idempotent_calls import count, keyed, rebooting, same
from tests.http.support import JSON, Api, Caller, Client, Json, body, error, serving, trying

DAY_MS = 86_400_000
POSTS = [operation for operation in OPERATIONS if operation.is_idempotent]


async def test_the_same_request_gets_the_same_answer(api: Api) -> None:
    """Status and body, though a registration that comes twice without a key is answered with another status."""
    first = await api.back_end.post("/v1/devices", json={"serial_number": "BP-1"}, headers=keyed("a"))
    again = await api.back_end.post("/v1/devices", json={"serial_number": "BP-1"}, headers=keyed("a"))
    body(first, 201)
    same(first, again)
    body(await api.back_end.post("/v1/devices", json={"serial_number": "BP-1"}), 200)


async def test_a_repeated_bind_answers_the_same_token(api: Api) -> None:
    """The one token of the one binding; it is live."""
    device = await api.registered()
    path, asked = f"/v1/devices/{device['id']}/bind", {"end_user_id": "eu_1"}
    first = await api.back_end.post(path, json=asked, headers=keyed("bind"))
    again = await api.back_end.post(path, json=asked, headers=keyed("bind"))
    same(first, again)
    token = body(again, 200)["device_token"]
    body(await api.as_(token).post("/v1/devices/me/heartbeat"), 200)
    assert await count(api, "SELECT count(*) FROM tokens") == 1
    assert await count(api, "SELECT count(*) FROM events WHERE type = 'device.bound'") == 1


@pytest.mark.parametrize("asked", [{"serial_number": "BP-2"}, {"serial_number": "BP-1", "name": "x"}])
async def test_another_body_under_the_same_key_is_refused(api: Api, asked: Json) -> None:
    """Nothing is done, and the message says what to do."""
    body(await api.back_end.post("/v1/devices", json={"serial_number": "BP-1"}, headers=keyed("a")), 201)
    answer = await api.back_end.post("/v1/devices", json=asked, headers=keyed("a"))
    assert "new key" in error(answer, 409, "idempotency_mismatch")["message"]
    assert await count(api, "SELECT count(*) FROM devices WHERE name IS NULL") == 1


async def test_another_path_under_the_same_key_is_refused(api: Api) -> None:
    """Nothing is done to the other device."""
    one, two = await api.registered("BP-1"), await api.registered("BP-2")
    body(await api.back_end.post(f"/v1/devices/{one['id']}/reset", headers=keyed("r")), 200)
    error(await api.back_end.post(f"/v1/devices/{two['id']}/reset", headers=keyed("r")), 409, "idempotency_mismatch")
    assert await count(api, "SELECT count(*) FROM commands") == 1


async def test_key_order_and_spaces_do_not_change_the_body(api: Api) -> None:
    """Clients write the members of a document in any order."""
    first = await api.back_end.post(
        "/v1/devices", content=b'{"serial_number":"BP-1","name":"x"}', headers={**JSON, **keyed("a")}
    )
    again = await api.back_end.post(
        "/v1/devices", content=b'{ "name" : "x", "serial_number" : "BP-1" }', headers={**JSON, **keyed("a")}
    )
    same(first, again)


async def test_an_idempotency_key_belongs_to_its_caller(api: Api) -> None:
    """The same word of two API keys, and of another project, are two requests."""
    mine = body(await api.back_end.post("/v1/devices", json={"serial_number": "BP-1"}, headers=keyed("a")), 201)
    colleague, stranger = api.as_(await api.another_key()), api.as_(await api.another_key(project="two"))
    theirs = await colleague.post("/v1/devices", json={"serial_number": "BP-1"}, headers=keyed("a"))
    assert body(theirs, 200)["id"] == mine["id"]
    other = await stranger.post("/v1/devices", json={"serial_number": "BP-9"}, headers=keyed("a"))
    assert body(other, 201)["id"] != mine["id"]


async def test_a_device_has_separate_idempotency_keys(api: Api) -> None:
    """An acknowledgement that comes again is taken once; the next binding's device gets nothing of it."""
    bound = await api.bound()
    asked: Json = {"json": {"status": "delivered"}, "headers": keyed("h")}
    path = f"/v1/devices/me/commands/{await rebooting(api, bound['id'])}/ack"
    device = api.as_(bound["device_token"])
    same(await device.post(path, **asked), await device.post(path, **asked))

    body(await api.back_end.post(f"/v1/devices/{bound['id']}/unbind"), 200)
    answer = await api.back_end.post(f"/v1/devices/{bound['id']}/bind", json={"end_user_id": "eu_2"})
    next_one = api.as_(body(answer, 200)["device_token"])
    fresh = await next_one.post(f"/v1/devices/me/commands/{await rebooting(api, bound['id'])}/ack", **asked)
    assert "Idempotent-Replay" not in fresh.headers
    body(fresh, 200)


async def test_a_refused_acknowledgement_is_refused_again(api: Api) -> None:
    """Its refusal is audited, and no answer."""
    bound = await api.bound()
    command = await api.reset(bound["id"])
    device = api.as_(bound["device_token"])
    path = f"/v1/devices/me/commands/{command['id']}/ack"
    for _ in range(2):
        answer = await device.post(path, json={"status": "executed"}, headers=keyed("ack"))
        error(answer, 400, "invalid_request")
    assert await count(api, "SELECT count(*) FROM idempotency") == 0


async def test_a_revoked_credential_gets_no_stored_answer(api: Api) -> None:
    """Who may call is asked first."""
    key = await api.another_key()
    client = api.as_(key)
    body(await client.post("/v1/devices", json={"serial_number": "BP-1"}, headers=keyed("a")), 201)
    row = await api.store.read(lambda view: key_sql.by_secret(view, key, api.clock()))
    assert row is not None
    await api.store.write(lambda tx: key_sql.revoke(tx, row.id))
    error(await client.post("/v1/devices", json={"serial_number": "BP-1"}, headers=keyed("a")), 401, "unauthorized")


async def test_after_a_rotation_nothing_is_done_twice(api: Api) -> None:
    """The answer was sealed with the secret before; the new one gets to know that the thing was done."""
    device = await api.registered()
    path, asked = f"/v1/devices/{device['id']}/bind", {"end_user_id": "eu_1"}
    first = await api.back_end.post(path, json=asked, headers=keyed("bind"))
    secret = await api.store.write(lambda tx: key_sql.rotate(tx, api.key_id, DAY_MS))
    same(first, await api.back_end.post(path, json=asked, headers=keyed("bind")))
    told = error(await api.as_(secret).post(path, json=asked, headers=keyed("bind")), 409, "idempotency_mismatch")
    assert "another secret" in told["message"]
    assert await count(api, "SELECT count(*) FROM tokens") == 1


@pytest.mark.parametrize(
    "headers",
    [
        [("Idempotency-Key", "")],
        [("Idempotency-Key", "two words")],
        [("Idempotency-Key", "x" * 256)],
        [("Idempotency-Key", "ä".encode())],
        [("Idempotency-Key", "a"), ("Idempotency-Key", "b")],
    ],
)
async def test_an_invalid_idempotency_key_is_refused(api: Api, headers: Any) -> None:
    """Refused, with the name of the header, and nothing is done."""
    told = error(
        await api.back_end.post("/v1/devices", json={"serial_number": "BP-1"}, headers=headers), 400, "invalid_request"
    )
    assert told["details"]["field"] == "Idempotency-Key"
    assert await count(api, "SELECT count(*) FROM devices") == 0


async def test_other_methods_ignore_the_key(api: Api) -> None:
    """GET is safe as it is."""
    answer = await api.back_end.get("/v1/devices", headers=keyed("a b"))
    assert "Idempotent-Replay" not in answer.headers
    body(answer, 200)


# --- one transaction --------------------------------------------------------------------------------------------------


def _asked(operation: AnyOperation, caller: Caller) -> Json:
    examples: list[Json] = operation.takes.model_json_schema().get("examples", [{}])
    asked = dict(examples[0])
    if "device_ids" in asked:
        asked["device_ids"] = [caller.path["device_id"]]
    return {name: value for name, value in asked.items() if name not in ("command_id", "dry_run", "receipt")}


@pytest.mark.parametrize("operation", POSTS, ids=lambda operation: operation.id)
async def test_the_answer_is_stored_in_the_transaction_of_the_effect(
    caller: Caller, operation: AnyOperation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it cannot be kept nothing is done: whichever call it is, no row has changed (the fixture looks)."""

    def fails(*_: object) -> None:
        raise RuntimeError("the process dies here")

    monkeypatch.setattr(IdempotentRequest, "keep", fails)
    with trying(operation.id):
        answer = await caller.call(operation, json=_asked(operation, caller), headers=keyed("a"))
        assert answer.status_code >= 400


async def test_a_bind_whose_answer_cannot_be_stored_is_undone(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token of a binding is shown once: if it cannot be kept, nothing is bound."""
    device = await api.registered()
    await api.settled()
    before = api.dump()

    def fails(*_: object) -> None:
        raise RuntimeError("the process dies here")

    monkeypatch.setattr(IdempotentRequest, "keep", fails)
    path, asked = f"/v1/devices/{device['id']}/bind", {"end_user_id": "eu_1"}
    error(await api.back_end.post(path, json=asked, headers=keyed("a")), 500, "internal_error")
    assert api.dump() == before


async def test_a_completed_step_is_not_repeated(api: Api) -> None:
    """A call of several transactions that died between them: the next one goes on where it ended."""
    done: list[str] = []

    def do(name: str) -> Any:
        def write(tx: Tx) -> Empty:
            done.append(name)
            tx.run("UPDATE devices SET updated_at = 1")
            return Empty()

        return write

    await _work(api).step("one", Empty, do("one"))
    for name in ("one", "two"):
        await _work(api).step(name, Empty, do(name))
    assert done == ["one", "two"]
    await _work(api).commit(lambda _: ApiResponse(b"{}"))
    with pytest.raises(ReplayError):
        await _work(api).step("three", Empty, do("three"))
    assert done == ["one", "two"]


def _work(api: Api) -> UnitOfWork:
    idempotent = IdempotentRequest(api.key_id, "k", api.key, b"request")
    return UnitOfWork(api.store, ScanLimiter(), api.key_id, idempotent=idempotent)


async def test_a_repeated_bulk_reset_gets_the_same_answer(api: Api) -> None:
    """Also for a device that has executed it since, which is not reset again."""
    bound = await api.bound()
    asked: Json = {"json": {"device_ids": [bound["id"], "dev_nobody"]}, "headers": keyed("bulk")}
    first = await api.back_end.post("/v1/devices/bulk/reset", **asked)
    outcomes = [each["outcome"] for each in body(first, 200)["data"]]
    assert outcomes == ["reset", "not_found"]
    await api.store.write(lambda tx: tx.run("UPDATE commands SET status = 'executed', final_at = 1").rowcount)
    same(first, await api.back_end.post("/v1/devices/bulk/reset", **asked))
    assert await count(api, "SELECT count(*) FROM commands") == 1


# --- at the same time -------------------------------------------------------------------------------------------------


async def test_many_concurrent_requests_have_one_effect(api: Api) -> None:
    """Twenty binds of one device with one key: one binding, one token, twenty times the same answer."""
    device = await api.registered()
    path, asked = f"/v1/devices/{device['id']}/bind", {"end_user_id": "eu_1"}
    answers = await asyncio.gather(*(api.back_end.post(path, json=asked, headers=keyed("bind")) for _ in range(20)))
    assert {answer.content for answer in answers} == {answers[0].content}
    assert {answer.status_code for answer in answers} == {200}
    assert await count(api, "SELECT count(*) FROM tokens") == 1


SENT = st.tuples(st.sampled_from(["k1", "k2", "k3", None]), st.sampled_from(["BP-1", "BP-2"]), st.booleans())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(waves=st.lists(st.lists(SENT, min_size=1, max_size=8), min_size=1, max_size=3))
def test_concurrent_retries_have_one_effect(waves: list[list[tuple[str | None, str, bool]]]) -> None:
    """Registrations with few keys, in waves that are sent at once: a key has one body, one answer and one effect.

    The first that is committed under a key settles it: all with its body are answered alike, all others are refused.
    """
    asyncio.run(_waves(waves))


async def _waves(waves: list[list[tuple[str | None, str, bool]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with serving(Path(folder)) as api:
            seen: dict[str, set[tuple[str, bytes]]] = {}
            for wave in waves:
                answers = await asyncio.gather(*(_send(api.back_end, *each) for each in wave))
                for (key, serial, named), answer in zip(wave, answers, strict=True):
                    if key is not None and answer.status_code != 409:
                        asked = json.dumps([serial, named])
                        seen.setdefault(key, set()).add((asked, bytes([answer.status_code - 200]) + answer.content))
                    elif answer.status_code == 409:
                        error(answer, 409, "idempotency_mismatch")
                        assert key is not None
            assert all(len(answers) == 1 for answers in seen.values()), seen
            assert await count(api, "SELECT count(*) FROM idempotency") == len(seen)
            serials = {serial for wave in waves for _, serial, _ in wave}
            assert 1 <= await count(api, "SELECT count(*) FROM devices") <= len(serials)


async def _send(client: Client, key: str | None, serial: str, named: bool) -> httpx.Response:  # noqa: FBT001 - a drawn fact
    asked = {"serial_number": serial, **({"name": "x"} if named else {})}
    return await client.post("/v1/devices", json=asked, headers={} if key is None else keyed(key))
