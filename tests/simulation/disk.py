"""The registry on a disk that may be full or busy, and in a process that may be killed around every commit.

SQL, transactions, savepoints and group commits are the gateway's own, on a real SQLite database in memory. A kill rolls
back what was not committed, which is what the next start of a real one does.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from gateway.store import Context, Deadline, Purpose, Store, StoreListener, Tx, View
from gateway.store.engine import DatabaseConnection, Row
from gateway.store.errors import store_error
from gateway.store.schema import migrate
from gateway.store.sqlite.connection import SqliteConnection
from gateway.store.writer import Writer
from tests.simulation.gateway_process import KillableProcess

T = TypeVar("T")

LEDGER = """
    CREATE TEMP TABLE ledger (n INTEGER PRIMARY KEY, what TEXT, device_pk INTEGER, id ANY, old ANY, new ANY, kind TEXT);
    CREATE TEMP TRIGGER l1 AFTER INSERT ON commands BEGIN
        INSERT INTO ledger (what, device_pk, id, new, kind)
            VALUES ('command', new.device_pk, new.id, new.status, new.type); END;
    CREATE TEMP TRIGGER l2 AFTER UPDATE OF status ON commands WHEN old.status <> new.status BEGIN
        INSERT INTO ledger (what, device_pk, id, old, new)
            VALUES ('command', new.device_pk, new.id, old.status, new.status); END;
    CREATE TEMP TRIGGER l3 AFTER INSERT ON tokens BEGIN
        INSERT INTO ledger (what, device_pk, id, new) VALUES ('token', new.device_pk, new.id, new.state); END;
    CREATE TEMP TRIGGER l4 AFTER UPDATE OF state ON tokens WHEN old.state <> new.state BEGIN
        INSERT INTO ledger (what, device_pk, id, old, new)
            VALUES ('token', new.device_pk, new.id, old.state, new.state); END;
    CREATE TEMP TRIGGER l5 AFTER INSERT ON devices BEGIN
        INSERT INTO ledger (what, device_pk, id, new) VALUES ('device', new.pk, new.id, 'registered'); END;
    CREATE TEMP TRIGGER l6 AFTER UPDATE ON devices WHEN (old.bound_at IS NULL) <> (new.bound_at IS NULL) BEGIN
        INSERT INTO ledger (what, device_pk, id, new)
            VALUES ('binding', new.pk, new.id, iif(new.bound_at IS NULL, 'unbound', 'bound')); END;
    CREATE TEMP TRIGGER l7 AFTER UPDATE ON devices WHEN (old.deleted_at IS NULL) <> (new.deleted_at IS NULL) BEGIN
        INSERT INTO ledger (what, device_pk, id, new)
            VALUES ('deletion', new.pk, new.id, iif(new.deleted_at IS NULL, 'restored', 'deleted')); END;
    CREATE TEMP TRIGGER l8 AFTER UPDATE OF binding_generation ON devices BEGIN
        INSERT INTO ledger (what, device_pk, id, old, new)
            VALUES ('generation', new.pk, new.id, old.binding_generation, new.binding_generation); END;
    CREATE TEMP TRIGGER l9 AFTER INSERT ON health WHEN new.connection = 'online' BEGIN
        INSERT INTO ledger (what, device_pk, new) VALUES ('presence', new.device_pk, 'online'); END;
    CREATE TEMP TRIGGER l10 AFTER UPDATE OF connection ON health WHEN old.connection <> new.connection BEGIN
        INSERT INTO ledger (what, device_pk, new) VALUES ('presence', new.device_pk, new.connection); END;
    CREATE TEMP TRIGGER l11 AFTER INSERT ON events BEGIN
        INSERT INTO ledger (what, device_pk, id, old, new) VALUES ('event', new.device_pk, new.id, new.type, new.data);
        END;
    CREATE TEMP TRIGGER l12 AFTER INSERT ON certificates BEGIN
        INSERT INTO ledger (what, device_pk, id, old, new) SELECT 'certificate', device_pk, new.id, command_id, new.kind
            FROM resets WHERE command_id = new.command_id; END;
    CREATE TEMP TRIGGER l13 AFTER INSERT ON jobs BEGIN
        INSERT INTO ledger (what, id, new) VALUES ('job', new.id, new.status); END;
    CREATE TEMP TRIGGER l14 AFTER UPDATE OF status ON jobs WHEN old.status <> new.status BEGIN
        INSERT INTO ledger (what, id, old, new) VALUES ('job', new.id, old.status, new.status); END;
    CREATE TEMP TRIGGER l15 AFTER UPDATE OF outcome, command_id ON job_targets
        WHEN old.outcome <> new.outcome OR old.command_id IS NOT new.command_id BEGIN
        INSERT INTO ledger (what, id, old, new, kind)
            VALUES ('target', new.job_id, old.outcome || ' ' || coalesce(old.command_id, ''),
                new.outcome || ' ' || coalesce(new.command_id, ''), new.device_pk); END;
