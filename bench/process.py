"""Child processes that are measured or that measure. Each ends when its block ends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

HANGS_SECONDS: Final = 120.0
"""Time limit for an expected answer. After it the run ends with an error."""

_LAST_LINES: Final = 20
_STOP_SECONDS: Final = 20.0
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_USER_TICKS, _SYSTEM_TICKS = 11, 12  # utime and stime of proc(5), counted from behind the name


class BenchError(Exception):
    """A measurement failed, so it has no figure. The message describes the failure."""


class Program:
    """A running program."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self._name = name
        self.pid = process.pid

    async def line(self, start: str = "") -> str:
        """Return the rest of the next line on its stdout that begins with ``start``.

        Raises:
            BenchError: it ended, or printed no such line within the time limit.
        """
        assert self._process.stdout, "started with a pipe"
        try:
            async with asyncio.timeout(HANGS_SECONDS):
                while raw := await self._process.stdout.readline():
                    if (text := raw.decode().strip()).startswith(start):
                        return text.removeprefix(start).strip()
        except TimeoutError:
            raise BenchError(f"{self._name} hangs: no '{start}' within {HANGS_SECONDS:g} s") from None
        raise BenchError(f"{self._name} ended with {await self._process.wait()} before it said '{start}'")

    async def tell(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self._process.stdin, "started with a pipe"
        self._process.stdin.write(f"{line}\n".encode())
        await self._process.stdin.drain()

    async def ended(self) -> None:
        """Wait until it ends by itself with success.

        Raises:
            BenchError: it failed, or did not end within the time limit.
        """
        try:
            async with asyncio.timeout(HANGS_SECONDS):
                code = await self._process.wait()
        except TimeoutError:
            raise BenchError(f"{self._name} hangs: it did not end within {HANGS_SECONDS:g} s") from None
        if code:
            raise BenchError(f"{self._name} ended with {code}")

    def check(self) -> None:
        """Raise BenchError when it does not run any more."""
        if self._process.returncode is not None:
            raise BenchError(f"{self._name} ended with {self._process.returncode}")

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used so far, with all its threads and child processes."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return sum(cpu_seconds_of(pid) for pid in (self.pid, *map(int, children)))

    def resident_megabytes(self) -> float:
        """Return its present memory (RSS, shared pages counted in full), in units of 1,000,000 bytes."""
        return megabytes_of(self.pid)

    def peak_megabytes(self) -> float:
        """Return the most memory that it ever had (RSS), in the same unit."""
        return megabytes_of(self.pid, "VmHWM")


@asynccontextmanager
async def program(
    *command: str,
    environ: Mapping[str, str] | None = None,
    stdout: int = asyncio.subprocess.PIPE,
    log: Path | None = None,
) -> AsyncIterator[Program]:
    """Run a command during the block.

    ``environ`` is added to the benchmark's environment, also for secrets. stderr goes to ``log``, else to the
    benchmark's stderr.
    """
    with ExitStack() as stack:
        stderr = None if log is None else stack.enter_context(log.open("wb"))
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=stdout, stderr=stderr, env={**os.environ, **(environ or {})}
        )
    try:
        yield Program(process, " ".join(command[:4]))
    except BenchError as error:
        raise BenchError(f"{error}{_last_words(log)}") from error
    finally:
        await stop(process)


def cpu_seconds_of(pid: int) -> float:
    """Return the processor time that a process has used so far, with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])) / _TICKS_PER_SECOND


def megabytes_of(pid: int, which: str = "VmRSS") -> float:
    """Return a figure of memory of ``/proc/PID/status``, in units of 1,000,000 bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    kibibytes = next(line.split()[1] for line in status.splitlines() if line.startswith(f"{which}:"))
    return int(kibibytes) * 1_024 / 1_000_000


def _last_words(log: Path | None) -> str:
    said = "" if log is None else "\n".join(log.read_text(errors="replace").splitlines()[-_LAST_LINES:])
    return f"\n{said}" if said else ""


async def stop(process: asyncio.subprocess.Process) -> None:
    """End it if it still runs: with SIGTERM, then with SIGKILL."""
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
