"""``gateway signing-keys``: a new key counts for new bindings; an old one goes when no device trusts it any more."""

from contextlib import closing

import pytest

from gateway.cli.keys import on_registry
from gateway.doctor.findings import Level
from gateway.doctor.registry_checks import registry
from gateway.domain import grant_keys
from gateway.store import View, open_database, signing_key_sql
from tests.cli.support import Cli


def published(cli: Cli) -> list[str]:
    """The ids of the keys that ``/.well-known/jwks.json`` tells."""
    with closing(open_database(cli.data_dir)) as connection:
        return signing_key_sql.signing_key_ids(View(connection))


def test_a_new_key_signs_from_the_next_binding_on(cli: Cli) -> None:
    """The one who is bound keeps its key and the next is told the new one; both are published."""
    before = cli.bound("BP-1")
    rotated = cli.json("signing-keys", "rotate", "--yes")
    after = cli.bound("BP-2", "eu_2")
    assert rotated == {"kid": after["grant_key"]["kid"], "retired": before["grant_key"]["kid"]}
    assert published(cli) == [rotated["kid"], rotated["retired"]]
    assert [(key["state"], key["devices"]) for key in cli.json("signing-keys", "list")] == [
        ("in use", 1),
        ("retired, still obeyed", 1),
    ]


def test_a_retired_key_signs_for_its_bindings(cli: Cli) -> None:
    """A reset after the rotation is signed with the key that the device has, or it would refuse its own reset."""
    device = cli.bound()
    old = device["grant_key"]["kid"]
    cli("signing-keys", "rotate", "--yes")
    cli("devices", "reset", device["id"], "--yes")
    (obeying,) = cli.json("signing-keys", "devices", old)
    assert (obeying["id"], obeying["token_state"]) == (device["id"], "reset_only")


def test_a_retired_key_without_bindings_is_not_published(cli: Cli) -> None:
    """A device that is bound again receives the new key, and no device trusts the old one."""
    device = cli.bound()
    cli("signing-keys", "rotate", "--yes")
    cli("devices", "unbind", device["id"])
    anew = cli.json("devices", "bind", device["id"], "eu_1")
    assert published(cli) == [anew["grant_key"]["kid"]]
    old = device["grant_key"]["kid"]
    assert cli.json("signing-keys", "devices", old) == []
    assert [(row[0], row[1]) for row in cli("signing-keys", "list").rows][1] == (old, "retired")


@pytest.mark.usefixtures("terminal")
def test_rotation_asks_for_confirmation(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be taken back, so a person is asked; after a no nothing was done."""
    before = cli.json("signing-keys", "list")
    monkeypatch.setattr("click.confirm", lambda *_, **__: False)
    assert "Nothing was done" in cli("signing-keys", "rotate", code=1).err
    assert cli.json("signing-keys", "list") == before


def test_an_unknown_key_is_an_error(cli: Cli) -> None:
    """The error says where to see those that there are."""
    assert "gateway signing-keys list" in cli("signing-keys", "devices", "nonsense", code=4).err


def test_no_private_key_is_printed(cli: Cli) -> None:
    """Neither the list nor its JSON has the column that signs."""
    with closing(open_database(cli.data_dir)) as connection:
        (secret,) = connection.execute("SELECT hex(private_key) FROM signing_keys").fetchone()
    assert secret.lower() not in (cli("signing-keys", "list").out + cli("signing-keys", "list", "--json").out).lower()


def test_a_delivery_is_started_watched_and_stopped(cli: Cli) -> None:
    """Closed until it is started; the numbers are those of bound devices."""
    device = cli.bound()
    cli("signing-keys", "rotate", "--yes")
    before = cli.json("signing-keys", "progress")
    assert (before["delivery"], before["others"]) == ("not started", 1)
    started = cli.json("signing-keys", "deliver", "--yes")
    assert started == {"kid": before["kid"], "state": "started"}
    assert cli.json("signing-keys", "progress")["delivery"] == "asking"
    assert cli.json("signing-keys", "deliver", "--stop")["state"] == "stopped"
    assert cli.json("signing-keys", "progress") == before
    assert "gateway signing-keys progress" in cli("signing-keys", "deliver", "--yes").err
    on_registry(cli.data_dir, lambda tx: grant_keys.ask_next(tx, 10))
    (command,) = cli.json("commands", "list", device["id"])
    assert (command["type"], command["params"]["kid"]) == ("set_grant_key", before["kid"])
    assert cli.json("signing-keys", "progress") == {**before, "delivery": "all are asked", "asked": 1, "others": 0}


@pytest.mark.usefixtures("terminal")
def test_a_delivery_recommends_a_backup(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy from before the key could not command the devices any more."""
    asked: list[str] = []
    monkeypatch.setattr("click.confirm", lambda text, **_: asked.append(text))
    assert "Nothing was done" in cli("signing-keys", "deliver", code=1).err
    assert "backup" in asked[0]
    assert cli.json("signing-keys", "progress")["delivery"] == "not started"


def test_a_leaked_key_is_shown_and_announces_nothing(cli: Cli) -> None:
    """Its open commands are withdrawn; a key in use has to be rotated first."""
    device = cli.bound()
    old = device["grant_key"]["kid"]
    assert "signing-keys rotate" in cli("signing-keys", "leaked", old, "--yes", code=5).err
    cli("signing-keys", "rotate", "--yes")
    cli("signing-keys", "deliver", "--yes")
    on_registry(cli.data_dir, lambda tx: grant_keys.ask_next(tx, 10))
    assert cli.json("signing-keys", "leaked", old, "--yes") == {"kid": old, "withdrawn_commands": 1}
    assert [key["state"] for key in cli.json("signing-keys", "list")] == ["in use", "leaked, still obeyed"]
    (command,) = cli.json("commands", "list", device["id"])
    assert command["status"] == "cancelled"
    (finding,) = (each for each in registry(cli.data_dir, None) if each.name == "signing keys")
    assert (finding.level, finding.says) == (Level.WARNING, "1 device with a signing key that leaked")
    cli("devices", "unbind", device["id"])
    (finding,) = (each for each in registry(cli.data_dir, None) if each.name == "signing keys")
    assert finding.level is Level.OK


def test_callers_cannot_send_the_command(cli: Cli) -> None:
    """The list of those that can be sent does not have it."""
    device = cli.bound()
    assert "set_grant_key" not in cli("commands", "send", "--help").out
    assert "trigger_upload" in cli("commands", "send", device["id"], "set_grant_key", code=2).err


@pytest.mark.parametrize("command", [("devices", "{}"), ("leaked", "{}", "--yes")])
def test_an_id_may_begin_with_a_hyphen(cli: Cli, command: tuple[str, ...]) -> None:
    """Ids are base64url, so one in 64 does; it is no option, whatever letters it has."""
    cli.bound()
    kid = "-hLiE09XTGJjawFhXalEUx98DsLmOo2STDHJBSv1dWM"
    assert (
        f"There is no signing key '{kid}'" in cli("signing-keys", *(each.format(kid) for each in command), code=4).err
    )
