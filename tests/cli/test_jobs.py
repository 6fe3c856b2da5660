"""``gateway jobs`` on a data directory: how targets are chosen and confirmed, and what each command prints."""

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.cli.jobs import FoundJob
from gateway.store import open_database
from tests.cli.support import Cli

REBOOT = ("jobs", "create", "--name", "reboot", "--action", "reboot")
RECALL = ("jobs", "create", "--name", "Recall 12", "--action", "factory_reset")
LATER = ("--start-at", "in 2h")


def test_a_dry_run_lists_what_would_happen(cli: Cli, tmp_path: Path) -> None:
    """By id, serial number or file; a line that no device has is named in the outcome; nothing is done."""
    one, two = (cli.bound(f"BP-{number}")["id"] for number in (1, 2))
    listed = tmp_path / "ids.txt"
    listed.write_text(f"# returned\nBP-2\n\n{one}\nBP-gone\n")
    said = cli(*RECALL, "--from-file", str(listed), "--device", "BP-1", "--dry-run")
    assert [[cell.strip() for cell in row] for row in said.rows] == [
        [one, "would_queue", "-"],
        [two, "would_queue", "-"],
        ["BP-gone", "skipped", "not_found"],
    ]
    assert "3 devices: 2 would_queue, 1 not_found (of these wait: 2 never_seen). Nothing was done." in said.err
    assert cli.json(*RECALL, "--all", "--dry-run")["counts"] == {"would_queue": 2}
    cli("devices", "tag", two, "--add", "batch-12")
    (only,) = cli.json(*REBOOT, "--tag", "batch-12", "--status", "bound", "--never-seen", "--dry-run")["devices"]
    assert only["device_id"] == two
    assert cli.json("jobs", "list") == []


def test_many_serial_numbers_are_looked_up_at_once(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the list of devices, which is read once; the targets are the same."""
    ids = [cli.json("devices", "register", f"BP-{number}")["id"] for number in range(3)]
    monkeypatch.setattr("gateway.cli.job_create._LOOKED_UP", 2)
    listed = tmp_path / "serials.txt"
    listed.write_text("BP-2\nBP-1\nBP-0\nBP-9\n")
    preview = cli.json(*RECALL, "--from-file", str(listed), "--dry-run")
    assert [each["device_id"] for each in preview["devices"]] == [*ids[::-1], "BP-9"]


def test_a_job_is_created_with_all_that_was_said(cli: Cli) -> None:
    """Action, pace, ramp, abort, start and reason reach the job; it is listed, shown, paused and cancelled."""
    device = cli.bound("BP-1")["id"]
    before = datetime.now(UTC)
    job = cli.json(
        *(*RECALL, "--device", "BP-1", "--recordings", "wipe", "--reason", "Batch 12", *LATER, "--per-minute", "600"),
        *("--ramp-from", "10", "--double-after", "1m", "--abort-percent", "5", "--abort-min", "3"),
        *("--confirm-count", "1"),
    )
    assert job["action"] == {"type": "factory_reset", "params": {"recordings": "wipe"}, "ttl_seconds": None}
    assert job["pace"] == {"per_minute": 600, "ramp": {"from_per_minute": 10, "double_after": 60}}
    assert job["abort"] == {"failed_percent": 5, "min_done": 3}
    assert (job["status"], job["name"], job["reason"]) == ("scheduled", "Recall 12", "Batch 12")
    start = datetime.fromisoformat(job["start_at"])
    assert timedelta(seconds=-1) <= start - before - timedelta(hours=2) < timedelta(minutes=5)

    (row,) = cli("jobs", "list").rows
    assert [cell.strip() for cell in row][:7] == [job["id"], "Recall 12", "factory_reset", "scheduled", "1", "0", "0"]
    assert cli.json("jobs", "show", job["id"]) == job
    assert "waiting" in cli("jobs", "show", job["id"]).out
    (target,) = cli.json("jobs", "devices", job["id"], "--outcome", "waiting", "--outcome", "failed")
    assert (target["device_id"], target["outcome"]) == (device, "waiting")
    assert cli("jobs", "devices", job["id"]).rows[0][1].strip() == "BP-1"
    assert "scheduled" in cli("jobs", "pause", job["id"], code=5).err
    cancelled = cli("jobs", "cancel", job["id"])
    assert f"gateway jobs watch {job['id']} --data-dir {cli.data_dir}" in cancelled.err
    assert cli.json("jobs", "list", "--status", "cancelled")[0]["id"] == job["id"]
    assert "cancelled" in cli("jobs", "cancel", job["id"], code=5).err
    assert "There is no job" in cli("jobs", "show", "job_none", code=4).err


def test_a_command_has_params_and_a_time_to_live(cli: Cli) -> None:
    """As `commands send` has; a job without an abort threshold says so; it is paused and resumed."""
    cli.bound("BP-1")
    job = cli.json(
        *("jobs", "create", "--name", "Night upload", "--type", "trigger_upload", "--param", "network=wifi"),
        *("--ttl", "10m", "--all", "--no-abort", "--confirm-count", "1"),
    )
    assert job["action"] == {"type": "trigger_upload", "params": {"network": "wifi"}, "ttl_seconds": 600}
    assert job["abort"] is None
    assert cli.json("jobs", "pause", job["id"])["status"] == "paused"
    assert "paused" in cli("jobs", "pause", job["id"], code=5).err
    assert cli.json("jobs", "resume", job["id"])["status"] == "running"


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ((), 2, "Say which devices"),
        (("--all", "--tag", "a"), 2, "--all alone"),
        (("--device", "BP-1", "--tag", "a"), 2, "not by both"),
        (("--device", "BP-none"), 4, "There is no device"),
        (("--from-file", "/dev/null"), 1, "targets.device_ids: should have at least 1 item"),
        (("--all", "--ramp-from", "10"), 2, "go together"),
        (("--all", "--ramp-from", "10", "--double-after", "0"), 2, "--double-after should be whole seconds"),
        (("--all", "--ramp-from", "900", "--double-after", "1m", "--per-minute", "60"), 1, "pace.ramp"),
        (("--all", "--per-minute", "0"), 2, "per-minute"),
        (("--all", "--no-abort", "--abort-min", "3"), 2, "--no-abort goes with"),
        (("--all", "--start-at", "2020-01-01T00:00:00Z"), 1, "start_at"),
        (("--all", "--start-at", "tomorrow"), 1, "start_at"),
        (("--tag", "a,b"), 1, "without a comma"),
        (("--tag", "none"), 1, "targets.filter"),
        (("--all", "--confirm-count", "7"), 5, "is 7, and this job has 1"),
        (("--all",), 2, "add --confirm-count 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: tuple[str, ...], code: int, says: str, cli: Cli) -> None:
    """The option or the field is named, and there is no job."""
    cli.bound("BP-1")
    said = cli(*RECALL, *options, code=code)
    assert says in said.err
    assert cli.json("jobs", "list") == []


def test_recordings_are_for_a_reset_alone(cli: Cli) -> None:
    """A command does nothing with them."""
    assert "--recordings is for" in cli(*REBOOT, "--all", "--recordings", "wipe", code=2).err


@pytest.mark.usefixtures("terminal")
def test_the_count_is_typed_at_a_terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another number, or nothing, does nothing; the question says what will happen."""
    cli.bound("BP-1")
    for wrong in ("", "2", "yes"):
        monkeypatch.setattr("click.termui.visible_prompt_func", lambda _, typed=wrong: typed)
        said = cli(*RECALL, "--all", code=1)
        assert "'Recall 12' will do factory_reset on 1 device: 1 would_queue" in said.err
        assert "Nothing was done" in said.err
    assert cli.json("jobs", "list") == []
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: " 1 ")
    said = cli(*RECALL, "--all")
    assert "running" in said.out
    assert "To follow it: gateway jobs watch job_" in said.err


