"""``gateway resets``: which are open and how the others ended, for people, for programs and for a scheduler."""

import csv
import io
import json
from contextlib import closing
from typing import Any

import pytest

from gateway.models.reset_list import CSV_COLUMNS
from gateway.store import open_database
from tests.cli.support import Cli

DAY_MS = 86_400_000
FORMULA = "=HYPERLINK(1)"


def reset(cli: Cli, serial: str, *options: str) -> str:
    """A device whose reset was requested; its id."""
    device_id: str = cli.bound(serial)["id"]
    cli("devices", "reset", device_id, "--yes", *options)
    return device_id


def age(cli: Cli, device_id: str, milliseconds: int) -> None:
    """Have the reset of a device been requested so much earlier."""
    with closing(open_database(cli.data_dir)) as connection:
        connection.execute(
            "UPDATE resets SET requested_at = requested_at - ? WHERE device_pk = (SELECT pk FROM devices WHERE id = ?)",
            (milliseconds, device_id),
        )
        connection.commit()


def document(cli: Cli, *arguments: str) -> Any:
    """What a command prints as JSON."""
    return json.loads(cli("resets", *arguments, "--format", "json").out)


def records(text: str) -> list[dict[str, str]]:
    """What a reader of CSV finds."""
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.fixture
def three(cli: Cli) -> list[str]:
    """Three devices: the reset of the first was cancelled, the second waits for 40 days, the third is new."""
    ids = [reset(cli, "BP-1", "--reason", FORMULA), reset(cli, "BP-2"), reset(cli, "BP-3")]
    cli("devices", "cancel-resets", ids[0], "--yes")
    age(cli, ids[1], 40 * DAY_MS)
    return ids


def test_resets_are_listed_in_three_forms(cli: Cli, three: list[str]) -> None:
    """A table for people, JSON, and CSV with the columns of the API, whose cells no spreadsheet runs."""
    as_json = document(cli, "list")
    assert [each["device_id"] for each in as_json] == [three[2], three[0], three[1]]
    table = cli("resets", "list").rows
    assert [(row[0], row[1], row[3]) for row in table] == [
        (each["command_id"], each["device_id"], each["status"]) for each in as_json
    ]
    found = records(cli("resets", "list", "--format", "csv").out)
    assert list(found[0]) == list(CSV_COLUMNS)
    assert [each["command_id"] for each in found] == [each["command_id"] for each in as_json]
    assert found[1]["reason"] == f"'{FORMULA}"


def test_resets_are_filtered(cli: Cli, three: list[str]) -> None:
    """By device, status and time, which may be how long ago; the oldest first when asked; and no more than asked."""
    assert [each["device_id"] for each in document(cli, "list", "--status", "open", "--order", "asc")] == three[1:]
    assert [each["device_id"] for each in document(cli, "list", "--device", "BP-2")] == [three[1]]
    assert [each["device_id"] for each in document(cli, "list", "--since", "30d")] == [three[2], three[0]]
    assert [each["device_id"] for each in document(cli, "list", "--until", "30d")] == [three[1]]
    assert [each["device_id"] for each in document(cli, "list", "--time", "finished_at")] == [three[0]]
    some = cli("resets", "list", "--limit", "2")
    assert (len(some.rows), "--limit 0 lists all" in some.err) == (2, True)
    assert len(document(cli, "list", "--limit", "0")) == 3


def test_the_report_has_open_ones_by_age_and_finished_ones_by_outcome(cli: Cli, three: list[str]) -> None:
    """For people in words, for programs with the resets of the period, as CSV with those alone."""
    said = cli("resets", "report").out
    for words in ("Open: 2", "under 1 hour", "30 days and more", "Ended in the period: 1", "Cancelled", three[0]):
        assert words in said
    found = document(cli, "report", "--since", "1d")
    assert (found["open"]["count"], found["finished"]["cancelled"]) == (2, 1)
    assert [each["device_id"] for each in found["resets"]] == [three[0]]
    assert [each["status"] for each in records(cli("resets", "report", "--format", "csv").out)] == ["cancelled"]
    none = document(cli, "report", "--until", "1d")
    assert (none["finished"]["cancelled"], none["resets"], none["open"]["count"]) == (0, [], 2)


def test_the_report_is_a_check(cli: Cli, three: list[str]) -> None:
    """7 when a reset has been open for longer than allowed, and 0 otherwise."""
    assert "longer ago than --max-age" in cli("resets", "report", "--max-age", "30d", code=7).err
    cli("resets", "report", "--max-age", "60d")
    cli("devices", "cancel-resets", three[1], "--yes")
    cli("resets", "report", "--max-age", "30d")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list", "--since", "yesterday"], "since"),
        (["report", "--since", "1d", "--until", "2d"], "until"),
        (["list", "--until", "2026-02-30T00:00:00Z"], "until"),
    ],
)
def test_a_wrong_time_is_named(cli: Cli, arguments: list[str], words: str) -> None:
    """In the words of the API."""
    assert words in cli("resets", *arguments, code=1).err


def test_a_wrong_option_is_a_usage_error(cli: Cli) -> None:
    """An unknown status, format or duration."""
    for wrong in (["--status", "wiped"], ["--format", "pdf"], ["--order", "up"]):
        assert wrong[0] in cli("resets", "list", *wrong, code=2).err
    assert "--max-age" in cli("resets", "report", "--max-age", "long", code=2).err
