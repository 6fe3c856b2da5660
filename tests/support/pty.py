"""A program at a separate terminal, with a test that reads and types."""

import asyncio
import fcntl
import os
import pty
import struct
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.support.wait import eventually

GUARD_SECONDS = 60.0
_CHUNK = 65_536


@dataclass
class Terminal:
    """A terminal that a test types at."""

    process: asyncio.subprocess.Process
    where: int
    seen: str = ""

    def read(self) -> None:
        """Take what it says now."""
        try:
            self.seen += os.read(self.where, _CHUNK).decode(errors="replace")
        except OSError:  # the other end is closed
            asyncio.get_running_loop().remove_reader(self.where)

    def type(self, keys: str) -> None:
        """Press these keys; what is waited for after that has to come after that."""
        self.seen = ""
        os.write(self.where, keys.encode())

    async def shows(self, text: str) -> None:
        """Wait until it has said this."""
        await eventually(
            lambda: text in self.seen or self.process.returncode is not None,
            f"the terminal shows {text!r}",
            guard_seconds=GUARD_SECONDS,
        )
        assert text in self.seen, f"it ended without {text!r}; it said {self.seen!r}"

    async def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        async with asyncio.timeout(GUARD_SECONDS):
            return await self.process.wait()

    @property
    def settings(self) -> list[object]:
        """How the terminal is set: echo, line by line, and all that."""
        return termios.tcgetattr(self.where)


@asynccontextmanager
async def at_terminal(
    *command: str, environment: Mapping[str, str], columns: int = 120, lines: int = 30, term: str = "xterm"
) -> AsyncIterator[Terminal]:
    """Start it at a terminal of this size; it is killed when it is still there in the end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": term, "COLUMNS": str(columns), "LINES": str(lines)},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    terminal = Terminal(process, ours)
    asyncio.get_running_loop().add_reader(ours, terminal.read)
    try:
        yield terminal
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)
        os.close(theirs)
