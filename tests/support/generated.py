"""Clients that other people's generators make of `openapi.json`: installed once, from pins with hashes."""

import asyncio
import fcntl
import hashlib
import os
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "generated"
_PINS = SOURCE / "generator.txt"


async def run(*command: str | Path, folder: Path | None = None, **environment: str) -> str:
    """Run a command; what it printed. Raises AssertionError with its output when it fails."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=folder,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    return output


async def python_client(document: Path, made: Path) -> None:
    """Write the package `device_gateway_client` into a folder, as openapi-python-client makes it; no warning."""
    packages = await _generator()
    config = made / "config.yml"
    config.write_text("post_hooks: []\ncontent_type_overrides:\n  application/x-ndjson: text/plain\n")
    arguments = (
        "--path",
        document,
        "--meta",
        "none",
        "--output-path",
        made / "device_gateway_client",
        "--config",
        config,
    )
    command = (sys.executable, "-m", "openapi_python_client", "generate", *arguments, "--fail-on-warning")
    await run(*command, PYTHONPATH=str(packages))


async def _generator() -> Path:
    """A folder for `PYTHONPATH` with the generator, which uses the other packages of this environment."""
    digest = hashlib.sha256(_PINS.read_bytes()).hexdigest()[:12]
    made = Path(sys.prefix) / f"openapi-python-client-{digest}"
    made.mkdir(exist_ok=True)
    with (made / ".lock").open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)  # pytest's workers come at once
        if not (made / ".done").exists():
            options = ("--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps", "--require-hashes")
            await run(sys.executable, "-m", "pip", "install", *options, "--target", made, "-r", _PINS)
            (made / ".done").touch()
    return made
