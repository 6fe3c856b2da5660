"""A writer of a test's own, whose thread can be held, so that what waits for it is known."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.core import ids
from gateway.store import Context, StoreListener, Tx, View, open_database
from gateway.store.engine import Cursor, DatabaseConnection
from gateway.store.measurements import Measure
from gateway.store.writer import Writer


@dataclass
class WriterBench:
    """A writer at work, its connection, and the statements that were begun on it, in order."""

    writer: Writer
    connection: DatabaseConnection
    statements: list[str] = field(default_factory=list)

    @property
    def commits(self) -> int:
        """How many succeeded: after one that was refused comes a rollback."""
        following = [*self.statements[1:], ""]
        return sum(
            one == "COMMIT" and next_one != "ROLLBACK" for one, next_one in zip(self.statements, following, strict=True)
        )


@dataclass
class _Calls(StoreListener):
    """Passes the calls on to functions."""

    committed: Callable[[frozenset[str]], None]
    measured: Callable[[list[Measure]], None]

    def notify_outbox(self, kinds: frozenset[str]) -> None:
        """Pass it on."""
        self.committed(kinds)

    def notify_measured(self, samples: list[Measure]) -> None:
        """Pass it on."""
        self.measured(samples)


@asynccontextmanager
async def writing(
    data_dir: Path,
    *,
    context: Context | None = None,
    committed: Callable[[frozenset[str]], None] = lambda _: None,
    measured: Callable[[list[Measure]], None] = lambda _: None,
) -> AsyncIterator[WriterBench]:
    """A writer that gives a held lock 50 ms."""
    connection = open_database(data_dir)
    writer = Writer(connection, context or Context(), _Calls(committed, measured))
    bench = WriterBench(writer, connection)
    trace(connection, bench.statements.append)
    writer.start()
    try:
        yield bench
    finally:
        await asyncio.to_thread(writer.stop)
        await asyncio.sleep(0)
        connection.close()


def trace(connection: DatabaseConnection, told: Callable[[str], object]) -> None:
    """Tell the statements of a connection, from now on."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA busy_timeout = 50")
        connection.set_trace_callback(told)
        return
    execute = connection.execute

    def traced(sql: str, values: Sequence[Any] = (), /) -> Cursor:
        told(sql)
        return execute(sql, values)

    commit_with = connection.commit_with

    def committed(then: Sequence[Callable[[View], object]] = ()) -> None:
        told("COMMIT")
        commit_with(then)

    connection.execute = traced  # type: ignore[method-assign]
    connection.commit_with = committed  # type: ignore[method-assign]


class Gate:
    """A write that holds the writer's thread until it is opened."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._open = threading.Event()

    def __call__(self, _: Tx) -> None:
        """Say that the thread is here, and wait."""
        self._reached.set()
        assert self._open.wait(20), "nobody opened the gate"

    async def reached(self) -> None:
        """Wait until the thread is held."""
        assert await asyncio.to_thread(self._reached.wait, 20), "nobody came to the gate"

    def open(self) -> None:
        """Let the thread go."""
        self._open.set()


def project(name: str) -> Callable[[Tx], str]:
    """A write that makes a project of this name, which must be unique."""

    def write(tx: Tx) -> str:
        project_id = tx.new_id(ids.PROJECT)
        tx.run("INSERT INTO projects (id, name, created_at) VALUES (?, ?, ?)", project_id, name, tx.now)
        return project_id

    return write


def names(view: View) -> set[str]:
    """The names of the projects there are."""
    return {row["name"] for row in view.all("SELECT name FROM projects")}


async def queued(
    writer: Writer, writes: list[Callable[[Tx], object]], *, urgent: bool = True
) -> list[asyncio.Task[object]]:
    """Hand these writes over in order, and return while they wait."""
    tasks = [asyncio.create_task(writer.write(write, urgent=urgent)) for write in writes]
    await asyncio.sleep(0)
    return tasks
