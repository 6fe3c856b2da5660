"""``gateway devices``, ``commands`` and ``events`` on a data directory, where no gateway runs."""

import json
import re
import shlex
from contextlib import closing

import pytest

from gateway.cli import main
from gateway.cli.device_lookup import DEVICE
from gateway.domain import devices
from gateway.models.devices import RegisterDevice
from gateway.store import Context, View, open_database, transact
from tests.cli.support import Cli

NO_GATEWAY = "warning: no gateway runs on this data directory, so which devices are online is not known.\n"


def test_a_device_is_registered_bound_reset_and_unbound(cli: Cli) -> None:
    """Register, bind, command, reset, bind again: each answer is that of the API, and the audit trail says ``cli``."""
    device = cli.json("devices", "register", "BP-1", "--name", "Ward 3", "--model", "bota_note")
    assert (device["serial_number"], device["name"], device["model"]) == ("BP-1", "Ward 3", "bota_note")
    bound = cli.json("devices", "bind", device["id"], "eu_1")
    assert bound["device_token"].startswith("dtok_")
    assert (bound["mqtt"]["host"], bound["mqtt"]["port"]) == ("127.0.0.1", 1883)
    reset = cli.json("devices", "reset", device["id"], "--yes", "--recordings", "wipe", "--reason", "sold")
    assert (reset["status"], reset["command"]["status"]) == ("unbound", "pending")
    assert reset["command"]["params"] == {"recordings": "wipe"}
    cancelled = cli.json("commands", "cancel", device["id"], reset["command"]["id"])
    assert cancelled["status"] == "cancelled"
    shown = cli.json("commands", "show", device["id"], reset["command"]["id"])
    assert shown == cancelled
    events = [json.loads(line) for line in cli("events", "tail", "--json").out.splitlines()]
    assert [event["type"] for event in events][:5] == [
        "key.created",
        "device.registered",
        "device.bound",
        "device.unbound",
        "reset.requested",
    ]
    assert {event["data"]["actor"] for event in events} == {"cli"}


def test_offline_changes_are_reported_as_waiting_for_the_broker(cli: Cli) -> None:
    """No gateway runs: the outbox holds it for the next start, and the person is told that the token is not known."""
    device = cli.json("devices", "register", "BP-1")
    said = cli("devices", "bind", device["id"], "eu_1")
    assert "no gateway runs here" in said.err
    with closing(open_database(cli.data_dir)) as connection:
        waiting = View(connection).all("SELECT kind FROM outbox WHERE kind <> 'mirror' ORDER BY kind")
        assert [row["kind"] for row in waiting] == ["credential", "topic"]


def test_a_device_is_deleted_and_restored(cli: Cli) -> None:
    """Gone from the list, refused while a reset is open, back unbound."""
    bound = cli.bound()
    cli("devices", "reset", bound["id"], "--yes")
    assert "reset" in cli("devices", "delete", bound["id"], "--yes", code=5).err
    command = cli.json("commands", "list", bound["id"])[0]
    cli("commands", "cancel", bound["id"], command["id"])
    assert cli.json("devices", "delete", bound["id"], "--yes")["deleted_at"]
    assert cli.json("devices", "list") == []
    cli("devices", "show", bound["id"], code=4)
    restored = cli.json("devices", "restore", bound["id"])
    assert (restored["deleted_at"], restored["status"]) == (None, "unbound")


def test_a_device_is_unbound(cli: Cli) -> None:
    """The binding ends, without a wipe."""
    bound = cli.bound()
    assert cli.json("devices", "unbind", bound["id"])["status"] == "unbound"
    assert cli.json("commands", "list", bound["id"]) == []


@pytest.mark.parametrize("verb", ["reset", "delete"])
def test_destructive_commands_ask_for_confirmation(cli: Cli, verb: str) -> None:
    """The question says which device that is; without a terminal and without --yes nothing is done."""
    bound = cli.bound("BP-7", "eu_42")
    said = cli("devices", verb, bound["id"], code=2)
    assert all(fact in said.err for fact in ("BP-7", "eu_42", "--yes", "Nothing was done"))
    assert cli.json("devices", "show", bound["id"])["status"] == "bound"


