"""Who did it, over HTTP: events by actor, page by page, within a period, as CSV and as they happen; names of actors."""

import csv
import io
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from gateway.errors import UnavailableError
from gateway.http import csv_stream
from gateway.store import event_list, key_sql
from gateway.store.event_list import CSV_COLUMNS
from tests.http.support import Api, Client, Json, body, error

PATH = "/v1/events"
CSV = {"Accept": "text/csv"}
FORMULA = '=HYPERLINK("http://x")'
HOSTILE = ("' OR 1=1 --", "key_%", "key_\u202e1", "x" * 300, "user:eu_1';DROP TABLE events", "%", "_")


async def other(api: Api, name: str, project_id: str | None = None) -> tuple[str, Client]:
    """Another key with this name: its id, and a client with it."""
    key_id, secret = await api.store.write(lambda tx: key_sql.create(tx, project_id or api.project_id, name))
    return key_id, api.as_(secret)


async def registers(client: Client, *serials: str) -> list[str]:
    """The ids of devices that this client registers."""
    answers = [await client.post("/v1/devices", json={"serial_number": serial}) for serial in serials]
    return [body(answer, 201)["id"] for answer in answers]


async def listed(api: Api, **query: object) -> list[Json]:
    """The events of the first page."""
    data: list[Json] = body(await api.back_end.get(PATH, params={k: str(v) for k, v in query.items()}), 200)["data"]
    return data


def of(events: list[Json]) -> list[tuple[str, str | None]]:
    """Types and devices."""
    return [(each["type"], each["data"].get("device_id")) for each in events]


def records(answer: httpx.Response) -> list[dict[str, str]]:
    """What a reader of CSV finds in an answer."""
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/csv")
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


async def test_events_are_filtered_by_actor(api: Api) -> None:
    """A key, a device, the gateway; alone and with the other filters; in a device's list too."""
    key_id, client = await other(api, "ward app")
    mine = await api.bound("BP-1")
    (theirs,) = await registers(client, "BP-2")
    body(await client.post(f"/v1/devices/{mine['id']}/unbind"), 200)
    body(await api.as_((await api.bound("BP-3"))["device_token"]).post("/v1/devices/me/heartbeat"), 200)
    assert of(await listed(api, actor=key_id)) == [
        ("device.unbound", mine["id"]),
        ("token.revoked", mine["id"]),
        ("device.registered", theirs),
    ]
    assert {each["data"]["actor"] for each in await listed(api, actor=api.key_id)} == {api.key_id}
    assert of(await listed(api, actor=key_id, type="device.unbound")) == [("device.unbound", mine["id"])]
    assert of(await listed(api, actor=key_id, device_id=theirs)) == [("device.registered", theirs)]
    own = body(await api.back_end.get(f"/v1/devices/{mine['id']}/events", params={"actor": api.key_id}), 200)["data"]
    assert of(own) == [("device.bound", mine["id"]), ("device.registered", mine["id"])]
    (online,) = await listed(api, type="device.online")
    device_id = online["data"]["actor"]
    assert of(await listed(api, actor=device_id)) == [("device.online", device_id)]
    assert await listed(api, actor=device_id, device_id=mine["id"]) == []
    for nobody in ("gateway", "cli", "user:1", "key_unknown", "dev_unknown"):
        assert await listed(api, actor=nobody) == []


async def test_a_cursor_and_a_filter_go_together(api: Api) -> None:
    """Each event of the actor once, while others act in between; a cursor of another actor's event goes on there."""
    key_id, client = await other(api, "ward app")
    for number in range(4):
        await registers(client, f"BP-a{number}")
        await registers(api.back_end, f"BP-b{number}")
    whole = await listed(api, actor=key_id)
    seen, cursor = [], None
    while True:
        query = {"actor": key_id, "limit": "2", **({} if cursor is None else {"cursor": cursor})}
        page = body(await api.back_end.get(PATH, params=query), 200)
        seen += page["data"]
        await registers(client, f"later {len(seen)}")
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == whole
    mine = await listed(api, actor=api.key_id)
    after = await listed(api, actor=key_id, cursor=mine[0]["id"])
    assert [each["id"] for each in after] == [each["id"] for each in whole if each["id"] < mine[0]["id"]]


