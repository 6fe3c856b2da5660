"""Lists of resets over HTTP: filters, pages, CSV and the summary; nothing of another project."""

import csv
import io
from typing import Any

import httpx
import pytest

from gateway.errors import UnavailableError
from gateway.http import csv_stream
from gateway.http.resources import reset_list as resource
from gateway.models.reset_list import AGES, CSV_COLUMNS, ListResets
from gateway.store import View, reset_list
from gateway.store.reset_list import ListedReset
from tests.http.support import Api, Json, body, error
from tests.support.receipts import receipt_of

PATH = "/v1/resets"
CSV = {"Accept": "text/csv"}
HOUR_MS = 3_600_000
FORMULA = "=HYPERLINK(1)"


async def listed(api: Api, path: str = PATH, **query: object) -> Json:
    """One page."""
    return body(await api.back_end.get(path, params={name: str(value) for name, value in query.items()}), 200)


async def ids(api: Api, path: str = PATH, **query: object) -> list[str]:
    """The commands of a page."""
    return [each["command_id"] for each in (await listed(api, path, **query))["data"]]


async def reset(api: Api, serial: str, **asked: str) -> Json:
    """A device of its own whose reset was requested: its bind with the command."""
    bound = await api.bound(serial)
    body(await api.back_end.post(f"/v1/devices/{bound['id']}/reset", json=asked), 200)
    command = body(await api.back_end.get(f"/v1/devices/{bound['id']}/commands"), 200)["data"][0]
    return {**bound, "command": command}


async def executed(api: Api, serial: str, **asked: str) -> Json:
    """The same, and the device has carried it out."""
    made = await reset(api, serial, **asked)
    for status in ("delivered", "executed"):
        ack = {"status": status, "receipt": receipt_of(made["device_token"], made["command"], status)}
        path = f"/v1/devices/me/commands/{made['command']['id']}/ack"
        body(await api.as_(made["device_token"]).post(path, json=ack), 200)
    return made


async def cancelled(api: Api, serial: str) -> Json:
    """The same, taken back."""
    made = await reset(api, serial)
    body(await api.back_end.post(f"/v1/devices/{made['id']}/commands/{made['command']['id']}/cancel"), 200)
    return made


def records(answer: httpx.Response) -> list[dict[str, str]]:
    """What a reader of CSV finds in an answer."""
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/csv")
    assert answer.text.endswith("\r\n")
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


async def test_a_reset_is_listed_with_who_asked_and_how_it_ended(api: Api) -> None:
    """Newest first; an open one with its age, a finished one with its time."""
    first = await executed(api, "BP-1", reason="Returned by ward 3", recordings="wipe")
    second = await reset(api, "BP-2")
    api.clock.ahead_ms += 90_000
    open_, done = (await listed(api))["data"]
    assert (open_["command_id"], done["command_id"]) == (second["command"]["id"], first["command"]["id"])
    assert (open_["status"], open_["age_seconds"], open_["finished_at"], open_["certificate_id"]) == (
        "open",
        90,
        None,
        None,
    )
    assert (done["status"], done["age_seconds"]) == ("executed", None)
    assert (done["serial_number"], done["reason"], done["recordings"]) == ("BP-1", "Returned by ward 3", "wipe")
    assert (done["requested_by"], done["requested_by_name"]) == (api.key_id, "back end")
    assert done["requested_at"] <= done["delivered_at"] <= done["finished_at"] == done["token_revoked_at"]
    assert open_["token_revoked_at"] is None
    assert (await listed(api, f"/v1/devices/{first['id']}/resets"))["data"] == [done]


