"""The audit trail of keys, projects, accounts, signing keys and webhooks, as the command line writes and shows it."""

import json
import os
import pwd
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from gateway.domain import administration
from gateway.models.events import EventType
from gateway.runtime.os_user import os_user
from gateway.store import Context, open_database, transact
from tests.cli.support import Cli

ME = pwd.getpwuid(os.getuid()).pw_name


def trail(cli: Cli, *options: str) -> list[dict[str, Any]]:
    """What ``gateway events security`` prints, the oldest first, but for the key that was there before."""
    lines = cli("events", "security", "--limit", "1000", "--json", *options).out.splitlines()
    return [each for each in map(json.loads, lines) if each["data"].get("name") != "backend"]


def types(cli: Cli, *options: str) -> list[str]:
    """The types of these events."""
    return [each["type"] for each in trail(cli, *options)]


def test_every_change_has_its_event(cli: Cli) -> None:
    """With what was done, to what, and by whom; no secret is in any of them."""
    made = cli.json("keys", "create", "--name", "back end", "--scope", "devices:read", "--expires-in", "30d")
    rotated = cli.json("keys", "rotate", "back end")
    cli("keys", "expire", "back end", "--never")
    cli("keys", "revoke", "back end", "--yes")
    cli("keys", "revoke", "back end", "--yes")  # it is already: nothing happens
    project = cli.json("projects", "create", "Clinic North")
    passwords = [cli.json("accounts", verb, "integrator_x")["password"] for verb in ("create", "rotate")]
    cli("accounts", "revoke", "integrator_x", "--yes")
    signing = cli.json("signing-keys", "rotate", "--yes")
    hook = cli.json("webhooks", "create", "https://example.com/secret-path", "--project", made["project_id"])
    cli("webhooks", "set", hook["id"], "--disable", "--project", made["project_id"])
    again = cli.json("webhooks", "rotate", hook["id"], "--project", made["project_id"])
    cli("webhooks", "delete", hook["id"], "--yes", "--project", made["project_id"])
    found = trail(cli)
    assert [(each["type"], each["project"]) for each in found] == [
        ("key.created", "default"),
        ("key.rotated", "default"),
        ("key.updated", "default"),
        ("key.revoked", "default"),
        ("project.created", "Clinic North"),
        ("account.created", "default"),
        ("account.rotated", "default"),
        ("account.revoked", "default"),
        ("signing_key.rotated", None),
        ("webhook.created", "default"),
        ("webhook.updated", "default"),
        ("webhook.rotated", "default"),
        ("webhook.deleted", "default"),
    ]
    assert {(each["data"]["actor"], each["data"]["actor_name"]) for each in found} == {("cli", os_user())}
    data = {each["type"]: each["data"] for each in found}
    assert data["key.created"]["key_id"] == made["id"]
    assert (data["key.created"]["scopes"], data["key.created"]["expires_at"]) == (["devices:read"], made["expires_at"])
    assert data["key.rotated"]["previous_secret_expires_at"] == rotated["previous_expires_at"]
    assert data["key.updated"]["expires_at"] is None
    assert data["project.created"]["project_id"] == project["id"]
    assert data["account.revoked"]["account"] == "integrator_x"
    assert (data["signing_key.rotated"]["kid"], data["signing_key.rotated"]["retired"]) == tuple(signing.values())
    assert (data["webhook.updated"]["changed"], data["webhook.updated"]["host"]) == (["enabled"], "example.com")
    printed = json.dumps(found)
    for secret in (made["key"], rotated["key"], *passwords, hook["secret"], again["secret"], "secret-path"):
        assert secret not in printed
        assert secret[:13] not in printed


def test_a_project_sees_only_its_own_events(cli: Cli) -> None:
    """Also with what it reads over HTTP; what concerns the registry is for the machine alone."""
    first = cli.json("keys", "create", "--name", "one")
    cli("projects", "create", "Clinic North")
    cli("keys", "create", "--name", "two", "--project", "Clinic North")
    cli("accounts", "create", "--all-projects")
    assert types(cli, "--project", "Clinic North") == ["project.created", "key.created"]
    assert types(cli, "--type", "account.created") == ["account.created"]
    listed = cli("events", "tail", "--json", "--project", first["project_id"]).out.splitlines()
    assert [json.loads(line)["data"]["name"] for line in listed] == ["backend", "one"]
    assert "--type should be one of" in cli("events", "security", "--type", "device.bound", code=2).err
    assert "the registry" in cli("events", "security").out


def test_a_change_that_fails_has_no_event(cli: Cli) -> None:
    """And an event that cannot be written leaves no key: both are one transaction."""
    cli("keys", "create", "--name", "one")
    before = types(cli)
    cli("accounts", "create", "Nobody's", code=1)
    cli("projects", "create", "default", code=5)
    cli("keys", "rotate", "two", code=4)
    assert types(cli) == before
    with closing(open_database(cli.data_dir)) as connection:
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT raise(ABORT, 'full'); END")
        connection.commit()
        with pytest.raises(sqlite3.IntegrityError, match="full"):
            transact(connection, Context(), lambda tx: administration.create_key(tx, "default", "two", "cli"))
    assert [row["name"] for row in cli.json("keys", "list")] == ["one", "backend"]


def test_the_actor_behind_sudo_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root's SUDO_USER is trusted; the length of a name is bounded."""
    monkeypatch.setenv("SUDO_USER", "alice" * 50)
    expected = f"{ME} (sudo by {('alice' * 50)[:64]})" if os.getuid() == 0 else ME
    assert os_user() == expected


def test_the_types_of_the_trail_are_known(cli: Cli) -> None:
    """Each that is of no device can be asked for."""
    cli("keys", "create", "--name", "one")
    for kind in EventType:
        if not kind.is_of_device:
            cli("events", "security", "--type", kind)
