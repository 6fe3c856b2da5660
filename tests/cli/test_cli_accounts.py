"""``gateway accounts``: made, listed, given another password, revoked."""

from contextlib import closing

import pytest

from cli.support import Cli
from gateway.store import View, accounts, open_database


def opens(cli: Cli, name: str, password: str) -> bool:
    """Whether this is the password of this account."""
    with closing(open_database(cli.data_dir)) as connection:
        return accounts.opened_by(View(connection), name, password) is not None


def test_a_password_is_shown_once(empty: Cli) -> None:
    """On stdout alone; never again. Without a name the account is ``integrator``."""
    made = empty("accounts", "create")
    password = made.out.strip()
    assert password.startswith("mqttpw_")
    assert password not in made.err
    assert opens(empty, "integrator", password)
    assert password not in empty("accounts", "list").out
    assert empty("accounts", "list").rows[0][0] == "integrator"


def test_rotate_gives_another(cli: Cli) -> None:
    """The old one opens nothing any more."""
    old = cli.json("accounts", "create", "integrator_wall")["password"]
    new = cli("accounts", "rotate", "integrator_wall").out.strip()
    assert (opens(cli, "integrator_wall", old), opens(cli, "integrator_wall", new)) == (False, True)
    assert not opens(cli, "integrator", new)


def test_revoke_and_make_anew(cli: Cli) -> None:
    """Refused, listed as such, cannot be rotated; the name can be used again."""
    password = cli("accounts", "create").out.strip()
    assert "add --yes" in cli("accounts", "revoke", "integrator", code=2).err
    assert cli.json("accounts", "revoke", "integrator", "--yes")["revoked_at"] is not None
    assert not opens(cli, "integrator", password)
    assert "no account" in cli("accounts", "rotate", code=4).err
    assert "revoked already" in cli("accounts", "revoke", "integrator").err
    assert "no account" in cli("accounts", "revoke", "integrator_x", "--yes", code=4).err
    assert [each["revoked_at"] is None for each in cli.json("accounts", "list")] == [False]
    again = cli("accounts", "create").out.strip()
    assert opens(cli, "integrator", again)
    assert cli("accounts", "create", code=5).err.count("accounts rotate integrator") == 1


@pytest.mark.parametrize("name", ["dev_1", "gateway", "doctor", "integrator_", "integrator_#", "integrator+", "admin"])
def test_names_that_are_somebody_elses_are_refused(cli: Cli, name: str) -> None:
    """What the broker makes of a name follows from its beginning; the message says which are good."""
    assert "should be integrator" in cli("accounts", "create", name, code=1).err
    assert cli.json("accounts", "list") == []


def test_what_mosquitto_has_to_be_told_is_said(cli: Cli) -> None:
    """The file of rights that ships knows ``integrator`` alone; beside another broker everything is the operator's."""
    beside = ("--broker", "mqtt://gateway:x@localhost", "--mosquitto-password-file", "passwords")
    assert "ACL" not in cli("accounts", "create", *beside).err
    noted = cli("accounts", "create", "integrator_wall", *beside, "--topic-prefix", "site/").err
    assert "user integrator_wall\ntopic read site/devices/+/state\n" in noted
    assert "topic deny site/devices/integrator_wall/#" in noted
    assert "writes no accounts" in cli("accounts", "create", "integrator_2", *beside[:2]).err
    assert cli("accounts", "create", "integrator_3").err.count("\n") == 1
