"""What the store needs of a database engine: SQLite (``gateway/store/sqlite``) or PostgreSQL (``…/postgres``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from gateway.store.dialect import SqlDialect
    from gateway.store.readers import Deadline
    from gateway.store.row_statement import RowStatement


class Ahead(NamedTuple):
    """What a write reads first, so that it is asked for when the transaction begins."""

    reads: Sequence[Callable[[Any], object]] = ()
    device_id: str | None = None
    """The device that the write and these reads are about, as far as they concern devices, commands and tokens.

    None: they may be about several.
    """


NOTHING_AHEAD: Final = Ahead()


class Row(Protocol):
    """A row: its values by name, by place, and in order."""

    def __getitem__(self, key: str | int) -> Any:
        """Return a value."""

    def __iter__(self) -> Iterator[Any]:
        """Return the values in order."""

    def keys(self) -> Sequence[str]:
        """Return the names."""


class Changes(Protocol):
    """What statements have changed."""

    @property
    def rowcount(self) -> int:
        """Return how many rows were changed."""


class Cursor(Changes, Protocol):
    """The result of a statement."""

    def __iter__(self) -> Iterator[Any]:
        """Return the rows that are left, one by one."""

    def fetchone(self) -> Any:
        """Return the next row, or None."""

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""


class DatabaseConnection(Protocol):
    """A connection of one thread at a time. A transaction ends with the statement COMMIT or ROLLBACK."""

    @property
    def dialect(self) -> SqlDialect:
        """Return how this engine spells expressions."""

    @property
    def in_transaction(self) -> bool:
        """Return whether a transaction is open."""

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Cursor:
        """Execute a statement. Placeholders are ``?`` or ``?1``."""

    def post(self, sql: str, values: Sequence[Any] = (), /) -> Cursor:
        """Execute a statement by the time its result, or that of a later one, is asked for."""

    def flush(self) -> None:
        """Execute what was posted and was not executed yet. Errors of those statements are raised here or before."""

    def read_ahead(self, *ahead: Ahead) -> None:
        """Ask for what each of these reads first, together, where each statement is a round trip.

        See :meth:`gateway.store.View.read_ahead`.
        """

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Changes:
        """Execute a statement with each of these rows."""

    def run_rows(self, statement: RowStatement, rows: Sequence[Sequence[Any]]) -> int:
        """Execute a statement about rows of one table; return how many it changed."""

    def begin(self, *, shared: bool = False) -> None:
        """Begin a transaction that writes: alone, or beside others that are ``shared``, where the engine can."""

    def begin_checked(self, *, shared: bool = False, ahead: Sequence[Ahead] = ()) -> str | None:
        """Begin a transaction that writes; return what :meth:`newer_schema` does.

        What its writes read ``ahead`` is asked for at once (:meth:`read_ahead`).
        """

    def writes_about(self, device_id: str | None) -> None:
        """Note which device alone the next writes are about (:class:`Ahead`); None: any."""

    def commit_with(self, then: Sequence[Callable[[Any], object]] = ()) -> None:
        """Commit. What each of these reads next is asked for with it, where a statement is a round trip."""

    def begin_read(self, deadline: Deadline | None = None) -> None:
        """Begin a transaction whose statements see one state. The work is given up when the deadline has passed."""

    def take_time(self) -> None:
        """Let the statements of this transaction take any time: they change every device."""

    def end_read(self) -> None:
        """End it."""

    def commits_of_others(self) -> int:
        """Return a counter that changes with each commit by another connection; constant where ids need none."""

    def stamp(self) -> tuple[int, int] | None:
        """Return a value that changes with every write to the registry, or None where the engine has no such value."""

    def newer_schema(self) -> str | None:
        """Return the schema step that this program does not know, if one was applied by now."""

    def known_steps(self) -> Sequence[str]:
        """Return the names of the schema steps that this program knows for this engine, in order."""

    def applied_steps(self) -> set[str]:
        """Return the names of the schema steps that were applied; none in an empty database."""

    def refresh(self) -> bool:
        """Forget a connection that was lost. Return whether it was, and another try may succeed at once."""

    def last_numbers(self) -> dict[str, int]:
        """Return counters that change with each commit by any process: ``outbox``, ``events`` and ``schema``."""

    def close(self) -> None:
        """Close the connection."""


class Engine(Protocol):
    """One registry at one engine, as a store uses it.

    ``is_local``: a look-up takes microseconds and waits for no network, so the event loop may do it itself.
    """

    is_local: bool

    def open(self, *, to_serve: bool = False) -> DatabaseConnection:
        """Open a connection that writes. An older registry is migrated ``to_serve``.

        Raises:
            StoreError: the registry cannot be used, or has the schema of another version.
        """

    def open_existing(self) -> DatabaseConnection:
        """Open a connection that writes to a registry that is there.

        Raises:
            NotFoundError: it does not exist.
            StoreError: the registry cannot be used, or has the schema of another version.
        """

    def open_writer(self) -> DatabaseConnection:
        """Open the store's connection that writes, and start what the engine does beside it.

        Raises:
            StoreError: the registry cannot be used, or has the schema of another version.
        """

    def open_reader(self) -> DatabaseConnection:
        """Open a connection that only reads.

        Raises:
            StoreError: it cannot be opened.
        """

    def open_renewer(self) -> DatabaseConnection | None:
        """Return a connection for renewals, which wait for no other write; None where one process writes."""

    def committed(self) -> None:
        """Note a commit of the writer, in its thread."""

    def stop(self) -> None:
        """Stop what :meth:`open_writer` started. Blocks until it has ended."""