@pytest.mark.usefixtures("terminal")
def test_a_declined_confirmation_changes_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """And yes."""
    bound = cli.bound()
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "n")
    assert "Nothing was done" in cli("devices", "reset", bound["id"], code=1).err
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "y")
    assert "pending" in cli("devices", "reset", bound["id"]).out


def test_lists_are_read_to_their_end(cli: Cli) -> None:
    """Over pages of the API, newest first, up to the limit; the person hears that there is more."""
    made = [cli.json("devices", "register", f"BP-{number}")["id"] for number in range(3)]
    with closing(open_database(cli.data_dir)) as connection:  # 2,250 in all, without 2,247 more calls
        row = dict(View(connection).all("SELECT * FROM devices")[0])
        for number in range(2_247):
            copy = {**row, "pk": None, "id": f"dev_copy{number}", "serial_number": f"C-{number}"}
            marks = ", ".join("?" * len(copy))
            connection.execute(f"INSERT INTO devices ({', '.join(copy)}) VALUES ({marks})", list(copy.values()))  # noqa: S608 - our own columns
    assert len(cli.json("devices", "list", "--limit", "0")) == 2_250
    listed = cli.json("devices", "list", "--limit", "150")
    assert (len(listed), listed[0]["id"]) == (150, "dev_copy2246")
    assert len(cli.json("devices", "list", "--limit", "1500")) == 1_500
    assert "more than 2249" in cli("devices", "list", "--limit", "2249").err
    assert cli("devices", "list", "--limit", "2250").err == NO_GATEWAY
    assert [each["id"] for each in cli.json("devices", "list", "--serial-number", "BP-1")] == [made[1]]


def test_lists_are_filtered(cli: Cli) -> None:
    """Those of the API."""
    bound = cli.bound("BP-1", "eu_9")
    cli("devices", "register", "BP-2", "--model", "bota_note")
    for option, value in (("--status", "bound"), ("--end-user", "eu_9"), ("--model", "bota_pin")):
        assert [each["id"] for each in cli.json("devices", "list", option, value)] == [bound["id"]]
    assert len(cli.json("devices", "list", "--connection", "offline")) == 2


def test_lists_are_sorted(cli: Cli) -> None:
    """Those of the API, in the direction that fits the column unless another is asked for."""
    for serial, name in (("BP-2", "b"), ("BP-3", "A"), ("BP-1", "c")):
        cli("devices", "register", serial, "--name", name)

    def listed(*options: str) -> str:
        return "".join(each["serial_number"][-1] for each in cli.json("devices", "list", *options))

    assert (listed(), listed("--order", "asc")) == ("132", "231")
    assert (listed("--sort", "name"), listed("--sort", "name", "--order", "desc")) == ("321", "123")
    assert listed("--sort", "serial_number") == "123"


def test_tables_are_the_same_through_a_pipe(cli: Cli) -> None:
    """Each row one line, each id whole, whatever a device is called; nothing in it moves the cursor."""
    device = cli.json("devices", "register", "BP-1", "--name", "x" * 120)
    evil = cli.json("devices", "register", "BP-2")
    cli.rename(evil["id"], "a\x1b[2Jb\nc")
    listed = cli("devices", "list")
    assert len(listed.out.splitlines()) == 3
    assert [row[0] for row in listed.rows] == [evil["id"], device["id"]]
    assert "x" * 120 in listed.out
    assert "\x1b" not in listed.out + cli("devices", "show", evil["id"]).out
    assert "a\\x1b[2Jb\\x0ac" in listed.out


def test_a_project_is_required_among_several(cli: Cli) -> None:
    """A device's own project is found by its id; a list needs one to be named, by id or name."""
    here = cli.json("devices", "register", "BP-1")
    north = cli.json("projects", "create", "north")
    said = cli("devices", "list", code=2)
    assert "--project" in said.err
    assert north["id"] in said.err
    there = cli.json("devices", "register", "BP-1", "--project", "north")
    assert there["project_id"] == north["id"]
    for device in (here, there):
        assert cli.json("devices", "show", device["id"])["project_id"] == device["project_id"]
    assert [each["id"] for each in cli.json("devices", "list", "--project", north["id"])] == [there["id"]]
    cli("devices", "show", here["id"], "--project", "north", code=4)
    cli("devices", "list", "--project", "south", code=4)


