"""Temporary Mosquitto from ``broker_config``, as an operator starts it, with its own port and folder."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import broker_config
from bench.process import BenchError, cpu_seconds_of, megabytes_of, stop
from broker_config import local
from gateway.broker.mosquitto.password_file import PasswordFile, password_entry

HOST: Final = "127.0.0.1"
GATEWAY_USER: Final = "gateway"
WATCHER_USER: Final = "watcher"
"""User that may read every command; no such user exists in production."""

_STARTS: Final = 10
_POLL_SECONDS: Final = 0.01
_WAIT_SECONDS: Final = 20.0
_TOLD: Final = "log_type subscribe"  # so that the benchmark knows when a client has subscribed


@dataclass(frozen=True)
class Broker:
    """A broker: its port, its files, and the password of the user ``gateway``."""

    port: int
    password: str
    """Password of both users."""
    files: broker_config.Rendered
    log: Path

    @property
    def url(self) -> str:
        """Return the value of the setting ``broker``."""
        return f"mqtt://{GATEWAY_USER}:{self.password}@{HOST}:{self.port}"

    async def subscribed(self, topic: str) -> None:
        """Wait until a client has subscribed to this filter."""
        await eventually(lambda: topic in self.said(), f"subscription to {topic}")

    def said(self) -> str:
        """Return its log so far."""
        return self.log.read_text(errors="replace")


@asynccontextmanager
async def mosquitto(directory: Path, devices: Sequence[tuple[str, str]]) -> AsyncIterator[Broker]:
    """Run the broker with these devices (id, password entry) and the gateway's user during the block.

    Raises:
        BenchError: it did not start.
    """
    broker, process = await _start(directory, devices)
    try:
        yield broker
    finally:
        await stop(process)


class Restartable:
    """A broker that can be stopped and started again, on the same port and files."""

    def __init__(self, broker: Broker, process: asyncio.subprocess.Process) -> None:
        self.broker = broker
        self._process = process

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used since its last start."""
        return cpu_seconds_of(self._process.pid)

    def resident_megabytes(self) -> float:
        """Return its present memory (RSS), in units of 1,000,000 bytes."""
        return megabytes_of(self._process.pid)

    async def stop(self) -> None:
        """Stop it with SIGTERM, as an operator does."""
        await stop(self._process)

    async def start(self) -> None:
        """Start it again, and return when it listens."""
        self._process = await _run(self.broker)


@asynccontextmanager
async def restartable(
    directory: Path, devices: Sequence[tuple[str, str]], plugin: Path | None = None
) -> AsyncIterator[Restartable]:
    """Run the broker as :func:`mosquitto` does, with methods to stop and start it.

    ``plugin``: that by which the gateway ends sessions (``local.locks_plugin``). With it there is no limit of memory.

    Raises:
        BenchError: it did not start.
    """
    running = Restartable(*await _start(directory, devices, plugin))
    try:
        yield running
    finally:
        await running.stop()


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Poll until the condition holds.

    Raises:
        BenchError: it did not hold within the time limit.
    """
    try:
        async with asyncio.timeout(_WAIT_SECONDS):
            while not condition():  # noqa: ASYNC110 - the condition depends on other processes
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise BenchError(f"no {what} within {_WAIT_SECONDS:g} s") from None


async def _start(
    directory: Path, devices: Sequence[tuple[str, str]], plugin: Path | None = None
) -> tuple[Broker, asyncio.subprocess.Process]:
    for attempt in range(_STARTS):
        broker = _write(directory / f"mosquitto-{attempt}", devices, plugin)
        process = await _run(broker)
        if process.returncode is None:
            return broker, process
        if "Address already in use" not in broker.said():
            raise BenchError(f"Mosquitto did not come up:\n{broker.said()}")
    raise BenchError(f"no port for Mosquitto was free in {_STARTS} tries")


async def _run(broker: Broker) -> asyncio.subprocess.Process:
    """Start it, and return when it listens or has ended."""
    with broker.log.open("wb") as log:
        command = (local.binary(), "-c", str(broker.files.config))
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    try:
        await eventually(lambda: process.returncode is not None or " running" in broker.said(), "Mosquitto")
    except BaseException:
        await stop(process)
        raise
    return process


def _write(directory: Path, devices: Sequence[tuple[str, str]], plugin: Path | None) -> Broker:
    port, password = local.free_port(HOST), secrets.token_hex(16)
    user = "root" if os.geteuid() == 0 else "mosquitto"  # the user that may enter the benchmark's private directory
    files = broker_config.render(directory, port=port, host=HOST, user=user, plugin=plugin)
    with files.config.open("a") as config:
        config.write(f"\n{_TOLD}\n")
    with files.acl.open("a") as rights:
        rights.write(f"\nuser {WATCHER_USER}\ntopic read devices/+/commands/+\n")
    fixed = {user: password_entry(password) for user in (GATEWAY_USER, WATCHER_USER)}
    PasswordFile(files.password_file, pid_file=None, fixed=fixed).write(devices)
    return Broker(port, password, files, directory / "mosquitto.log")
