"""A `device-sim` process of a test."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

from tests.device_sim.support import API_KEY
from tests.device_sim.testbed import DeviceTestbed


@dataclass
class Program:
    """A `device-sim` that runs."""

    process: asyncio.subprocess.Process
    seen: list[str]

    async def line(self, part: str) -> str:
        """Read on until a line has this in it."""
        assert self.process.stdout is not None
        while line := (await self.process.stdout.readline()).decode():
            self.seen.append(line)
            if part in line:
                return line
        raise AssertionError(f"{part!r} never came: {''.join(self.seen)}")

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return await self.finished()

    async def finished(self) -> int:
        """Wait for the end and return the exit code."""
        assert self.process.stdout is not None
        self.seen.append((await self.process.stdout.read()).decode())
        return await self.process.wait()

    @property
    def output(self) -> str:
        """Everything it said that was read."""
        return "".join(self.seen)


@contextlib.asynccontextmanager
async def device_sim(*arguments: str, env: dict[str, str] | None = None) -> AsyncIterator[Program]:
    """Run the program; both of its outputs are one, and it is killed if the block leaves it behind."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "device_sim",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "error::ResourceWarning", **(env or {})},
    )
    try:
        yield Program(process, [])
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def run_arguments(testbed: DeviceTestbed, *more: str) -> list[str]:
    """`run` against the stage, with quick heartbeats."""
    return ["run", "--url", testbed.gateway.url, "--key", API_KEY, "--serial", "SN1", "--interval", "0.1", *more]
