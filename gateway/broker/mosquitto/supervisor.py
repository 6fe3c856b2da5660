"""Supervisor of a Mosquitto that runs as a child of the gateway: starts it, reads its log, restarts and stops it.

async with Supervisor(program, config) as broker:
        ...connect to it...

Its log lines become events ``mosquitto.log``.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog

from gateway.broker.mosquitto.orphan import end_orphan
from gateway.core.backoff import Backoff, Pauses
from gateway.errors import UnavailableError

log = structlog.get_logger()

START_SECONDS: Final = 15.0
"""How long it may take to listen, and a second more for each SECOND_BYTES of its files, which it reads first."""
SECOND_BYTES: Final = 10_000_000
"""Mosquitto on a busy machine. At a stop it writes as much again."""
LONGEST_LINE: Final = 1 << 16
PAUSES: Final = Pauses(first_seconds=0.2, longest_seconds=30.0)
_LINES_KEPT: Final = 20
_IN_USE: Final = "Address already in use"
_TIMESTAMP: Final = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d: ")
_UP: Final = re.compile(r"mosquitto version \S+ running")
_CHATTER: Final = re.compile(
    r"New connection from|New client connected|Client \S+ (disconnected|closed|already)|Saving"
)


class Supervisor:
    """One Mosquitto with its program and configuration file, for as long as the block runs.

    ``stop_seconds`` is what it may take to end before it is killed. ``store`` and ``passwords`` are its large files: by
    their size it may take longer to start, and by that of the store to end. Entering raises UnavailableError when it
    does not come up the first time. Later it is started again without end, with growing pauses, and ``error`` says so.
    """

    def __init__(
        self,
        program: str,
        config: Path,
        *,
        stop_seconds: float = 5.0,
        pauses: Pauses = PAUSES,
        store: Path | None = None,
        passwords: Path | None = None,
    ) -> None:
        self.error: str | None = None
        self.starts = 0
        self._program = program
        self._config = config
        self._stop_seconds = stop_seconds
        self._store = store
        self._passwords = passwords
        self._backoff = Backoff(pauses)
        self._said: deque[str] = deque(maxlen=_LINES_KEPT)
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await end_orphan(self._config, save_seconds=_seconds_of(self._store))
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        self._watching = asyncio.create_task(self._watch(), name="mosquitto")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._watching:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        await self._stop()
        log.info("broker.stopped")

    @property
    def pid(self) -> int | None:
        """Return its process id, or None while it does not run."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def start_seconds(self) -> float:
        """Return how long it may take to listen, with its files as they are now."""
        return START_SECONDS + _seconds_of(self._store) + _seconds_of(self._passwords)

    async def _watch(self) -> None:
        """Restart it whenever it has ended, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            self.error = await self._ended()
            pause = self._backoff.pause(loop.time() - began)
            log.error("broker.ended", reason=self.error, restart_in_seconds=round(pause, 3))
            await asyncio.sleep(pause)
            try:
                await self._start()
            except UnavailableError as error:
                self.error = error.message

    async def _ended(self) -> str:
        """Wait until it has ended; return how it did."""
        if self._process is None:
            return self.error or "Mosquitto could not be started."
        code = await self._process.wait()
        await self._read_out()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        return f"Mosquitto {how}. {self._last_words()}"

    async def _start(self) -> None:
        """Start it, and return when it listens.

        Raises:
            UnavailableError: it ended instead, or did neither.
        """
        self._up.clear()
        self._said.clear()
        self._process = await self._spawned()
        self._reading = asyncio.create_task(self._listen(self._process), name="mosquitto's log")
        up, ended = asyncio.create_task(self._up.wait()), asyncio.create_task(self._process.wait())
        done, others = await asyncio.wait((up, ended), timeout=self.start_seconds, return_when=asyncio.FIRST_COMPLETED)
        for each in others:
            each.cancel()
        if up not in done:
            await self._stop()
            raise UnavailableError(self._no_start())
        self.starts, self.error = self.starts + 1, None
        log.info("broker.started", pid=self._process.pid, program=self._program)

    async def _spawned(self) -> Process:
        """Start the process in a new session, so that Ctrl-C on the terminal does not reach it.

        The gateway stops it in its turn. It is started in its folder and uses paths below that: its user may have no
        right on the folders above. Its first argument identifies it to a later gateway
        (:mod:`gateway.broker.mosquitto.orphan`).
        """
        try:
            process = await asyncio.create_subprocess_exec(
                str(self._config),
                "-c",
                self._config.name,
                executable=self._program,
                cwd=self._config.parent,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
                start_new_session=True,
                limit=LONGEST_LINE,
            )
        except OSError as error:
            self._process = None
            raise UnavailableError(f"{self._program} cannot be started ({error.strerror}).") from error
        _raise_limit(process.pid)
        return process

    async def _listen(self, process: Process) -> None:
        """Read its log to the end. A broker whose log is not read blocks."""
        assert process.stdout
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than any line of Mosquitto
                continue
            if not line:
                return
            self._say(_TIMESTAMP.sub("", line.decode("utf-8", "replace").strip()))

    def _say(self, text: str) -> None:
        self._said.append(text)
        log.log(_level(text), "mosquitto.log", text=text)
        if _UP.match(text):
            self._up.set()

    def _no_start(self) -> str:
        if any(_IN_USE in each for each in self._said):
            return f"Mosquitto cannot listen ({_IN_USE}). Stop what does, or choose another address: --mqtt HOST:PORT."
        return f"Mosquitto does not come up with {self._config}. {self._last_words()}"

    def _last_words(self) -> str:
        told = [each for each in self._said if each.startswith("Error")] or list(self._said)[-3:]
        return f"It said: {' / '.join(told)}" if told else "It said nothing."

    async def _stop(self) -> None:
        """Send SIGTERM, on which it saves what it retains, and SIGKILL when that takes too long."""
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(self._stop_seconds + _seconds_of(self._store)):
                    await self._process.wait()
            except TimeoutError:
                log.error("broker.killed", message="Mosquitto did not end in time.")  # noqa: TRY400 - no bug of ours
                self._process.kill()
                await self._process.wait()
        await self._read_out()

    async def _read_out(self) -> None:
        if self._reading:
            await self._reading
            self._reading = None


def _seconds_of(file: Path | None) -> float:
    """Return the seconds that it may take to read or write a file of this size."""
    with contextlib.suppress(OSError):
        return 0.0 if file is None else file.stat().st_size / SECOND_BYTES
    return 0.0


def _level(text: str) -> int:
    """Return the severity of a line. Mosquitto tells it by the first word only."""
    if text.startswith("Error"):
        return 40
    if text.startswith("Warning"):
        return 30
    return 10 if _CHATTER.match(text) else 20


def _raise_limit(pid: int) -> None:
    """Let it open as many files as this user may: each connection is one, and the usual limit is 1,024."""
    with contextlib.suppress(OSError):
        _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
