"""A person's data over HTTP: the export with its last line, the erasure with its counts, and who may ask for them."""

import json
from collections import Counter
from collections.abc import AsyncGenerator

import httpx
import pytest

from gateway.domain import erasures, person_export
from gateway.domain.person_export import PersonExport
from gateway.http.resources import end_users
from tests.http.support import TLS, Api, Json, body, error
from tests.support.wait import eventually

PERSON = "/v1/end-users/eu_1"
ONCE = {"Idempotency-Key": "once"}
NOTHING = dict.fromkeys(person_export.KINDS, 0)
NONE = dict.fromkeys(erasures.COUNTS, 0)


async def exported(api: Api, path: str = PERSON) -> list[Json]:
    """The lines of an export."""
    answer = await api.back_end.get(f"{path}/data")
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


async def visited(api: Api, serial: str = "BP-1", person: str = "eu_1", status: int = 201) -> Json:
    """A device that was the person's for two heartbeats and a command, and is unbound."""
    device = body(await api.back_end.post("/v1/devices", json={"serial_number": serial}), status)
    bind = {"end_user_id": person}
    device = body(await api.back_end.post(f"/v1/devices/{device['id']}/bind", json=bind), 200)
    for percent in (60, 50):
        await api.as_(device["device_token"]).post("/v1/devices/me/heartbeat", json={"battery_percent": percent})
    asked = {"type": "reboot", "params": {"for": "the visit"}}
    body(await api.back_end.post(f"/v1/devices/{device['id']}/commands", json=asked), 201)
    return body(await api.back_end.post(f"/v1/devices/{device['id']}/unbind"), 200)


async def test_an_export_has_all_that_concerns_the_person(api: Api) -> None:
    """Line by line, of this person alone; the last line counts the others."""
    device = await visited(api)
    await visited(api, "BP-1", "eu_12", 200)
    lines = await exported(api)
    first, last = lines[0], lines[-1]
    assert (first["kind"], first["end_user_id"], first["project_id"]) == ("end_user", "eu_1", api.project_id)
    kinds = Counter(line["kind"] for line in lines[1:-1])
    assert last == {"kind": "end", "counts": {**NOTHING, **kinds}}
    assert kinds == {"binding": 1, "device": 1, "event": 6, "command": 1, "heartbeat": 2}
    assert [line["battery_percent"] for line in lines if line["kind"] == "heartbeat"] == [50, 60]
    assert "eu_12" not in json.dumps(lines)
    (binding,) = (line for line in lines if line["kind"] == "binding")
    assert binding["unbound_at"] is not None
    (shown,) = (line for line in lines if line["kind"] == "device")
    assert shown == {"kind": "device", "id": device["id"], "serial_number": "BP-1", "model": device["model"]}


async def test_nothing_kept_is_a_valid_export(api: Api) -> None:
    """Also of a person of another project."""
    await visited(api)
    other = api.as_(await api.another_key(project="other"))
    for client, path in ((api.back_end, "/v1/end-users/eu_unknown"), (other, PERSON)):
        lines = [json.loads(line) for line in (await client.get(f"{path}/data")).text.splitlines()]
        assert [line["kind"] for line in lines] == ["end_user", "end"]
        assert lines[-1]["counts"] == NOTHING
        assert body(await client.delete(path), 200)["counts"] == NONE


async def test_an_export_of_a_bound_person_has_the_device(api: Api) -> None:
    """As the API shows it, since it is theirs; and the places that name the person."""
    device = await api.bound()
    body(await api.back_end.patch(f"/v1/devices/{device['id']}", json={"metadata": {"wearer": "eu_1"}}), 200)
    lines = await exported(api)
    (shown,) = (line for line in lines if line["kind"] == "device")
    assert (shown["id"], shown["end_user_id"], shown["metadata"]) == (device["id"], "eu_1", {"wearer": "eu_1"})
    mentions = [line for line in lines if line["kind"] == "mention"]
    assert mentions == [{"kind": "mention", "field": "device.metadata", "id": device["id"]}]


