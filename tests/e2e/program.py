"""The installed command lines as an operator starts them: separate processes, with their output."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.wait import eventually

_LATE_WATCH = re.compile(
    r"""(\{"event": ")?Exception in callback BaseSelectorEventLoop\.add_writer(?s:.*?)Bad file descriptor("\})?\n"""
)

GUARD_SECONDS = 60.0
"""When something takes this long it hangs; no statement about speed."""


def script(name: str) -> str:
    """The path of a console script, `gateway` or `device-sim`, beside the Python that runs the tests."""
    return str(Path(sys.executable).with_name(name))


def error_lines(err: str) -> str:
    """What was said on stderr, without one complaint of asyncio that aiomqtt 2.5.1 provokes now and then.

    Its `_on_socket_register_write` has a socket watched a moment later, when the link may be closed already.
    """
    return _LATE_WATCH.sub("", err)


def clean_environment(**more: str) -> dict[str, str]:
    """This environment without settings of another gateway."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return {**inherited, "COLUMNS": "120", **more}


@dataclass(frozen=True)
class Outcome:
    """How a program ended and what it said."""

    code: int
    out: str
    err: str


async def run(*command: str, environment: Mapping[str, str] | None = None, folder: Path | None = None) -> Outcome:
    """Run a program to its end. Raises TimeoutError, and kills it, when it hangs."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment or clean_environment(),
        cwd=folder,
    )
    try:
        async with asyncio.timeout(GUARD_SECONDS):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Outcome(process.returncode, out.decode(), err.decode())


class Program:
    """A program that runs on. Its output goes to files, so that nothing is lost when it is killed."""

    def __init__(self, folder: Path, name: str, *command: str, environment: Mapping[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self._command = command
        self._environment = environment or clean_environment()
        self._out, self._err = folder / f"{name}.out", folder / f"{name}.err"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, its output in fresh files."""
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=err, env=self._environment
            )

    @property
    def out(self) -> str:
        """What it wrote to stdout since its start."""
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        """What it wrote to stderr since its start."""
        return self._err.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process, f"{self.name} was not started"
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.returncode is None

    async def said(self, text: str) -> str:
        """Wait until stdout holds this; all of stdout. Raises AssertionError when it ends before."""
        await eventually(
            lambda: text in self.out or not self.runs, f"{self.name} says {text!r}", guard_seconds=GUARD_SECONDS
        )
        assert text in self.out, f"{self.name} ended without saying {text!r}; stdout:\n{self.out}\nstderr:\n{self.err}"
        return self.out

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process, f"{self.name} was not started"
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait until it has ended; its exit code."""
        assert self._process, f"{self.name} was not started"
        async with asyncio.timeout(GUARD_SECONDS):
            return await self._process.wait()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal and wait for its end."""
        self.send(number)
        return await self.ended()

    async def kill(self) -> None:
        """`kill -9`, if it still runs."""
        if self.runs:
            await self.stop(signal.SIGKILL)


@contextlib.asynccontextmanager
async def started(program: Program) -> AsyncIterator[Program]:
    """Start it; at the end it is killed if it still runs, and its output is there for a test that failed."""
    try:
        await program.start()
        yield program
    finally:
        await program.kill()
        print(f"--- {program.name} wrote to stdout:\n{program.out}--- and to stderr:\n{_explain(program.err)}")  # noqa: T201 - pytest shows it on failure


def _explain(log: str) -> str:
    """A log without the polls of the tests themselves."""
    return "".join(line for line in log.splitlines(keepends=True) if '"method": "GET"' not in line)
