"""``gateway accounts``: made, listed, given another password, revoked."""

from contextlib import closing

import pytest

from gateway.store import View, account_sql, open_database
from tests.cli.support import Cli


def is_accepted(cli: Cli, name: str, password: str) -> bool:
    """Whether this is the password of this account."""
    with closing(open_database(cli.data_dir)) as connection:
        return account_sql.opened_by(View(connection), name, password) is not None


def test_a_password_is_shown_once(empty: Cli) -> None:
    """On stdout alone; never again. Without a name the account is ``integrator``."""
    made = empty("accounts", "create", "--all-projects")
    password = made.out.strip()
    assert password.startswith("mqttpw_")
    assert password not in made.err
    assert is_accepted(empty, "integrator", password)
    assert password not in empty("accounts", "list").out
    assert empty("accounts", "list").rows[0][0] == "integrator"


def test_rotate_prints_another_password(cli: Cli) -> None:
    """The old one opens nothing any more."""
    old = cli.json("accounts", "create", "integrator_wall")["password"]
    new = cli("accounts", "rotate", "integrator_wall").out.strip()
    assert (is_accepted(cli, "integrator_wall", old), is_accepted(cli, "integrator_wall", new)) == (False, True)
    assert not is_accepted(cli, "integrator", new)


def test_a_revoked_name_can_be_created_again(cli: Cli) -> None:
    """Refused, listed as such, cannot be rotated; the name can be used again."""
    password = cli("accounts", "create", "--all-projects").out.strip()
    assert "add --yes" in cli("accounts", "revoke", "integrator", code=2).err
    assert cli.json("accounts", "revoke", "integrator", "--yes")["revoked_at"] is not None
    assert not is_accepted(cli, "integrator", password)
    assert "no account" in cli("accounts", "rotate", code=4).err
    assert "revoked already" in cli("accounts", "revoke", "integrator").err
    assert "no account" in cli("accounts", "revoke", "integrator_x", "--yes", code=4).err
    assert [each["revoked_at"] is None for each in cli.json("accounts", "list")] == [False]
    again = cli("accounts", "create", "--all-projects").out.strip()
    assert is_accepted(cli, "integrator", again)
    assert cli("accounts", "create", "--all-projects", code=5).err.count("accounts rotate integrator") == 1


@pytest.mark.parametrize("name", ["dev_1", "gateway", "doctor", "integrator_", "integrator_#", "integrator+", "admin"])
def test_reserved_names_are_refused(cli: Cli, name: str) -> None:
    """What the broker makes of a name follows from its beginning; the message says which are good."""
    assert "should be integrator" in cli("accounts", "create", name, code=1).err
    assert cli.json("accounts", "list") == []


def test_needed_mosquitto_settings_are_printed(cli: Cli) -> None:
    """The file of rights that ships knows ``integrator`` alone; beside another broker everything is the operator's."""
    beside = ("--broker", "mqtt://gateway:x@localhost", "--mosquitto-password-file", "passwords")
    assert "ACL" not in cli("accounts", "create", "--all-projects", *beside).err
    noted = cli("accounts", "create", "integrator_wall", "--all-projects", *beside, "--topic-prefix", "site/").err
    assert "user integrator_wall\ntopic read site/devices/+/state\n" in noted
    assert "topic deny site/devices/integrator_wall/#" in noted
    assert "writes no accounts" in cli("accounts", "create", "integrator_2", *beside[:2]).err
    assert cli("accounts", "create", "integrator_3").err.count("\n") == 2


def test_an_account_belongs_to_a_project_unless_all_are_asked_for(cli: Cli) -> None:
    """The first project, or the one that is named; what it may read is said, and Mosquitto's lines are those."""
    ward = cli.json("projects", "create", "ward")["id"]
    beside = ("--broker", "mqtt://gateway:x@localhost", "--mosquitto-password-file", "passwords")
    noted = cli("accounts", "create", "integrator_ward", "--project", "ward", *beside, "--topic-prefix", "site/").err
    assert f"It may read: site/projects/{ward}/devices/+/state, site/projects/{ward}/devices/+/events/#" in noted
    assert f"user integrator_ward\ntopic read site/projects/{ward}/devices/+/state\n" in noted
    assert "site/devices/+/state" not in noted
    first = cli.json("accounts", "create", "integrator_first")
    every = cli.json("accounts", "create", "integrator_all", "--all-projects")
    assert (every["project_id"], every["all_projects"]) == (None, True)
    assert first["project_id"] not in (None, ward)
    rotated = cli.json("accounts", "rotate", "integrator_ward")
    assert (rotated["project_id"], rotated["all_projects"]) == (ward, False)
    assert [row[1].strip() for row in cli("accounts", "list").rows] == ["all", first["project_id"], ward]


def test_an_account_name_is_never_reused_with_other_rights(cli: Cli) -> None:
    """A broker's file of rights goes by names and may still hold the old ones; what to do is said each time."""
    cli("projects", "create", "ward")
    for name in ("integrator", "home_assistant"):
        assert "--all-projects" in cli("accounts", "create", name, code=1).err
        assert "--all-projects" in cli("accounts", "create", name, "--project", "ward", code=1).err
    both = cli("accounts", "create", "integrator_1", "--project", "ward", "--all-projects", code=2)
    assert "leave one out" in both.err
    assert "There is no project 'attic'" in cli("accounts", "create", "integrator_1", "--project", "attic", code=4).err
    cli("accounts", "create", "integrator_1", "--all-projects")
    cli("accounts", "revoke", "integrator_1", "--yes")
    refused = cli("accounts", "create", "integrator_1", "--project", "ward", code=5).err
    assert "was an account of all projects" in refused
    assert "Choose another name" in refused
    assert [row[0] for row in cli("accounts", "list").rows] == ["integrator_1"]
