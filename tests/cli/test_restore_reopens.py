"""``gateway restore`` says what it opens again, and revokes it when it is asked to."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from gateway.store import DATABASE_NAME
from tests.cli.support import Cli


@pytest.fixture
def copy(cli: Cli, tmp_path: Path) -> Path:
    """A backup; after it a key and an account were revoked, another of each rotated, and a device bound again."""
    cli("keys", "create", "--name", "leaked")
    cli("keys", "create", "--name", "rotated")
    cli("accounts", "create", "integrator", "--all-projects")
    cli("accounts", "create", "integrator_b")
    bound = cli.bound("BP-1")
    cli.bound("BP-2")
    file = tmp_path / "copy.db"
    cli("backup", str(file))
    cli("keys", "revoke", "leaked", "--yes")
    cli("keys", "rotate", "rotated", "--overlap", "0")
    cli("accounts", "revoke", "integrator", "--yes")
    cli("accounts", "rotate", "integrator_b")
    cli("devices", "unbind", bound["id"])
    return file


def names(listed: list[dict[str, Any]]) -> set[str]:
    """Their names."""
    return {each["name"] for each in listed}


def good_keys(cli: Cli) -> set[str]:
    """Names of the keys that are not revoked."""
    return names([each for each in cli.json("keys", "list") if each["revoked_at"] is None])


def good_accounts(cli: Cli) -> set[str]:
    """Names of the accounts that are not revoked."""
    return names([each for each in cli.json("accounts", "list") if each["revoked_at"] is None])


def test_a_restore_lists_the_credentials_that_it_reopens(cli: Cli, copy: Path) -> None:
    """Before it asks, and as JSON; nothing is revoked unasked."""
    said = cli("restore", str(copy), code=2).err
    for name in ("leaked", "rotated", "integrator", "integrator_b", "BP-1", "--revoke-keys"):
        assert name in said
    assert "BP-2" not in said
    reopens = cli.json("restore", str(copy), "--yes")["reopens"]
    assert names(reopens["api_keys"]) == {"leaked", "rotated"}
    assert names(reopens["broker_accounts"]) == {"integrator", "integrator_b"}
    assert names(reopens["device_tokens"]) == {"BP-1"}
    assert good_keys(cli) == {"backend", "leaked", "rotated"}


def test_a_restore_can_revoke_the_reopened_credentials(cli: Cli, copy: Path) -> None:
    """Keys and accounts are revoked, the binding whose token had been revoked is ended; the rest goes on."""
    assert cli.json("restore", str(copy), "--revoke-keys", "--yes")["revoked"] == 5
    assert good_keys(cli) == {"backend"}
    assert good_accounts(cli) == set()
    statuses = {each["serial_number"]: each["status"] for each in cli.json("devices", "list")}
    assert statuses == {"BP-1": "unbound", "BP-2": "bound"}


def test_without_the_old_registry_reopened_credentials_are_unknown(cli: Cli, copy: Path) -> None:
    """It says so, changes nothing when it was to revoke what it cannot know, and revokes all when it is told to."""
    shutil.rmtree(cli.data_dir)
    cli.data_dir.mkdir(mode=0o700)
    assert "nobody knows" in cli("restore", str(copy), "--revoke-keys", "--yes", code=5).err
    assert not (cli.data_dir / DATABASE_NAME).exists()
    assert cli.json("restore", str(copy), "--revoke-keys=all", "--yes")["reopens"] is None
    assert good_keys(cli) == set()
    assert good_accounts(cli) == set()


def test_a_restore_without_reopened_credentials_prints_no_list(cli: Cli, tmp_path: Path) -> None:
    """No warning where none is due."""
    file = tmp_path / "copy.db"
    cli("backup", str(file))
    assert "warning" not in cli("restore", str(file), "--yes").err
