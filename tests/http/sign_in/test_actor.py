"""What a person has done: found by ``user:{sub}``, with the display name of its time, wherever an actor is named."""

import csv
import io
import json

from gateway.domain import certificates
from gateway.store import certificate_sql, people_sql
from tests.http.sign_in.support import in_session
from tests.http.support import Api, Json, body

ANN = {"actor": "user:ann"}


async def test_a_person_is_named_wherever_an_actor_is(api: Api) -> None:
    """In events, in the list of resets, in the certificate, at a job, as CSV and among the actors."""
    bound = await api.bound("BP-1")
    ann = await in_session(api)
    body(await ann.client.post(f"/v1/devices/{bound['id']}/reset", headers=ann.changes), 200)
    (reset,) = body(await ann.client.get("/v1/resets"), 200)["data"]
    assert (reset["requested_by"], reset["requested_by_name"]) == ("user:ann", "Ann Example")
    path = f"/v1/devices/{bound['id']}/commands/{reset['command_id']}/cancel"
    body(await ann.client.post(path, headers=ann.changes), 200)
    asked = {"name": "Recall", "action": "factory_reset", "targets": {"device_ids": [bound["id"]]}}
    job = body(await ann.client.post("/v1/jobs", json=asked, headers=ann.changes), 201)
    assert (job["created_by"], job["created_by_name"]) == ("user:ann", "Ann Example")

    (certificate,) = await api.store.read(lambda view: certificate_sql.of_reset(view, reset["command_id"]))
    request = certificates.claims(certificate.jws).request
    assert (request.actor, request.actor_name) == ("user:ann", "Ann Example")
    events = await _events(api)
    assert {"reset.requested", "command.cancelled", "job.created"} <= {each["type"] for each in events}
    assert {(each["data"]["actor"], each["data"]["actor_name"]) for each in events} == {("user:ann", "Ann Example")}
    answer = await ann.client.get("/v1/events", params=ANN, headers={"Accept": "text/csv"})
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert [each["id"] for each in rows] == [each["id"] for each in events]
    assert {each["actor_name"] for each in rows} == {"Ann Example"}
    known = body(await api.back_end.get("/v1/actors"), 200)["data"]
    assert ("user:ann", "Ann Example") in [(each["actor"], each["name"]) for each in known]


async def test_a_new_name_changes_nothing_that_was(api: Api) -> None:
    """Each event has the name of its time; a person who is forgotten is still found."""
    bound = await api.bound("BP-1")
    ann = await in_session(api)
    path = f"/v1/devices/{bound['id']}"
    body(await ann.client.patch(path, json={"name": "one"}, headers=ann.changes), 200)
    await api.store.write(lambda tx: people_sql.save(tx, "ann", '=Ann <b>"Other"</b>'))
    body(await ann.client.patch(path, json={"name": "two"}, headers=ann.changes), 200)
    names = [each["data"]["actor_name"] for each in await _events(api) if each["type"] == "device.updated"]
    assert names == ['=Ann <b>"Other"</b>', "Ann Example"]
    answer = await api.back_end.get("/v1/events", params=ANN, headers={"Accept": "text/csv"})
    assert "'=Ann" in answer.text

    await api.store.write(lambda tx: tx.run("DELETE FROM sessions"))
    await api.store.write(lambda tx: tx.run("DELETE FROM people"))
    assert [each["data"]["actor_name"] for each in await _events(api) if each["type"] == "device.updated"] == names
    assert json.dumps(names[0]) in (await api.back_end.get("/v1/actors")).text


async def _events(api: Api) -> list[Json]:
    """What the back end finds of her, the newest first."""
    data: list[Json] = body(await api.back_end.get("/v1/events", params=ANN), 200)["data"]
    return data
