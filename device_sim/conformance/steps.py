"""Steps that the network cannot make: writing a bind answer into the device, and cutting its power."""

import asyncio
import contextlib
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from device_sim.conformance.findings import UncheckedError

Say = Callable[[str], None]
POWER_CUT, BIND = "power-cut", "bind"


class Steps(Protocol):
    """The hands of a run."""

    async def bind(self, answer: dict[str, Any], *, first: bool) -> None:
        """Have a bind answer written into the device, or begin to wait for that. Raise `UncheckedError` if it can't."""

    async def cut_power(self) -> None:
        """Have the power cut and switched on again. Raise `UncheckedError` if it can't."""

    def patience(self, usual: float, *, first: bool) -> float | None:
        """Return how many seconds to wait for the device after a bind, None for ever."""


class BindFile:
    """The file with the bind answer, readable by its owner only, since it holds a token."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, answer: dict[str, Any]) -> str:
        """Replace the file by another, and return its text."""
        text = json.dumps(answer, indent=2)
        self.path.unlink(missing_ok=True)
        self.path.touch(mode=0o600)
        self.path.write_text(text + "\n", encoding="utf-8")
        return text


class Announced:
    """Steps without a person. With `yes` another program sees the announcement and binds the device again."""

    def __init__(self, file: BindFile, say: Say, *, yes: bool) -> None:
        self._file = file
        self._say = say
        self._yes = yes

    async def bind(self, answer: dict[str, Any], *, first: bool) -> None:
        """Write the file, and announce it."""
        if not first and not self._yes:
            raise UncheckedError("the device has to be bound again: use a terminal, --yes or --control")
        self._say(self._file.write(answer))
        self._say(f"Write this (it is also in {self._file.path}) into the device. The kit waits for it to connect.")

    async def cut_power(self) -> None:
        """Refuse: without a person or a command the kit cannot know when the power was cut."""
        raise UncheckedError("the power has to be cut: use a terminal or --control")

    def patience(self, usual: float, *, first: bool) -> float | None:
        """Wait for ever at the first bind, which starts the run."""
        return None if first else usual


class Controlled:
    """Steps that a command makes: `CMD bind FILE` and `CMD power-cut`."""

    def __init__(self, words: list[str], file: BindFile, say: Say) -> None:
        self._words = words
        self._file = file
        self._say = say

    async def bind(self, answer: dict[str, Any], *, first: bool) -> None:
        """Write the file, and run the command with it."""
        del first  # the command makes each bind
        self._file.write(answer)
        await self._run(BIND, str(self._file.path))

    async def cut_power(self) -> None:
        """Run the command."""
        await self._run(POWER_CUT)

    def patience(self, usual: float, *, first: bool) -> float | None:
        """Wait as long as for everything else: no person is involved."""
        del first
        return usual

    async def _run(self, *arguments: str) -> None:
        self._say(f"Run: {shlex.join([*self._words, *arguments])}")
        try:
            process = await asyncio.create_subprocess_exec(*self._words, *arguments, stdin=asyncio.subprocess.DEVNULL)
        except OSError as error:
            raise UncheckedError(f"the control command cannot be started: {error.strerror}") from error
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        if code:
            raise UncheckedError(f"the control command ended with exit code {code} at {arguments[0]}")


class Asked:
    """Steps that the person at the terminal makes."""

    def __init__(self, file: BindFile, say: Say) -> None:
        self._file = file
        self._say = say

    async def bind(self, answer: dict[str, Any], *, first: bool) -> None:
        """Write the file, and say so: the device shows by its connection that it was bound."""
        del first
        self._say(self._file.write(answer))
        self._say(f"Write this (it is also in {self._file.path}) into the device. Ctrl-C ends the run.")

    async def cut_power(self) -> None:
        """Ask, and wait for Enter."""
        self._say("Cut the power of the device, and switch it on again. Then press Enter (or s and Enter to skip).")
        if (await _line_of_stdin()).strip().lower() == "s":
            raise UncheckedError("the power cut was skipped")

    def patience(self, usual: float, *, first: bool) -> float | None:
        """Wait for ever: the person ends the run with Ctrl-C."""
        del usual, first
        return None


async def _line_of_stdin() -> str:
    """Return the next line that is typed. The read does not block, so that Ctrl-C ends the run at once."""
    loop, typed = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin, typed.set)
    try:
        await typed.wait()
    finally:
        loop.remove_reader(sys.stdin)
    return sys.stdin.readline()
