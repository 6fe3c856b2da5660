"""``gateway broker init``: what it asks for, in words that one can type."""

import os
import pwd
import shlex
from pathlib import Path

import pytest

from gateway.cli import main


def test_an_unknown_user_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The option is named, the user can be made by a command, and the whole command without it works as printed."""
    me = pwd.getpwuid(os.geteuid()).pw_name
    asked = ["broker", "init", str(tmp_path / "site"), "--name", "a", "--name", "b"]
    assert main([*asked, "--user", "not_here", "--broker-user", me]) == 2
    error = capsys.readouterr().err
    assert "--user: there is no user not_here" in error
    assert "useradd --system --no-create-home --shell /usr/sbin/nologin not_here" in error
    instead = next(line for line in error.splitlines() if "gateway broker init" in line).partition("gateway ")[2]
    assert shlex.split(instead) == [*asked, "--broker-user", me, "--user", me]
    assert main(shlex.split(instead)) == 0


def test_new_access_rules_for_mosquitto_are_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After an upgrade the broker has to be restarted; called again without any change, nothing is to be done."""
    me = pwd.getpwuid(os.geteuid()).pw_name
    asked = ["broker", "init", str(tmp_path / "site"), "--user", me, "--broker-user", me]
    told = "access rules once it is restarted"
    assert main(asked) == 0
    assert told not in capsys.readouterr().err
    assert main(asked) == 0
    assert told not in capsys.readouterr().err
    assert main([*asked, "--prefix", "plant/"]) == 0
    assert told in capsys.readouterr().err