"""
"""What changes, as SQLite itself sees it: the invariants are checked against this, not against the code under test."""


@cache
def _empty() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None, factory=SqliteConnection)
    migrate(connection)
    return connection


class Disk(SqliteConnection):
    """The registry's file. ``full`` says whether a commit finds no room."""

    full: bool = False
    unreadable: bool = False
    before_commit: Callable[[], None] = staticmethod(lambda: None)
    commits: int = 0

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Run a statement; a commit may fail, or never be reached."""
        if sql == "COMMIT":
            self.before_commit()
            if self.full:
                raise sqlite3.OperationalError("database or disk is full")
            self.commits += 1
        return super().execute(sql, parameters)


def new_disk(file: Path | None = None) -> Disk:
    """An empty registry, in memory unless a ``file`` is named."""
    disk = sqlite3.connect(file or ":memory:", isolation_level=None, factory=Disk)
    if file is None:
        _empty().backup(disk)
    disk.row_factory = sqlite3.Row
    disk.execute("PRAGMA foreign_keys = ON")
    disk.executescript(LEDGER)
    return disk


def drain_ledger(disk: Disk) -> list[Row]:
    """What the transaction that was just committed has changed, in order."""
    rows = disk.execute("SELECT * FROM ledger ORDER BY n").fetchall()
    if rows:
        disk.execute("DELETE FROM ledger")
    return rows


class VirtualWriter(Writer):
    """The gateway's own writer without its thread: the loop runs each group of writes when it is due."""

    process: KillableProcess
    after_commit: Callable[[], None]
    disk: Disk
    judge: Callable[[list[Any]], None]
    _due = False

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""

    async def write(self, write: Callable[[Tx], T], **options: Any) -> T:
        """Queue it as the gateway does."""
        self.process.seam("write")
        await self.process.pause_point("write")
        self._schedule_turn()
        return await super().write(write, **options)

    def _schedule_turn(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_later(self.process.pause("commit"), self._turn)

    def _turn(self) -> None:
        self._due = False
        if self.process.is_dead:
            return
        jobs = self._next_group()
        self.disk.before_commit = partial(self.process.seam, "commit")
        wakeups = self._commit(jobs)
        if self.process.was_killed():  # before the commit: undone
            return
        self.judge(jobs)
        self.after_commit()
        self._loop.call_later(self.process.pause("committed"), self._settle_jobs, jobs, wakeups)
        if self._urgent or self._ordinary:
            self._schedule_turn()

    def _settle_jobs(self, jobs: Any, wakeups: Any) -> None:
        if self.process.try_pass("committed"):
            self._settle(jobs, wakeups)


class VirtualStore(Store):
    """The gateway's store on a :class:`Disk`, without threads; by a ``line`` where several gateways share it."""

    def __init__(
        self,
        disk: Disk,
        process: KillableProcess,
        context: Context,
        *,
        after_commit: Callable[[], None],
        listener: StoreListener,
        line: DatabaseConnection | None = None,
        judge: Callable[[list[Any]], None] = lambda _: None,
    ) -> None:
        super().__init__(Path(), context, listener)
        self._disk = disk
        self._line = line or disk
        self._is_remote = line is not None
        self._process = process
        writer = VirtualWriter(self._line, context, listener)
        writer.process, writer.disk, writer.after_commit, writer.judge = process, disk, after_commit, judge
        self._writer = writer

    async def read(
        self,
        read: Callable[[View], T],
        purpose: Purpose = Purpose.STEERING,  # noqa: ARG002 - there are no threads here
        *,
        deadline: Deadline | None = None,  # noqa: ARG002 - and no long reads
    ) -> T:
        """Read what is committed; the answer may be a little old when it comes."""
        self._process.seam("read")
        before, after = self._process.pause("read"), self._process.pause("read")
        if before:
            await asyncio.sleep(before)
            self._process.seam("read")
        found = self.read_inline(read)
        if after:
            await asyncio.sleep(after)
            self._process.seam("read")
        await self._process.pause_point("read")
        return found

    async def read_small(self, read: Callable[[View], T], purpose: Purpose = Purpose.STEERING) -> T:
        """Read at once, or with the time that the way to a shared registry takes."""
        return await (self.read(read, purpose) if self._is_remote else super().read_small(read, purpose))

    def read_inline(self, read: Callable[[View], T]) -> T:
        """Read what is committed, at once."""
        self._process.seam("look")
        try:
            if self._disk.unreadable:
                raise sqlite3.OperationalError("disk I/O error")
            return read(View(self._line))
        except sqlite3.Error as error:
            raise store_error(error, "read") from error
