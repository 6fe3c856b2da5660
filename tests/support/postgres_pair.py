"""A PostgreSQL primary and its synchronous standby: kill the one, promote the other, make a new standby.

The primary waits for its standby once that streams (``synchronous_standby_names``), and a promoted one for its own new
standby. Between a promotion and the new standby a commit is on one server, as with Patroni.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from gateway.core.postgres_address import PostgresAddress
from gateway.runtime.postgres_server import ADMINISTRATOR, USER, PostgresServer
from tests.support.postgres import execute
from tests.support.small_disk import may_mount, small_disk
from tests.support.wait import eventually

_SETTINGS = (
    *("max_connections=120", "wal_retrieve_retry_interval=200ms", "wal_receiver_status_interval=1"),
    *("shared_buffers=32MB", "max_wal_size=64MB", "min_wal_size=32MB"),
)
_SLOT = "standby"
_KEPT = ("-X", "stream", "-C", "-S", _SLOT, "--checkpoint=fast", "--no-sync")
_GONE = f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{_SLOT}'"  # noqa: S608 - a constant
_COMMIT_WAITS = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
_WAITS = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'sync'"


class PairedServer(PostgresServer):
    """One of the two. With ``source`` its data are a copy of that server, which it follows.

    ``disk_kib``: its data are on a file system of this size, where mounting one is allowed. ``source_port``: the port
    of a proxy on loopback, by which it follows; 0: by the socket of that server.
    """

    def __init__(
        self, *settings: str, source: PostgresServer | None = None, disk_kib: int = 0, source_port: int = 0
    ) -> None:
        super().__init__(*_SETTINGS, *settings)
        self._source = source
        self._source_port = source_port
        self._disk_kib = disk_kib if may_mount() else 0

    @property
    def disk(self) -> Path:
        """The file system of its data."""
        return self.folder / "disk"

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.disk / "data"

    @property
    def socket(self) -> Path:
        """The socket on which it takes connections."""
        return self.folder / ".s.PGSQL.5432"

    @property
    def runs(self) -> bool:
        """Whether it has not ended; it may be about to recover."""
        return (self.data / "postmaster.pid").exists()

    @property
    def is_up(self) -> bool:
        """Whether it takes statements."""
        try:
            return bool(execute(self, "SELECT 1"))
        except psycopg.OperationalError:
            return False

    def kill(self) -> None:
        """`kill -9` to all its processes, as when its machine fails."""
        pids = [self.pid, *children(self.pid)]
        for number in (signal.SIGSTOP, signal.SIGKILL):  # none notices the end of another one
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        for lock in (self.data / "postmaster.pid", self.socket.with_name(f"{self.socket.name}.lock")):
            lock.unlink()  # its process may not be reaped yet, and would then count as running

    def follow(self, source: PostgresServer) -> None:
        """Begin again as the standby of another server, with a copy of its data. This one must not run."""
        self._source = source
        for each in self.data.iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        self._make_data()
        self.start()

    def promote(self) -> None:
        """Make it a primary; it takes writes when this returns."""
        self._run("pg_ctl", "-w", "-D", self.data, "promote")

    def _make_data(self) -> None:
        if not self.disk.exists():
            self._make_disk()
        if self._source is None:
            super()._make_data()
            return
        execute(self._source, _GONE)
        who = f"user={ADMINISTRATOR} application_name={self.folder.name}"
        url = f"host={self._source.folder} {who}"
        self._run("pg_basebackup", "-R", *_KEPT, "-d", url, "-D", self.data)
        if self._source_port:
            with (self.data / "postgresql.auto.conf").open("a") as settings:
                settings.write(f"primary_conninfo = 'host=127.0.0.1 port={self._source_port} {who}'\n")

    def _make_disk(self) -> None:
        if self._disk_kib:
            self._stack.enter_context(small_disk(self.disk, self._disk_kib))
        else:
            self.disk.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(self.disk, USER)


class PostgresPair:
    """The two servers, from the entry of the block to its end.

    ``line_port``: the port of a proxy to the primary's socket, by which the standby follows; 0: without one.
    """

    def __init__(self, *settings: str, disk_kib: int = 0, line_port: int = 0) -> None:
        self._settings = settings
        self._disk_kib = disk_kib
        self._line_port = line_port
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            self.primary = stack.enter_context(self._server())
            self.standby = stack.enter_context(self._server(self.primary))
            self.servers = (self.primary, self.standby)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _server(self, source: PostgresServer | None = None) -> PairedServer:
        return PairedServer(*self._settings, source=source, disk_kib=self._disk_kib, source_port=self._line_port)

    def address(self, database: str) -> PostgresAddress:
        """Return the address of a database, with both hosts."""
        hosts = ",".join(str(each.folder) for each in self.servers)
        return PostgresAddress(f"postgresql://{ADMINISTRATOR}@/{database}?host={hosts}&sslmode=disable")

    def kill_primary(self) -> None:
        """`kill -9`."""
        self.primary.kill()

    def promote(self) -> None:
        """Make the standby the primary. The other server must be down: two that take writes would part."""
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary

    async def rebuild(self) -> None:
        """Make the server that is down the standby of the primary, and have the primary wait for it."""
        await asyncio.to_thread(self.standby.follow, self.primary)
        await self.replicates()

    def commits_wait(self) -> bool:
        """Return whether a commit waits for the standby at this moment."""
        return bool(execute(self.primary, _COMMIT_WAITS))

    async def replicates(self) -> None:
        """Have the primary wait for its standby with each commit; return when it does."""
        execute(self.primary, "ALTER SYSTEM SET synchronous_standby_names = '*'")
        execute(self.primary, "SELECT pg_reload_conf()")
        await eventually(lambda: execute(self.primary, _WAITS), "the standby streams", guard_seconds=60)


def children(parent: int) -> list[int]:
    """Return the processes whose parent is this one."""
    found = []
    for each in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = each.read_text("ascii", "replace")
        except OSError:
            continue
        if int(text.rpartition(")")[2].split()[1]) == parent:
            found.append(int(each.parent.name))
    return found