async def test_resets_are_filtered_by_status_time_and_device(api: Api) -> None:
    """Alone and together; with ``finished_at`` open ones are left out, and the order goes by it."""
    late, early = await reset(api, "BP-1"), await executed(api, "BP-2")
    api.clock.ahead_ms += HOUR_MS
    gone = await cancelled(api, "BP-3")
    body(await api.back_end.post(f"/v1/devices/{late['id']}/commands/{late['command']['id']}/cancel"), 200)
    waits = await reset(api, "BP-4")
    one, two, three, four = (each["command"]["id"] for each in (late, early, gone, waits))
    since = gone["command"]["created_at"]
    assert await ids(api) == [four, three, two, one]
    assert await ids(api, order="asc") == [one, two, three, four]
    assert await ids(api, status="open") == [four]
    assert await ids(api, status="cancelled") == [three, one]
    assert await ids(api, status="superseded") == []
    assert await ids(api, time="finished_at") == [one, three, two]
    assert await ids(api, time="finished_at", order="asc", status="cancelled") == [three, one]
    assert await ids(api, since=since) == [four, three]
    assert await ids(api, until=since) == [two, one]
    assert await ids(api, time="finished_at", since=since) == [one, three]
    assert await ids(api, since=since, until=since) == []
    assert await ids(api, device_id=gone["id"]) == [three]
    assert await ids(api, device_id="dev_nobody") == []


async def test_resets_are_paged_in_both_orders(api: Api) -> None:
    """Each once, also when new ones come between two pages, and with any filter."""
    for number in range(5):
        await cancelled(api, f"BP-{number}")
    for query in ({}, {"order": "asc"}, {"time": "finished_at"}, {"status": "cancelled", "time": "finished_at"}):
        whole, pages = await ids(api, **query), []
        page = await listed(api, limit=2, **query)
        while page["has_more"]:
            pages += [each["command_id"] for each in page["data"]]
            page = await listed(api, limit=2, cursor=page["next_cursor"], **query)
        pages += [each["command_id"] for each in page["data"]]
        assert (query, pages) == (query, whole)
        assert page["next_cursor"] is None


async def test_a_deleted_device_keeps_its_resets(api: Api) -> None:
    """They outlive it, in both lists."""
    made = await cancelled(api, "BP-1")
    body(await api.back_end.delete(f"/v1/devices/{made['id']}"), 200)
    assert await ids(api, f"/v1/devices/{made['id']}/resets") == await ids(api) == [made["command"]["id"]]


