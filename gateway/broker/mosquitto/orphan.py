"""Orphan of a killed gateway: finds its Mosquitto and ends it. A data directory has one broker, like one gateway.

Keeping it would be quicker for its clients. But it runs with the settings of an earlier start, and its log goes to a
pipe without a reader. At SIGTERM it saves its sessions and retained messages, so nothing is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

from gateway.errors import UnavailableError

log = structlog.get_logger()

STOP_SECONDS: Final = 10.0
_PROCESS_NAME: Final = "mosquitto"
_PROC: Final = Path("/proc")


async def end_orphan(config: Path, *, save_seconds: float = 0.0) -> None:
    """End every Mosquitto that was started with this configuration file. The caller must hold the data directory.

    ``save_seconds`` is what it may take to save its store, besides STOP_SECONDS.

    Raises:
        UnavailableError: this user may not end one of them.
    """
    for pid in find_orphan(config):
        log.warning("broker.orphan_found", pid=pid, message="A gateway was killed and left its Mosquitto. It is ended.")
        await _end(pid, config, STOP_SECONDS + save_seconds)


def find_orphan(config: Path) -> list[int]:
    """Return the processes of Mosquitto that run with this configuration file."""
    return [int(each.name) for each in _PROC.iterdir() if each.name.isdecimal() and _runs_with(each, config)]


def _runs_with(process: Path, config: Path) -> bool:
    with contextlib.suppress(OSError):
        if (process / "comm").read_text(encoding="utf-8").strip() == _PROCESS_NAME:
            return os.fsencode(config) in (process / "cmdline").read_bytes().split(b"\0")
    return False


async def _end(pid: int, config: Path, seconds: float) -> None:
    with _held(pid) as process:
        if process is None or pid not in find_orphan(config):
            return  # it has ended, and its number may belong to another process by now
        for number in (signal.SIGTERM, signal.SIGKILL):
            _send(process, pid, number)
            if await _has_ended(process, seconds):
                return
    raise UnavailableError(f"Mosquitto (process {pid}), left by a gateway that was killed, does not end.")


@contextlib.contextmanager
def _held(pid: int) -> Iterator[int | None]:
    """Yield a descriptor of this process, which can mean no other one, or None when it is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _send(process: int, pid: int, number: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(process, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise UnavailableError(
            f"Mosquitto (process {pid}) was left by a gateway that was killed, and this user may not end it. End it "
            f"(kill {pid}), and run the gateway as the user that it ran as before."
        ) from error


async def _has_ended(process: int, seconds: float) -> bool:
    """Wait until the process behind this descriptor has ended. Return False when that takes too long."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(process, ended.set)
    try:
        async with asyncio.timeout(seconds):
            await ended.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(process)
    return True