def test_events_tail_lists_new_events(cli: Cli) -> None:
    """The newest ones, the oldest of them first; of one device, of one type."""
    one, two = cli.bound("BP-1"), cli.bound("BP-2")
    lines = cli("events", "tail", "--limit", "2").out.splitlines()
    assert [two["id"] in line for line in lines] == [True, True]
    assert re.search(r"  by \S+ \(cli\)  ", lines[0])
    assert len(cli("events", "tail", "--device", one["id"]).out.splitlines()) == 2
    assert len(cli("events", "tail", "--type", "device.bound").out.splitlines()) == 2
    assert cli("events", "tail", "--limit", "0").out == ""


def test_ids_are_completed(cli: Cli) -> None:
    """From the registry, with what else it is called beside them; without one there is nothing to complete."""
    device = cli.json("devices", "register", "BP-1", "--name", "Ward 3")
    found = DEVICE.shell_complete(_Context(cli), _Context.PARAM, "dev_")  # type: ignore[arg-type]
    assert [(item.value, item.help) for item in found] == [(device["id"], "BP-1 Ward 3")]
    found = DEVICE.shell_complete(_Context(cli), _Context.PARAM, "BP")  # type: ignore[arg-type]
    assert [(item.value, item.help) for item in found] == [("BP-1", f"{device['id']} Ward 3")]
    assert DEVICE.shell_complete(_Context(cli), _Context.PARAM, "cmd_") == []  # type: ignore[arg-type]
    assert DEVICE.shell_complete(_Context(None), _Context.PARAM, "") == []  # type: ignore[arg-type]


class _Context:
    """What a shell has typed so far."""

    PARAM = None

    def __init__(self, cli: Cli | None) -> None:
        self.params = {"data_dir": str(cli.data_dir) if cli else "/nowhere/at/all", "url": None}


def test_errors_of_the_api_are_shown(cli: Cli) -> None:
    """What it refuses is its own sentence, and the code says of which kind."""
    bound = cli.bound()
    assert "Unbind it first" in cli("devices", "bind", bound["id"], "eu_2", code=5).err
    assert "should" in cli("devices", "bind", bound["id"], "nobody", code=1).err
    assert "no command" in cli("commands", "cancel", bound["id"], "cmd_0", code=4).err
    cli("devices", "show", "../../health", code=4)