async def test_csv_has_the_same_as_json(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it without a limit, however many pages that is; no cell is run by a spreadsheet."""
    monkeypatch.setattr(csv_stream, "ROWS", 2)
    for number in range(5):
        await cancelled(api, f"BP-{number}")
    await executed(api, "BP-5", reason=FORMULA)
    as_json = (await listed(api, limit=100))["data"]
    answer = await api.back_end.get(PATH, headers=CSV)
    found = records(answer)
    assert answer.headers["content-disposition"] == 'attachment; filename="resets.csv"'
    assert list(found[0]) == list(CSV_COLUMNS)
    assert found[0]["reason"] == f"'{FORMULA}"
    as_json[0]["reason"] = f"'{FORMULA}"
    assert found == [{name: "" if value is None else str(value) for name, value in each.items()} for each in as_json]
    some = records(await api.back_end.get(PATH, params={"limit": "3", "status": "cancelled"}, headers=CSV))
    assert [each["command_id"] for each in some] == await ids(api, limit=3, status="cancelled")
    none = await api.back_end.get(PATH, params={"status": "failed"}, headers=CSV)
    assert none.text == ",".join(CSV_COLUMNS) + "\r\n"


async def test_a_csv_that_breaks_off_is_no_whole_file(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry fails after the first page: the connection breaks, so that no client takes the file for whole."""
    monkeypatch.setattr(csv_stream, "ROWS", 1)
    for number in range(3):
        await cancelled(api, f"BP-{number}")

    def failing(view: View, project_id: str, query: ListResets, *asked: Any) -> list[ListedReset]:
        if query.cursor is not None:
            raise UnavailableError("The registry cannot be read.")
        return reset_list.page(view, project_id, query, *asked)

    monkeypatch.setattr(resource, "page", failing)
    with pytest.raises(httpx.RemoteProtocolError):
        await api.back_end.get(PATH, headers=CSV)


async def test_the_summary_counts_by_age_and_outcome(api: Api) -> None:
    """Open ones whatever the period, finished ones within it."""
    await reset(api, "BP-1")
    await cancelled(api, "BP-2")
    api.clock.ahead_ms += 25 * HOUR_MS
    await reset(api, "BP-3")
    await executed(api, "BP-4")
    found = body(await api.back_end.get(f"{PATH}/summary"), 200)
    assert found["open"]["count"] == 2
    assert [each["count"] for each in found["open"]["by_age"]] == [1, 0, 1, 0, 0]
    assert [each["from_seconds"] for each in found["open"]["by_age"]] == list(AGES)
    oldest = (await listed(api, status="open", order="asc"))["data"][0]["requested_at"]
    assert found["open"]["oldest_requested_at"] == oldest
    assert found["finished"] == {"executed": 1, "failed": 0, "cancelled": 1, "superseded": 0}
    after = (await listed(api, time="finished_at"))["data"][0]["finished_at"]
    later = body(await api.back_end.get(f"{PATH}/summary", params={"since": after}), 200)
    assert later["finished"] == {"executed": 1, "failed": 0, "cancelled": 0, "superseded": 0}
    assert later["open"] == found["open"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=wiped", "status"),
        ("time=created_at", "time"),
        ("order=up", "order"),
        ("since=yesterday", "since"),
        ("until=2026-02-30T00:00:00Z", "until"),
        ("since=2026-11-02T00:00:00Z&until=2026-11-01T00:00:00Z", "until"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("cursor=cmd_nobody", "cursor"),
        ("cursor=evt_1", "cursor"),
        ("reason=x", "reason"),
    ],
)
async def test_an_invalid_parameter_is_refused(api: Api, query: str, field: str) -> None:
    """400 that names it, for JSON and CSV."""
    for headers in ({}, CSV):
        answer = error(await api.back_end.get(f"{PATH}?{query}", headers=headers), 400, "invalid_request")
        assert answer["details"]["field"] == field


async def test_a_cursor_belongs_to_one_list(api: Api) -> None:
    """The id of another command, an open reset where finished ones are listed, another device's reset: 400."""
    made, other = await reset(api, "BP-1"), await cancelled(api, "BP-2")
    bound = await api.bound("BP-3")
    reboot = body(await api.back_end.post(f"/v1/devices/{bound['id']}/commands", json={"type": "reboot"}), 201)
    for path, cursor in (
        (PATH, reboot["id"]),
        (f"{PATH}?time=finished_at", made["command"]["id"]),
        (f"/v1/devices/{made['id']}/resets", other["command"]["id"]),
    ):
        answer = await api.back_end.get(path, params={**httpx.URL(path).params, "cursor": cursor})
        assert error(answer, 400, "invalid_request")["details"]["field"] == "cursor"


async def test_another_media_type_is_refused(api: Api) -> None:
    """406 that says what there is."""
    made = await reset(api, "BP-1")
    for path in (PATH, f"/v1/devices/{made['id']}/resets"):
        refused = error(await api.back_end.get(path, headers={"Accept": "application/pdf"}), 406, "not_acceptable")
        assert refused["details"]["offered"] == ["application/json", "text/csv"]
        assert (await api.back_end.get(path, headers={"Accept": "text/html, */*;q=0.1"})).headers["vary"] == "Accept"


async def test_another_project_and_devices_see_nothing(api: Api) -> None:
    """No reset, no number, no cursor; a device's token opens none of it."""
    made = await reset(api, "BP-1")
    stranger = api.as_(await api.another_key(project="two"))
    assert body(await stranger.get(PATH), 200)["data"] == []
    assert records(await stranger.get(PATH, headers=CSV)) == []
    assert body(await stranger.get(f"{PATH}/summary"), 200)["open"]["count"] == 0
    error(await stranger.get(f"/v1/devices/{made['id']}/resets"), 404, "not_found")
    error(await stranger.get(f"{PATH}?cursor={made['command']['id']}"), 400, "invalid_request")
    for path in (PATH, f"{PATH}/summary", f"/v1/devices/{made['id']}/resets"):
        error(await api.as_(made["device_token"]).get(path), 401, "unauthorized")