async def test_an_erasure_says_what_it_erased(api: Api) -> None:
    """And what it could not: metadata, an open reset. The second call finds nothing."""
    device = await visited(api)
    await api.back_end.post(f"/v1/devices/{device['id']}/bind", json={"end_user_id": "eu_1"}, headers=ONCE)
    body(await api.back_end.patch(f"/v1/devices/{device['id']}", json={"metadata": {"wearer": "eu_1"}}), 200)
    refused = error(await api.back_end.delete(PERSON), 409, "device_bound")
    assert refused["details"] == {"devices": [device["id"]]}
    await api.reset(device["id"])
    erased = body(await api.back_end.delete(PERSON), 200)
    assert erased["status"] == "finished"
    expected = {"bindings": 2, "heartbeats": 2, "states": 1, "events": 6, "commands": 1, "answers": 1}
    assert erased["counts"] == {**NONE, **expected}
    assert erased["open_resets"] == [device["id"]]
    assert erased["mentions"] == [{"field": "device.metadata", "id": device["id"]}]
    again = body(await api.back_end.delete(PERSON), 200)
    assert (again["counts"], again["open_resets"], again["pseudonym"] != erased["pseudonym"]) == (NONE, [], True)
    told = body(await api.back_end.get("/v1/events", params={"type": "end_user.erased"}), 200)["data"]
    assert [event["data"]["pseudonym"] for event in told] == [erased["pseudonym"]]
    assert [line["kind"] for line in await exported(api)] == ["end_user", "mention", "end"]


async def test_an_id_that_is_none_is_refused(api: Api) -> None:
    """With the form that it has to have."""
    for bad in ("1", "eu_", "eu_a-b", "dev_1", "eu_" + "a" * 65):
        for method, path in (("GET", f"/v1/end-users/{bad}/data"), ("DELETE", f"/v1/end-users/{bad}")):
            told = error(await api.back_end.request(method, path), 400, "invalid_request")
            assert told["details"] == {"field": "end_user_id"}
            assert "eu_" in told["message"]


async def test_a_key_needs_the_scope(api: Api) -> None:
    """To read for the export, to write for the erasure."""
    reader, writer = [api.as_(await api.another_key(f"devices:{what}")) for what in ("read", "write")]
    assert (await reader.get(f"{PERSON}/data")).status_code == 200
    error(await reader.delete(PERSON), 403, "insufficient_scope")
    error(await writer.get(f"{PERSON}/data"), 403, "insufficient_scope")
    assert (await writer.delete(PERSON)).status_code == 200


async def test_an_erasure_during_an_export_leaves_it_without_an_end(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The person is erased while their commands are read; what came before is not taken for all."""
    await visited(api)
    commands = PersonExport._commands  # noqa: SLF001 - the place of the interruption

    async def interrupted(export: PersonExport) -> AsyncGenerator[bytes, None]:
        body(await api.back_end.delete(PERSON), 200)
        async for part in commands(export):
            yield part

    monkeypatch.setattr(PersonExport, "_commands", interrupted)
    kinds = [line["kind"] for line in await exported(api)]
    assert kinds[0] == "end_user"
    assert "event" in kinds
    assert "end" not in kinds


async def test_an_erasure_that_takes_long_is_answered_before_its_end(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 202 and what is done so far; the next call waits for the same one."""
    await visited(api)
    monkeypatch.setattr(end_users, "WAIT_SECONDS", 0)
    first = await api.back_end.delete(PERSON)
    pseudonym = body(first, 202)["pseudonym"]
    assert first.json()["status"] == "running"
    monkeypatch.setattr(end_users, "WAIT_SECONDS", 60)
    assert body(await api.back_end.delete(PERSON), 200)["pseudonym"] == pseudonym


async def test_a_client_that_goes_away_ends_its_export(api: Api) -> None:
    """The stream's place is free again, and nothing is read for it any more."""
    await visited(api)
    headers = {"Authorization": f"Bearer {api.key}"}
    async with (
        httpx.AsyncClient(base_url=api.url, headers=headers, verify=TLS) as client,
        client.stream("GET", f"{PERSON}/data") as response,
    ):
        assert response.status_code == 200
    await eventually(lambda: api.services.streams.count == 0, "the stream has ended")
