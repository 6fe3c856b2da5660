"""Packages that only peers need, installed once into the virtual environment, from pins with hashes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent
_INSTALL_SECONDS: Final = 600.0
_LAST_WORDS: Final = 300


class MissingError(Exception):
    """A peer cannot be installed on this machine; the message states why."""


def faststream() -> Path:
    """Return a folder for ``PYTHONPATH`` with FastStream, which uses the other packages of this environment.

    Raises:
        MissingError: it could not be installed.
    """
    pins = _HERE / "faststream.txt"

    def install(made: Path) -> None:
        options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes")
        _run(sys.executable, "-m", "pip", "install", *options, "--target", str(made), "-r", str(pins))

    return _made("faststream", pins, install)


def node_red() -> Path:
    """Return a folder with Node-RED, better-sqlite3 (compiled if it has no binary) and the flow.

    Raises:
        MissingError: there is no Node.js, or it could not be installed.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise MissingError("node and npm (Node.js 20 or newer) were not found")
    source = _HERE / "node_red"

    def install(made: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, made)
        _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", folder=made)
        _run("npm", "rebuild", "better-sqlite3", folder=made)
        _run("node", "-e", "require('better-sqlite3')(':memory:')", folder=made)

    made = _made("node-red", source / "package-lock.json", install)
    shutil.copy(source / "run.mjs", made)
    return made


def _made(name: str, pins: Path, install: Callable[[Path], None]) -> Path:
    """Return the folder for these pins; fill it first if it does not exist yet."""
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()[:12]
    made = Path(sys.prefix) / f"bench-{name}-{digest}"
    if not (made / ".done").exists():
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        install(made)
        (made / ".done").touch()
    return made


def _run(*command: str, folder: Path | None = None) -> None:
    name = " ".join((Path(command[0]).name, *command[1:3]))
    try:
        done = subprocess.run(  # noqa: S603 - the commands above
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise MissingError(f"'{name}' took longer than {_INSTALL_SECONDS:g} s") from error
    if done.returncode:
        raise MissingError(f"'{name}' failed: {(done.stdout + done.stderr).strip()[-_LAST_WORDS:]}")