def test_a_url_without_a_key_is_an_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says which variable is missing; a key without a gateway works on the directory; a wrong URL is said to be one."""
    assert "GATEWAY_API_KEY" in cli("devices", "list", "--url", "http://127.0.0.1:1", code=2).err
    monkeypatch.setenv("GATEWAY_API_KEY", "sk_live_000000000000")
    assert cli.json("devices", "list") == []
    assert "http://127.0.0.1:8080" in cli("devices", "list", "--url", "127.0.0.1:1", code=2).err
    assert "No gateway answers" in cli("devices", "list", "--url", "http://127.0.0.1:1", code=1).err


def test_a_reset_without_a_token_to_fetch_it_is_reported(cli: Cli) -> None:
    """Without a token there is no way to it (section 4); with one, the hint says how to follow it. Both as printed."""
    cli("devices", "register", "BP-1")
    warned = cli("devices", "reset", "BP-1", "--yes")
    assert "nothing can fetch this reset" in warned.err
    assert "nothing can fetch" in cli("devices", "reset", "BP-1", "--yes", "--json").err
    device = cli.json("devices", "show", "BP-1")["id"]
    assert f"gateway devices bind {device} END_USER --supersede-reset --data-dir {cli.data_dir}" in warned.err
    cli.bound("BP-2")
    followed = cli("devices", "reset", "BP-2", "--yes").err
    assert "nothing can fetch" not in followed
    assert f"gateway commands list {cli.json('devices', 'show', 'BP-2')['id']} --data-dir {cli.data_dir}" in followed


def test_a_failed_reset_is_reported(cli: Cli) -> None:
    """The device was not wiped and no command asks for it, until another reset or another bind."""
    device = cli.bound()["id"]
    command = cli.json("devices", "reset", device, "--yes")["command"]["id"]
    assert cli("devices", "show", device).err == NO_GATEWAY
    error = json.dumps({"code": "grant_invalid", "message": "The signature\x1b[2J is bad."})
    with closing(open_database(cli.data_dir)) as connection:  # as when the device says so
        connection.execute("UPDATE commands SET status = 'failed', error = ? WHERE id = ?", (error, command))
        row = dict(View(connection).all("SELECT * FROM commands")[0])
        for number in range(150):  # what was done since hides nothing of it
            copy = {
                **row,
                "id": f"cmd_later{number}",
                "type": "reboot",
                "status": "executed",
                "seq": row["seq"] + number,
            }
            marks = ", ".join("?" * len(copy))
            connection.execute(f"INSERT INTO commands ({', '.join(copy)}) VALUES ({marks})", list(copy.values()))  # noqa: S608 - our own columns
    told = cli("devices", "show", device).err
    assert "grant_invalid: The signature\\x1b[2J is bad." in told
    assert f"gateway devices reset {device} --data-dir {cli.data_dir}" in told
    assert "was not wiped" in cli("devices", "show", device, "--json").err
    cli("devices", "reset", device, "--yes")
    assert cli("devices", "show", device).err == NO_GATEWAY


def test_hints_work_as_printed(cli: Cli) -> None:
    """The command that brings a device back is run as it stands."""
    cli("devices", "register", "BP-1")
    hint = cli("devices", "delete", "BP-1", "--yes").err.strip().removeprefix("To bring it back: gateway ")
    assert main(shlex.split(hint)) == 0
    assert cli.json("devices", "show", "BP-1")["deleted_at"] is None
    north = cli("projects", "create", "it's north")
    hint = north.err.strip().removeprefix("Make a key for it: gateway ")
    assert main(shlex.split(hint)) == 0
    assert "it's north" in [each["project"] for each in cli.json("keys", "list")]


def test_a_name_with_bidi_controls_is_isolated(cli: Cli) -> None:
    """A name from before the rule is escaped in tables and questions; text from right to left is isolated."""
    device = cli.json("devices", "register", "BP-1", "--name", "חדר 2")
    assert "\u2068חדר 2\u2069" in cli("devices", "list").out
    cli.rename(device["id"], "Bed\u202e\u200b\x1b 1")
    for command in ("list",), ("show", device["id"]), ("reset", device["id"]):
        said = cli("devices", *command, code=2 if "reset" in command else 0)
        assert "Bed\\u202e\\u200b\\x1b 1" in said.out + said.err
        assert not {"\u202e", "\u200b", "\x1b"} & set(said.out + said.err)


def test_the_audit_trail_contains_key_names(cli: Cli) -> None:
    """By the name that ``keys create`` asked for, with the id beside it, in the tail and in ``top``."""
    key = cli.json("keys", "list")[0]
    body = RegisterDevice(serial_number="BP-1")
    with closing(open_database(cli.data_dir)) as connection:
        transact(connection, Context(), lambda tx: devices.register(tx, key["project_id"], body, key["id"]))
    for command in ("events", "tail"), ("top",):
        assert f"by backend ({key['id']})" in cli(*command).out


@pytest.mark.usefixtures("terminal")
def test_a_reset_of_a_ble_device_is_reported_as_waiting(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The question says so, and that a cancel restores nothing; ``show`` says so while the reset is open."""
    bound = cli.bound()
    with closing(open_database(cli.data_dir)) as connection:
        sender = "INSERT INTO health (device_pk, connection, last_seen_by) SELECT pk, 'online', 'ble' FROM devices"
        connection.execute(sender)
        connection.commit()
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return "n"

    monkeypatch.setattr("click.termui.visible_prompt_func", answer)
    said = cli("devices", "reset", bound["id"], code=1)
    question = said.err + "".join(asked)
    assert "waits for WiFi or cellular" in question
    assert "A cancel later does not undo this" in question
    assert "WiFi" not in cli("devices", "show", bound["id"]).err
    assert "waits for WiFi or cellular" in cli("devices", "reset", bound["id"], "--yes").err
    shown = cli("devices", "show", bound["id"])
    assert "waits for WiFi or cellular" in shown.err
    assert ["last_seen_by", "ble"] in [line.split() for line in shown.out.splitlines()]
