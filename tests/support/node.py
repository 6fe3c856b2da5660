"""Node.js for the tests: what `tests/node/package-lock.json` names, installed once into the virtual environment."""

import asyncio
import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "node"
_LOCK = "package-lock.json"
_INSTALL_SECONDS = 240.0


class NodeMissingError(AssertionError):
    """Node.js is missing, or its packages could not be installed."""


def node() -> str:
    """The path of `node`. Raises NoNodeError, saying what to install."""
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        raise NodeMissingError("node and npm were not found: apt-get install nodejs npm (Node.js 18 or newer)")
    return found


def folder() -> Path:
    """A folder whose `node_modules` holds what the lock names; made by the first test that asks, for all to come."""
    node()
    digest = hashlib.sha256((SOURCE / _LOCK).read_bytes()).hexdigest()[:12]
    made = Path(sys.prefix) / f"node-{digest}"
    made.mkdir(exist_ok=True)
    with (made / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # pytest's workers come at once
        if not (made / ".done").exists():
            _install(made)
            (made / ".done").touch()
    return made


def _install(made: Path) -> None:
    for name in ("package.json", _LOCK):
        shutil.copy(SOURCE / name, made)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS)
    if done.returncode:
        raise NodeMissingError(f"npm could not install the tests' packages:\n{done.stdout}{done.stderr}")


def _placed(script: Path) -> Path:
    """A copy beside the packages, where modules are looked for."""
    content = script.read_bytes()
    copy = folder() / f"{hashlib.sha256(content).hexdigest()[:12]}-{script.name}"
    copy.write_bytes(content)
    return copy


async def run(script: Path, *arguments: str) -> str:
    """Run a script with those packages; what it printed. Raises AssertionError when it fails."""
    process = await asyncio.create_subprocess_exec(
        node(),
        str(await asyncio.to_thread(_placed, script)),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    return out.decode()
