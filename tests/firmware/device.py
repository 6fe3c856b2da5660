"""The reference firmware as a process on a real MicroPython, with the companion app at its serial line."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.e2e.program import GUARD_SECONDS, Program
from tests.e2e.support import Site
from tests.firmware.micropython import FIRMWARE, HEAP, SCRIPTS, command, environment
from tests.support.wait import eventually

Json = dict[str, Any]

QUICK = {"heartbeat_seconds": 0.3, "backoff_first_ms": 50, "backoff_longest_ms": 400}
"""Configuration of a test: soon back, often there."""
NETWORKS = [{"ssid": "ward", "psk": "a password"}]


class FirmwareDevice(Program):
    """One board: its flash in `folder`, its facts, its serial line. It may be started often."""

    def __init__(self, folder: Path, serial: str = "SN1", *, heap: str = HEAP, **config: object) -> None:
        self.flash = folder / "flash"
        self.serial = serial
        self.past: list[Json] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._heap = heap
        self._config = folder / "config.json"
        self.configure(serial_number=serial, flash=str(self.flash), **QUICK | config)
        super().__init__(
            folder,
            "firmware",
            *command(FIRMWARE / "main.py", self._config, heap=heap),
            environment=environment(MICROPYPATH=".frozen"),
        )

    def configure(self, **config: object) -> None:
        """Set values of its configuration, for the next start."""
        known = json.loads(self._config.read_text()) if self._config.exists() else {}
        self._config.write_text(json.dumps(known | config))

    async def start(self, *, die_at: int | None = None) -> None:
        """Switch it on. With `die_at` the power is cut before that write or message, counted from one."""
        self.past += self.lines() if self._out.exists() else []
        dying = command(SCRIPTS / "power_cut.py", self._config, str(die_at), heap=self._heap)
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = await asyncio.create_subprocess_exec(
                *(dying if die_at else self._command),
                stdin=asyncio.subprocess.PIPE,
                stdout=out,
                stderr=err,
                env=environment() if die_at else self._environment,  # main.py finds its libraries by itself
            )

    def facts(self, name: str, *, ever: bool = False) -> list[Json]:
        """The facts of a name since its start, or since its first one."""
        return [each for each in (self.past if ever else []) + self.lines() if each.get("fact") == name]

    async def fact(self, name: str, *, count: int = 1, **details: object) -> Json:
        """Wait until a fact with these details has happened so often since its start; the last of them."""

        def found() -> list[Json]:
            matching = [each for each in self.facts(name) if details.items() <= each.items()]
            return matching if len(matching) >= count else []

        await eventually(lambda: found() or not self.runs, f"{self.serial} tells {name}", guard_seconds=GUARD_SECONDS)
        facts = found()
        assert facts, f"{self.serial} ended without telling {name}:\n{self.out}\n{self.err}"
        return facts[-1]

    async def ask(self, **line: object) -> Json:
        """Send one line over the serial line, and return its answer."""
        return await self.ask_raw(json.dumps(line).encode())

    async def ask_raw(self, line: bytes) -> Json:
        """The same with the bytes of a line."""
        before = len(self._answers())
        self._write(line)
        await eventually(lambda: len(self._answers()) > before or not self.runs, f"{self.serial} answers")
        assert len(self._answers()) > before, f"{self.serial} ended:\n{self.out}\n{self.err}"
        return self._answers()[-1]

    def write(self, **line: object) -> None:
        """Send one line over the serial line, and wait for nothing."""
        self._write(json.dumps(line).encode())

    def _write(self, line: bytes) -> None:
        assert self._process
        assert self._process.stdin
        self._process.stdin.write(line + b"\n")

    async def provision(self, site: Site, *, answer: Json | None = None, **more: object) -> Json:
        """Register and bind it at the gateway, pass on the answer as the companion app does; that answer."""
        if answer is None:
            device = await site.api.register(self.serial, model="bota_pin", name=None, firmware_version="1.0.0")
            answer = await site.post(f"{device['id']}/bind", {"end_user_id": "eu_1"})
        said = await self.ask(do="provision", bind={**answer, **more}, networks=NETWORKS)
        assert said["ok"], said
        return answer

    async def power_is_cut(self) -> None:
        """Wait until `die_at` has cut the power."""
        assert await self.ended() == -signal.SIGKILL, f"{self.out}\n{self.err}"

    async def switch_off(self) -> None:
        """Have it go offline cleanly, and wait for its end."""
        await self.ask(do="shutdown")
        assert await self.ended() == 0, f"{self.out}\n{self.err}"

    def stored(self, area: str) -> Json:
        """What its flash holds in `wiped` or `kept`, by name."""
        return {each.stem: json.loads(each.read_text()) for each in sorted((self.flash / area).glob("*.json"))}

    def sockets(self) -> list[str]:
        """The sockets that its process has open, its standard input left out."""
        files = (each for each in Path(f"/proc/{self.pid}/fd").iterdir() if each.name != "0")
        return [target for each in files if (target := str(each.readlink())).startswith("socket:")]

    def lines(self) -> list[Json]:
        """Everything that it printed since its start: facts, and answers to the app."""
        whole = [line for line in self.out.splitlines(keepends=True) if line.startswith("{") and line.endswith("}\n")]
        return [json.loads(line) for line in whole]

    def _answers(self) -> list[Json]:
        return [each for each in self.lines() if "ok" in each]


@contextlib.asynccontextmanager
async def powered(device: FirmwareDevice, *, die_at: int | None = None) -> AsyncIterator[FirmwareDevice]:
    """Let it run as long as the block; then its power is cut, if it still runs."""
    await device.start(die_at=die_at)
    try:
        async with asyncio.timeout(GUARD_SECONDS):
            yield device
    finally:
        await device.kill()
        print(f"--- {device.serial} wrote:\n{device.out}--- and:\n{device.err}")  # noqa: T201 - pytest shows it on failure
