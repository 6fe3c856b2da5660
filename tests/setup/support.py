"""A run of `gateway broker init` and the files that it wrote."""

import os
import pwd
from pathlib import Path
from typing import Any

from gateway.setup.broker_init import InitOutcome, initialise
from gateway.setup.options import InitOptions

ME = pwd.getpwuid(os.geteuid()).pw_name
NOBODY = "nobody"
SETTINGS = "gateway/gateway.toml"
CONFIG = "mosquitto/mosquitto.conf"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing listens here


def init(directory: Path, *, force: bool = False, **wish: Any) -> InitOutcome:
    """Write a set for processes of this user."""
    return initialise(directory, InitOptions(**{"user": ME, "broker_user": ME, **wish}), force=force)


def lines(file: Path) -> list[str]:
    """What it says."""
    return file.read_text(encoding="utf-8").splitlines()


def contents(directory: Path) -> dict[str, bytes]:
    """All files, by their path."""
    return {str(each.relative_to(directory)): each.read_bytes() for each in directory.rglob("*") if each.is_file()}


def password(directory: Path, name: str) -> str:
    """One of those that were made."""
    return dict(line.split(" ", 1) for line in lines(directory / "accounts") if not line.startswith("#"))[name]