async def test_a_period_narrows_the_list(api: Api) -> None:
    """From ``since`` on, before ``until``, for a project and a device. One that ends before it begins is refused."""
    (early,) = await registers(api.back_end, "BP-1")
    api.clock.ahead_ms += 60_000
    (late,) = await registers(api.back_end, "BP-2")
    moment = (await listed(api))[0]["created_at"]
    assert of(await listed(api, since=moment)) == [("device.registered", late)]
    assert of(await listed(api, until=moment)) == [("device.registered", early)]
    assert of(await listed(api, until=moment, actor=api.key_id)) == [("device.registered", early)]
    own = f"/v1/devices/{early}/events"
    assert body(await api.back_end.get(own, params={"since": moment}), 200)["data"] == []
    assert of(body(await api.back_end.get(own, params={"until": moment}), 200)["data"]) == [
        ("device.registered", early)
    ]
    wrong = {"since": moment, "until": "2020-01-01T00:00:00Z"}
    for path in (PATH, own):
        assert error(await api.back_end.get(path, params=wrong), 400, "invalid_request")["details"]["field"] == "until"


@pytest.mark.parametrize("actor", HOSTILE)
async def test_hostile_text_is_only_text(api: Api, actor: str) -> None:
    """It finds nothing, as CSV, as JSON and in the list of a device, and does no harm."""
    (device_id,) = await registers(api.back_end, "BP-1")
    for path in (PATH, f"/v1/devices/{device_id}/events"):
        assert body(await api.back_end.get(f"{path}?actor={quote(actor)}"), 200)["data"] == []
    assert records(await api.back_end.get(f"{PATH}?actor={quote(actor)}", headers=CSV)) == []
    assert len(await listed(api)) == 1


@pytest.mark.parametrize("actor", ["", "x" * 301, "key_1%00", "key_1%0a", "%7f"])
async def test_what_can_be_no_actor_is_refused(api: Api, actor: str) -> None:
    """400 that names the field, for each list."""
    (device_id,) = await registers(api.back_end, "BP-1")
    for path in (PATH, f"/v1/devices/{device_id}/events", f"{PATH}/stream"):
        answer = error(await api.back_end.get(f"{path}?actor={actor}"), 400, "invalid_request")
        assert answer["details"]["field"] == "actor"


async def test_an_actor_of_another_project_is_nobody_here(api: Api) -> None:
    """Not in the list, not as CSV, not among the actors; each project sees its own."""
    project_id = await api.store.write(lambda tx: key_sql.create_project(tx, "two"))
    key_id, stranger = await other(api, "stranger", project_id)
    await registers(stranger, "BP-1")
    await registers(api.back_end, "BP-2")
    assert await listed(api, actor=key_id) == []
    assert records(await api.back_end.get(PATH, params={"actor": key_id}, headers=CSV)) == []
    assert [each["actor"] for each in body(await api.back_end.get("/v1/actors"), 200)["data"]] == [api.key_id]
    assert [each["actor"] for each in body(await stranger.get("/v1/actors"), 200)["data"]] == [key_id]
    theirs = body(await stranger.get(PATH, params={"actor": key_id}), 200)["data"]
    assert (await api.back_end.get(PATH, params={"cursor": theirs[0]["id"]})).status_code == 400


async def test_actors_are_listed_with_the_name_they_had_last(api: Api) -> None:
    """The most recent first; a deleted key keeps its name, and devices are left out."""
    key_id, client = await other(api, "ward app")
    await registers(client, "BP-1")
    bound = await api.bound("BP-2")
    body(await api.as_(bound["device_token"]).post("/v1/devices/me/heartbeat"), 200)
    await api.store.write(lambda tx: tx.run("UPDATE api_keys SET name = 'renamed' WHERE id = ?", key_id))
    await registers(client, "BP-3")
    await api.store.write(lambda tx: tx.run("DELETE FROM api_keys WHERE id = ?", key_id))
    found = body(await api.back_end.get("/v1/actors"), 200)["data"]
    assert [(each["actor"], each["name"]) for each in found] == [(key_id, "renamed"), (api.key_id, "back end")]
    newest = await listed(api, limit=1)
    assert found[0]["last_event_at"] == newest[0]["created_at"]
    names = [each["data"]["actor_name"] for each in await listed(api, actor=key_id)]
    assert names == ["renamed", "ward app"], "each event has the name of its time"


