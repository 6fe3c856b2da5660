"""``gateway broker init``: what it asks for, in words that one can type."""

import os
import pwd
import shlex
from pathlib import Path

import pytest

from gateway.cli import main


def test_a_user_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
