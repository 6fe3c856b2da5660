"""A real Mosquitto per test, started from the files of `broker_config` on a free port.

async with Mosquitto(tmp_path, users={"dev_A": "secret"}) as broker:
        ...connect to broker.host, broker.port...

Its users are `gateway` (GATEWAY_PASSWORD), `integrator` (INTEGRATOR_PASSWORD), those of the test, and `probe`, by which
the harness makes sure that the broker has read the password file: its password is another one at each write, so once
the broker admits it, everything else in the file is in force.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import broker_config
from broker_config import local
from gateway.broker.mosquitto.password_file import PasswordFile, password_entry
from tests.support import wire
from tests.support.ports import free_port
from tests.support.wait import eventually

GATEWAY_PASSWORD = "gateway-password"
INTEGRATOR_PASSWORD = "integrator-password"
PROBE = "probe"

_STARTS = 10
_STOP_SECONDS = 20.0


class MosquittoError(AssertionError):
    """The broker is missing or did not come up; holds its log."""


class Mosquitto:
    """One broker with its files in `directory`; a restart keeps port and files."""

    host = "127.0.0.1"

    def __init__(
        self,
        directory: Path,
        *,
        users: Mapping[str, str] | None = None,
        prefix: str = "",
        settings: str = "",
        plugin: Path | None = local.locks_plugin(),  # noqa: B008 - it is the same for all of them
    ) -> None:
        """`users`: password by user name. `settings`: lines added to the configuration, for what only a test wants."""
        self.directory = directory / "mosquitto"
        self.users = {"gateway": GATEWAY_PASSWORD, "integrator": INTEGRATOR_PASSWORD, **(users or {})}
        self.prefix = prefix
        self.settings = settings
        self.plugin = plugin
        self.port = 0
        self.log_file = self.directory / "mosquitto.log"
        self._files: broker_config.Rendered | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._log_start = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()
        print(f"--- Mosquitto on port {self.port} said:\n{self.log_text()}")  # noqa: T201 - pytest shows it on failure

    @property
    def files(self) -> broker_config.Rendered:
        """The rendered files; there once it has been started."""
        assert self._files, "start the broker first"
        return self._files

    @property
    def password_file(self) -> Path:
        """The file that a gateway under test keeps in step (its `fixed` users replace those of the harness)."""
        return self.files.password_file

    @property
    def pid_file(self) -> Path:
        """Where the broker writes its process id."""
        return self.files.pid_file

    @property
    def pid(self) -> int:
        """The process id of the running broker."""
        assert self._process, "the broker is not running"
        return self._process.pid

    def log_text(self) -> str:
        """What the broker has logged, over all its starts."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    async def start(self) -> None:
        """Start it and wait until it accepts connections. The first start finds a port; later ones keep it."""
        for _ in range(_STARTS):
            self._prepare()
            await self._spawn()
            await eventually(self._is_up_or_gone, f"Mosquitto on port {self.port} came up")
            if self._runs():
                return
            await self._reap()
            if "Address already in use" not in self._log_of_this_start():
                break
            self._files = None
        raise MosquittoError(f"Mosquitto did not come up on port {self.port}:\n{self.log_text()}")

    async def stop(self) -> None:
        """SIGTERM, as an operator stops it: it saves its store. Nothing happens when it is down already."""
        if self._process and self._runs():
            self._process.terminate()
        await self._reap()

    async def kill(self) -> None:
        """`kill -9`: nothing is saved that was not saved before."""
        if self._process and self._runs():
            self._process.kill()
        await self._reap()

    async def restart(self, *, forget_retained: bool = False) -> None:
        """Stop and start; with `forget_retained` as a broker that lost its disk (sessions are forgotten too)."""
        await self.stop()
        if forget_retained:
            shutil.rmtree(self.files.persistence_dir)
        await self.start()

    @contextlib.asynccontextmanager
    async def client(
        self, username: str, *, clean: bool = True, will: wire.Will | None = None
    ) -> AsyncIterator[wire.Wire]:
        """A raw connection that the broker has accepted, under the user's present password."""
        async with wire.Wire.open(self.host, self.port) as client:
            answer = await client.connect(username, username, self.users[username], clean=clean, will=will)
            assert answer == wire.ACCEPTED, f"{username} was refused with {answer}"
            yield client

    async def connect_answer(self, client_id: str, username: str | None = None, password: str | None = None) -> int:
        """What the broker answers to this CONNECT: a return code of `tests.support.wire`."""
        async with wire.Wire.open(self.host, self.port) as client:
            return await client.connect(client_id, username, password)

    async def add_users(self, users: Mapping[str, str]) -> None:
        """Let more users in; returns when the broker does."""
        self.users.update(users)
        await self.apply_users()

    async def remove_users(self, *usernames: str) -> None:
        """Take users away; returns when the broker has cut and forgotten them."""
        for username in usernames:
            del self.users[username]
        await self.apply_users()

    async def apply_users(self) -> None:
        """Write `users` to the password file, send SIGHUP, and wait until that very file is in force."""
        passwords, probe_password = self._write_users()
        await asyncio.to_thread(passwords.reload)
        await eventually(lambda: self._lets_probe_in(probe_password), "Mosquitto read its password file again")

    def _prepare(self) -> None:
        if self._files is None:
            self.port = free_port(self.host)
            self._files = broker_config.render(
                self.directory,
                port=self.port,
                host=self.host,
                prefix=self.prefix,
                user="root" if os.geteuid() == 0 else "mosquitto",  # who may enter a test's directory
                plugin=self.plugin,
            )
            with self._files.config.open("a") as config:
                config.write(f"\n{self.settings}\n")
            self._write_users()
        self._files.persistence_dir.mkdir(exist_ok=True)

    def _write_users(self) -> tuple[PasswordFile, str]:
        probe_password = secrets.token_hex(16)
        fixed = {user: password_entry(word) for user, word in {**self.users, PROBE: probe_password}.items()}
        passwords = PasswordFile(self.password_file, pid_file=self.pid_file, fixed=fixed)
        passwords.write(())
        return passwords, probe_password

    async def _spawn(self) -> None:
        self._log_start = len(self.log_text())
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                local.binary(), "-c", str(self.files.config), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )

    async def _is_up_or_gone(self) -> bool:
        if not self._runs():
            return True
        return " running" in self._log_of_this_start() and await self._accepts()

    async def _accepts(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    async def _lets_probe_in(self, password: str) -> bool:
        return await self.connect_answer(PROBE, PROBE, password) == wire.ACCEPTED

    def _log_of_this_start(self) -> str:
        return self.log_text()[self._log_start :]

    def _runs(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def _reap(self) -> None:
        if self._process:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
            self._process = None