def test_the_exit_code_of_watch_says_how_a_job_ended(cli: Cli) -> None:
    """0 completed, 8 not in time, 9 aborted, 10 cancelled; with JSON each change is a line."""
    done = cli.json(*RECALL, "--device", "dev_never", "--confirm-count", "1")
    assert "completed, 1 skipped" in cli("jobs", "watch", done["id"]).err
    assert json.loads(cli(*RECALL, "--device", "dev_never", "--confirm-count", "1", "--watch", "--json").out)
    cli.bound("BP-1")
    job = cli.json(*RECALL, "--device", "BP-1", "--confirm-count", "1")
    said = cli("jobs", "watch", job["id"], "--timeout", "1s", "--json", code=8)
    (line,) = said.out.splitlines()
    assert json.loads(line)["status"] == "running"
    cli("jobs", "cancel", job["id"])
    assert "cancelled" in cli("jobs", "watch", job["id"], code=10).out
    with closing(open_database(cli.data_dir)) as connection:  # as the worker of a gateway writes it
        connection.execute(
            "UPDATE jobs SET status = 'aborted', aborted_because = '2 of 3 failed', queued = 1 WHERE id = ?",
            (job["id"],),
        )
        connection.commit()
    aborted = cli("jobs", "watch", job["id"], code=9)
    assert "2 of 3 failed" in aborted.out
    assert f"1 device still gets what was queued. To take that back: gateway jobs cancel {job['id']}" in aborted.err


def test_shells_complete_jobs(cli: Cli) -> None:
    """The newest, with status and name; nothing where there is no registry."""
    job = cli.json(*RECALL, "--device", "dev_never", "--confirm-count", "1")
    (item,) = FoundJob().shell_complete(_Context(cli), _Context.PARAM, "job_")  # type: ignore[arg-type]
    assert (item.value, item.help) == (job["id"], "completed Recall 12")
    assert FoundJob().shell_complete(_Context(None), _Context.PARAM, "") == []  # type: ignore[arg-type]


class _Context:
    """What a shell has typed so far."""

    PARAM = None

    def __init__(self, cli: Cli | None) -> None:
        self.params = {"data_dir": str(cli.data_dir) if cli else "/nowhere/at/all", "url": None}