async def test_csv_has_all_events_of_a_filter(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as JSON, across pages of the database, with a header line; ``limit`` and ``cursor`` hold."""
    monkeypatch.setattr(csv_stream, "ROWS", 2)
    key_id, client = await other(api, "ward app")
    devices = await registers(client, *(f"BP-{number}" for number in range(5)))
    body(await client.patch(f"/v1/devices/{devices[0]}", json={"metadata": {"Café": "a\u2028\r\nb"}}), 200)
    await registers(api.back_end, "BP-9")
    whole = await listed(api, actor=key_id)
    answer = await api.back_end.get(PATH, params={"actor": key_id}, headers=CSV)
    assert answer.headers["content-disposition"] == 'attachment; filename="events.csv"'
    found = records(answer)
    assert list(found[0]) == list(CSV_COLUMNS)
    assert [(each["id"], each["created_at"], each["type"]) for each in found] == [
        (each["id"], each["created_at"], each["type"]) for each in whole
    ]
    assert {(each["actor"], each["actor_name"], each["client_address"]) for each in found} == {
        (key_id, "ward app", "127.0.0.1")
    }
    assert [each["device_id"] for each in found] == [devices[0], *reversed(devices)]
    assert "BP-4" in found[1]["facts"]
    assert answer.text.count("\r\n") == len(whole) + 1, "a record has one line"
    some = records(await api.back_end.get(PATH, params={"actor": key_id, "limit": "2"}, headers=CSV))
    assert some == found[:2]
    rest = records(await api.back_end.get(PATH, params={"actor": key_id, "cursor": some[-1]["id"]}, headers=CSV))
    assert rest == found[2:]


async def test_a_name_that_is_a_formula_is_defused(api: Api) -> None:
    """A key's name and each fact: the cell begins with an apostrophe, or with the bracket of JSON."""
    for number, name in enumerate((FORMULA, "+1", "-1", "@SUM(1)", "\uff1d1")):
        _, client = await other(api, name)
        await registers(client, f"BP-{number}")
    found = records(await api.back_end.get(PATH, headers=CSV))
    assert [each["actor_name"][:2] for each in found] == ["'\uff1d", "'@", "'-", "'+", "'="]
    assert {each["facts"][0] for each in found} == {"{"}


async def test_a_csv_goes_on_where_its_last_event_was_pruned(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """It pages by the place in the trail, which needs no row to be there."""
    monkeypatch.setattr(csv_stream, "ROWS", 1)
    await registers(api.back_end, *(f"BP-{number}" for number in range(4)))
    whole = [each["id"] for each in await listed(api)]
    real = event_list.page_of_project
    read: list[int] = []

    def prunes(view: Any, project_id: str, query: Any, before: int | None, limit: int) -> Any:
        rows = real(view, project_id, query, before, limit)
        read.extend(row.seq for row in rows)
        return rows

    monkeypatch.setattr(event_list, "page_of_project", prunes)
    async with api.back_end.stream("GET", PATH, headers=CSV) as answer:
        lines = answer.aiter_lines()
        text = [await anext(lines), await anext(lines)]
        await api.store.write(lambda tx: tx.run("DELETE FROM events WHERE seq = ?", read[0]))
        text += [line async for line in lines]
    assert [line.split(",")[0] for line in text[1:]] == whole


async def test_a_csv_that_breaks_off_is_no_whole_file(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks, so that a reader does not take a part for the whole."""
    monkeypatch.setattr(csv_stream, "ROWS", 1)
    await registers(api.back_end, "BP-1", "BP-2")
    real = event_list.page_of_project

    def fails(view: Any, project_id: str, query: Any, before: int | None, limit: int) -> Any:
        if before is not None:
            raise UnavailableError("The registry is away.")
        return real(view, project_id, query, before, limit)

    monkeypatch.setattr(event_list, "page_of_project", fails)
    with pytest.raises(httpx.RemoteProtocolError):
        await api.back_end.get(PATH, headers=CSV)


async def test_the_stream_follows_one_actor(api: Api) -> None:
    """What others do is left out."""
    key_id, client = await other(api, "ward app")
    (first,) = await registers(client, "BP-1")
    await registers(api.back_end, "BP-2")
    (last,) = await registers(client, "BP-3")
    seen: list[str] = []
    query = {"actor": key_id, "last_event_id": "evt_0"}
    async with api.back_end.stream("GET", f"{PATH}/stream", params=query) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                seen.append(line)
            if len(seen) == 2:
                break
    assert [first in seen[0], last in seen[1]] == [True, True]
