"""``gateway audit``: who did what, by a key's id or name, as lines, as JSON and as CSV."""

import csv
import io
import json
from contextlib import closing
from functools import partial

import pytest

from gateway.domain import administration, devices
from gateway.errors import UnavailableError
from gateway.models.devices import RegisterDevice
from gateway.runtime.os_user import os_user
from gateway.store import Context, View, event_list, event_sql, key_sql, open_database, transact
from gateway.store.event_list import CSV_COLUMNS
from tests.cli.support import Cli

FORMULA = "=1+1"


def acts(cli: Cli, name: str, *serials: str) -> str:
    """Make a key with this name, which registers devices; its id."""
    with closing(open_database(cli.data_dir)) as connection:
        project_id = key_sql.projects(View(connection))[0].id
        key_id = transact(connection, Context(), lambda tx: key_sql.create(tx, project_id, name))[0]
        for each in serials:
            register = partial(devices.register, project_id=project_id, body=RegisterDevice(serial_number=each))
            transact(connection, Context(), partial(register, actor=key_id))
    return key_id


def serials(cli: Cli, *options: str) -> list[str]:
    """The devices whose registration ``gateway audit`` shows, from above."""
    events = map(json.loads, cli("audit", "--json", *options).out.splitlines())
    return [each["data"]["serial_number"] for each in events if each["type"] == "device.registered"]


def test_an_actor_is_named_by_id_or_name(cli: Cli) -> None:
    """The newest event first; the line names both."""
    key_id = acts(cli, "ward app", "BP-1", "BP-2")
    acts(cli, "other", "BP-3")
    assert serials(cli, "--actor", key_id) == serials(cli, "--actor", "ward app") == ["BP-2", "BP-1"]
    assert serials(cli, "--actor", key_id, "--limit", "1") == ["BP-2"]
    assert serials(cli) == ["BP-3", "BP-2", "BP-1"]
    first, second = cli("audit", "--actor", "ward app").out.splitlines()
    assert f"by ward app ({key_id})" in first
    assert ["BP-2" in first, "BP-1" in second] == [True, True]
    assert serials(cli, "--device", "BP-3", "--type", "device.registered") == ["BP-3"]
    assert serials(cli, "--until", "1h") == []
    assert serials(cli, "--since", "1h") == ["BP-3", "BP-2", "BP-1"]


def test_what_the_command_line_did_has_its_user(cli: Cli) -> None:
    """``cli`` is an actor like others."""
    cli("devices", "register", "BP-1")
    (event,) = map(json.loads, cli("audit", "--actor", "cli", "--type", "device.registered", "--json").out.splitlines())
    assert event["data"]["actor_name"] == os_user()


def test_a_name_that_fits_none_or_several_is_refused(cli: Cli) -> None:
    """With the ids to choose from."""
    ids = [acts(cli, "app", "BP-1"), acts(cli, "app", "BP-2")]
    refused = cli("audit", "--actor", "app", code=2).err
    assert all(each in refused for each in ids)
    unknown = cli("audit", "--actor", "apq", code=4).err
    assert "nothing was done by 'apq'" in unknown
    assert f"{ids[0]} (app)" in unknown


def test_csv_has_all_events(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The columns of the API, every record in one line, and no cell that a spreadsheet runs."""
    monkeypatch.setattr("gateway.http.csv_stream.ROWS", 2)
    key_id = acts(cli, FORMULA, *(f"BP-{number}" for number in range(5)))
    text = cli("audit", "--actor", key_id, "--csv").out
    found = list(csv.DictReader(io.StringIO(text, newline="")))
    assert list(found[0]) == list(CSV_COLUMNS)
    assert [json.loads(each["facts"])["serial_number"] for each in found] == ["BP-4", "BP-3", "BP-2", "BP-1", "BP-0"]
    assert {each["actor_name"] for each in found} == {f"'{FORMULA}"}
    assert cli("audit", "--actor", key_id, "--csv", "--limit", "2").out.splitlines() == text.splitlines()[:3]


def test_csv_and_json_exclude_each_other(cli: Cli) -> None:
    """One of them is named."""
    assert "--csv and --json exclude each other" in cli("audit", "--csv", "--json", code=2).err


def test_a_csv_that_breaks_off_is_no_success(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1, and a message that says so; it does not wait for the rest."""
    monkeypatch.setattr("gateway.http.csv_stream.ROWS", 1)
    acts(cli, "app", "BP-1", "BP-2")
    real = event_list.page_of_project

    def fails(*asked: object) -> object:
        if asked[3] is not None:
            raise UnavailableError("The registry is away.")
        return real(*asked)  # type: ignore[arg-type]

    monkeypatch.setattr(event_list, "page_of_project", fails)
    assert "broke off" in cli("audit", "--csv", code=1).err


def test_events_of_the_registry_stay_where_they_were(cli: Cli) -> None:
    """``audit`` shows a project; ``events security`` those of the registry, by actor too."""
    with closing(open_database(cli.data_dir)) as connection:
        transact(connection, Context(), lambda tx: administration.rotate_signing_key(tx, "gateway"))
        transact(connection, Context(), lambda tx: administration.rotate_signing_key(tx, event_sql.CLI))
    assert "signing_key" not in cli("audit", "--limit", "0").out
    for actor in ("cli", "gateway"):
        (line,) = cli(
            "events", "security", "--type", "signing_key.rotated", "--actor", actor, "--json"
        ).out.splitlines()
        assert json.loads(line)["data"]["actor"] == actor


def test_the_list_of_resets_names_who_asked(cli: Cli) -> None:
    """By name and id."""
    device = cli.bound()
    cli("devices", "reset", device["id"], "--yes")
    assert f"{os_user()} (cli)" in cli("resets", "list").out


def test_the_newest_events_of_an_actor_are_printed(cli: Cli) -> None:
    """``events tail``: the oldest of them first."""
    key_id = acts(cli, "app", "BP-1", "BP-2")
    acts(cli, "other", "BP-3")
    lines = cli("events", "tail", "--actor", key_id).out.splitlines()
    assert ["BP-1" in lines[0], "BP-2" in lines[1], len(lines)] == [True, True, 2]
