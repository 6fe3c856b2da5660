"""The list of devices as CSV: all that pass the filters, in the order of the list; no cell is run by a spreadsheet."""

import csv
import io
import json

import httpx
import pytest

from gateway.errors import UnavailableError
from gateway.http import csv_stream
from gateway.models.devices import CSV_COLUMNS, ListDevices
from gateway.store import View, device_list
from gateway.store.device_list import ListedDevice
from tests.http.support import Api, body, error

PATH = "/v1/devices"
CSV = {"Accept": "text/csv"}


def records(answer: httpx.Response) -> list[dict[str, str]]:
    """What a reader of CSV finds in an answer."""
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/csv")
    assert answer.text.endswith("\r\n")
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


async def test_csv_has_the_devices_of_the_list(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them without a limit, however many pages that is; filters, order and limit count as in JSON."""
    monkeypatch.setattr(csv_stream, "ROWS", 2)
    for number in range(5):
        device = await api.registered(f"BP-{number}", name=f"=cmd{5 - number}", metadata={"bed": "ä"})
        change = {"tags": ["all", *(["odd"] if number % 2 else [])]}
        body(await api.back_end.patch(f"{PATH}/{device['id']}", json=change), 200)
    for query in ({}, {"sort": "name"}, {"tag": "odd"}, {"offset": 1}, {"search": "BP-3"}, {"total": "true"}):
        as_json = body(await api.back_end.get(PATH, params={**query, "limit": 100}), 200)["data"]
        found = records(await api.back_end.get(PATH, params=query, headers=CSV))
        assert [each["id"] for each in found] == [each["id"] for each in as_json], query
    as_json = body(await api.back_end.get(PATH), 200)["data"]
    answer = await api.back_end.get(PATH, headers=CSV)
    found = records(answer)
    assert answer.headers["content-disposition"] == 'attachment; filename="devices.csv"'
    assert list(found[0]) == list(CSV_COLUMNS)
    for shown, device in zip(found, as_json, strict=True):
        assert shown["name"] == f"'{device['name']}"
        assert shown["tags"] == " ".join(device["tags"])
        assert json.loads(shown["metadata"]) == device["metadata"]
        plain = {name: device[name] for name in CSV_COLUMNS if name not in ("name", "tags", "metadata")}
        expected = {name: "" if value is None else str(value) for name, value in plain.items()}
        assert {name: shown[name] for name in expected} == expected
    some = records(await api.back_end.get(PATH, params={"limit": "3"}, headers=CSV))
    assert [each["serial_number"] for each in some] == ["BP-4", "BP-3", "BP-2"]
    none = await api.back_end.get(PATH, params={"tag": "none"}, headers=CSV)
    assert none.text == ",".join(CSV_COLUMNS) + "\r\n"


async def test_a_wrong_request_for_a_csv_is_refused(api: Api) -> None:
    """Before the first line: a wrong cursor, a wrong filter, a format that there is not."""
    await api.registered("BP-1")
    for query, field in ({"cursor": "x"}, "cursor"), ({"tag": "a,b"}, "tag.0"):
        refused = error(await api.back_end.get(PATH, params=query, headers=CSV), 400, "invalid_request")
        assert refused["details"]["field"] == field
    refused = error(await api.back_end.get(PATH, headers={"Accept": "text/html"}), 406, "not_acceptable")
    assert refused["details"]["offered"] == ["application/json", "text/csv"]


async def test_a_csv_that_breaks_off_is_no_whole_file(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry fails after the first page: the connection breaks, so that no client takes the file for whole."""
    monkeypatch.setattr(csv_stream, "ROWS", 1)
    for number in range(3):
        await api.registered(f"BP-{number}")
    page = device_list.page

    def failing(view: View, project_id: str, query: ListDevices) -> list[ListedDevice]:
        if query.cursor is not None:
            raise UnavailableError("The registry cannot be read.")
        return page(view, project_id, query)

    monkeypatch.setattr(device_list, "page", failing)
    with pytest.raises(httpx.RemoteProtocolError):
        await api.back_end.get(PATH, headers=CSV)
