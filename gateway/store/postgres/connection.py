"""Connections to PostgreSQL, as the store uses them (:class:`gateway.store.engine.DatabaseConnection`).

Values are put into the text of a statement by the client. So a NULL or a text takes the type that its place needs, and
one SQL text serves both engines. Reads see one state (REPEATABLE READ). A write takes one lock for the registry first,
so writes of several gateways follow one another. Each statement then sees what was committed before (READ COMMITTED).
Batches of heartbeats share that lock, and lock the rows of their devices instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from gateway.store.dialect import POSTGRESQL
from gateway.store.engine import Ahead
from gateway.store.errors import PostgresError
from gateway.store.postgres.ahead import statement_of
from gateway.store.postgres.begin import BEGIN, BEGIN_READ, BEGIN_SHARED
from gateway.store.postgres.failures import IN_DOUBT, is_stale, postgres_error
from gateway.store.postgres.login import connect
from gateway.store.postgres.posted import Outgoing, Posted, answer, message
from gateway.store.postgres.prepared import PreparedStatements
from gateway.store.postgres.statements import Changes, many, text_of, translated
from gateway.store.postgres.steps import HAS_STEPS, NEWEST_STEP, STEP_TABLE, names
from gateway.store.postgres.watchdog import ANSWER_SECONDS, Watchdog
from gateway.store.row_statement import arrays

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gateway.core.postgres_address import PostgresAddress
    from gateway.store.engine import Cursor
    from gateway.store.readers import Deadline
    from gateway.store.row_statement import RowStatement
    from gateway.store.transaction import View

T = TypeVar("T")

ROWS_A_SECOND: Final = 100
"""A slow server executes so many statements of a list in a second, so a long list may take longer."""
ROWS_TOGETHER: Final = 4_000
"""Rows of one statement, which takes a tenth of a second for so many."""
_NO_SCHEMA: Final = "3F000"


class PostgresConnection:
    """One connection, made when it is first used and made again after it was lost."""

    dialect = POSTGRESQL

    def __init__(self, address: PostgresAddress, watchdog: Watchdog | None = None) -> None:
        self._address = address
        self._raw: psycopg.Connection[Any] | None = None
        self._watch = (watchdog or Watchdog()).watch()
        self._is_long = False
        self._outgoing = Outgoing()
        self._prepared = PreparedStatements()
        self._may_prepare = True
        self.patience: float | None = ANSWER_SECONDS
        """How long a statement may take (seconds); None: any time, for changes of the schema."""

    @property
    def in_transaction(self) -> bool:
        """Return whether a transaction is open."""
        raw = self._raw
        return raw is not None and not raw.closed and raw.info.transaction_status is not TransactionStatus.IDLE

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Cursor:
        """Execute a statement.

        Raises:
            PostgresError: it failed, or the server cannot be reached.
        """
        if sql.startswith("ROLLBACK") and self._outgoing.roll_back(sql):
            return psycopg.ClientCursor(self._raw) if self._raw is not None else self._run(psycopg.ClientCursor)
        ahead = self._outgoing.ahead.take(sql, values)
        return self._execute(sql, values) if ahead is None else ahead

    def _execute(self, sql: str, values: Sequence[Any] = ()) -> Cursor:
        posted = self._outgoing.take()
        try:
            self._prepare_wanted()
            text = message(posted, self._text(sql, values)).encode()
            return self._run(lambda raw: answer(posted, raw.execute(text)), len(posted) / ROWS_A_SECOND)
        except PostgresError as error:
            if sql == "COMMIT" and self._is_lost():
                raise PostgresError(str(error), IN_DOUBT) from error
            raise

    def post(self, sql: str, values: Sequence[Any] = (), /) -> Posted:
        """Execute a statement of a transaction together with the next one, or when its result is asked for.

        Raises:
            PostgresError: a value cannot be stored. What fails at the server is raised when it is sent.
        """
        self._outgoing.ahead.changed_by(sql)
        return self._post(sql, values)

    def read_ahead(self, *ahead: Ahead) -> None:
        """Ask for the first answer that each read needs, together (:meth:`gateway.store.View.read_ahead`)."""
        self._prepare_wanted()
        for reads, device_id in ahead:
            for statement in filter(None, map(statement_of, reads)):
                self._outgoing.ahead.add(statement, self._post(*statement), device_id)

    def writes_about(self, device_id: str | None) -> None:
        """Note which device alone the next writes are about: they leave answers about others as they are."""
        self._outgoing.ahead.written_about = device_id

    def _post(self, sql: str, values: Sequence[Any]) -> Posted:
        posted = Posted(self._text(sql, values), self.flush)
        self._outgoing.add(posted)
        return posted

    def _text(self, sql: str, values: Sequence[Any]) -> str:
        """Return the text to send. Reads with a deadline find few rows or many, so each gets its own plan."""
        raw = self._raw or self._run(lambda raw: raw)
        try:
            prepared = None if self._watch.deadline is not None else self._prepared.text_of(raw, sql, values)
            return prepared or text_of(raw, sql, values)
        except psycopg.Error as error:
            raise postgres_error(error) from error

    def _prepare_wanted(self) -> None:
        if not self.in_transaction:
            self._run(lambda raw: self._prepared.prepare_wanted(raw))  # noqa: PLW0108 - a new one's, if it is lost

    def flush(self) -> None:
        """Send what was posted.

        Raises:
            PostgresError: one of the statements failed, or the server cannot be reached.
        """
        posted = self._outgoing.take()
        if posted:
            text = message(posted[:-1], posted[-1].text).encode()
            self._run(lambda raw: answer(posted, raw.execute(text)), len(posted) / ROWS_A_SECOND)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Changes:
        """Execute a statement with each of these rows.

        Raises:
            PostgresError: as above.
        """
        self._outgoing.ahead.changed_by(sql)
        self.flush()
        statement, _ = translated(sql)
        listed = list(rows)
        more = len(listed) / ROWS_A_SECOND
        return self._run(lambda raw: many(raw, statement, listed), more)

    def run_rows(self, statement: RowStatement, rows: Sequence[Sequence[Any]]) -> int:
        """Execute a statement about rows of one table, for some thousand at once; return how many it changed.

        Raises:
            PostgresError: as above.
        """
        parts = [rows[begin : begin + ROWS_TOGETHER] for begin in range(0, len(rows), ROWS_TOGETHER)]
        return sum(self.execute(statement.of_all, arrays(statement, part)).rowcount for part in parts)

    def copy_rows(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add rows to a table by COPY, where no gateway waits for the lock.

        Raises:
            PostgresError: as above.
        """
        self.flush()

        def copy(raw: psycopg.Connection[Any]) -> None:
            with raw.cursor().copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN".encode()) as copying:
                for row in rows:
                    copying.write_row(row)

        self._run(copy, len(rows) / ROWS_A_SECOND)

    def begin(self, *, shared: bool = False) -> None:
        """Begin a transaction that writes, when no other gateway is in one.

        ``shared``: others that share the lock may be. The server serves waiting transactions in turn, so
        a stream of those keeps no other write waiting.
        """
        self._begin(BEGIN_SHARED if shared else BEGIN)

    def begin_checked(self, *, shared: bool = False, ahead: Sequence[Ahead] = ()) -> str | None:
        """Begin, and return the schema step that this program does not know: one message, since each write does it.

        What the transaction reads ``ahead`` goes with it (:meth:`read_ahead`).
        """
        begin = BEGIN_SHARED if shared else BEGIN
        cursor = self._begin(f"{begin}; {NEWEST_STEP}", ahead)
        for _ in begin.split(";"):
            cursor.nextset()
        step = _value(cursor)
        cursor.nextset()
        answer(self._outgoing.take(), cursor)
        return _unless_known(step)

    def commit_with(self, then: Sequence[Callable[[View], object]] = ()) -> None:
        """Commit. What each of these reads first is read at the end of the transaction, in the same message.

        Such a read gets its answer afterwards, until the next transaction. If it fails, nothing is committed.
        """
        self._outgoing.ahead.clear()
        self.read_ahead(Ahead(then))
        self._execute("COMMIT")

    def begin_read(self, deadline: Deadline | None = None) -> None:
        """Begin a transaction whose statements see one state. The server ends it when the deadline has passed."""
        limit = ""
        if deadline is not None:
            limit = f"; SET LOCAL statement_timeout = {max(1, round(deadline.left * 1000))}"
            self.patience = max(ANSWER_SECONDS, deadline.left + 1)
        self._watch.deadline = deadline
        self._begin(BEGIN_READ + limit)

    def take_time(self) -> None:
        """Let the statements of this transaction take any time: they change every device."""
        self._is_long = True

    def end_read(self) -> None:
        """End it."""
        self._watch.deadline = None
        if self.in_transaction:
            try:
                self.execute("ROLLBACK")
            except PostgresError:  # the connection is gone, and with it the transaction
                self.close()
        self.patience = ANSWER_SECONDS

    def refresh(self) -> bool:
        """Forget a connection that was lost. Return whether it was, and another try may succeed at once."""
        self._outgoing.clear()
        if not self._is_lost():
            return False
        self.close()
        return not self._watch.has_cut

    def commits_of_others(self) -> int:
        """Return 0: ids of several gateways need no common order, since events have numbers."""
        return 0

    def stamp(self) -> None:
        """Return None: PostgreSQL has no cheap counter of all commits."""
        return

    def last_numbers(self) -> dict[str, int]:
        """Return counters that change with each commit by any process: ``outbox``, ``events`` and ``schema``.

        A write holds the registry's lock alone, so rows of the outbox have numbers in the order of the commits. Marks
        of mirrored state are the exception, and wake no worker.
        """
        cursor = self.execute(
            f"""SELECT (SELECT max(seq) FROM outbox), (SELECT seq FROM event_counter),
                (SELECT count(*) FROM {STEP_TABLE})"""  # noqa: S608 - a constant
        )
        outbox, events, schema = cursor.fetchall()[0]
        return {"outbox": outbox or 0, "events": events, "schema": schema}

    def newer_schema(self) -> str | None:
        """Return the step that this program does not know, if one was applied by now: the newest one tells."""
        return _unless_known(_value(self.execute(NEWEST_STEP)))

    def known_steps(self) -> tuple[str, ...]:
        """Return the names of the schema steps that this program knows, in order."""
        return names()

    def applied_steps(self) -> set[str]:
        """Return the names of the schema steps that were applied; none in an empty database.

        The catalogue is asked by a query. ``to_regclass`` may answer from a cache: after a wait for the lock it did not
        see the tables that another gateway had made meanwhile.

        Raises:
            PostgresError: the user may use no schema, so it is not known whether there is a registry.
        """
        found = _value(self.execute(HAS_STEPS))
        if found is None:
            raise PostgresError("the user may use none of the schemas in its search_path", _NO_SCHEMA)
        if not found:
            return set()
        return {row[0] for row in self.execute(f"SELECT name FROM {STEP_TABLE}")}  # noqa: S608 - a constant

    def server_version(self) -> int:
        """Return the server's version, such as 180006 for 18.6.

        Raises:
            PostgresError: the server cannot be reached, or refuses the user.
        """
        return int(_value(self.execute("SHOW server_version_num")))

    def close(self) -> None:
        """Close the connection."""
        self._outgoing.clear()
        raw, self._raw = self._raw, None
        if raw is not None:
            raw.close()

    def _begin(self, statement: str, ahead: Sequence[Ahead] = ()) -> psycopg.Cursor[Any]:
        """Begin. Where an old connection turns out to be lost, begin on a new one: nothing was done on it yet.

        What is read ahead stays posted, for its answers, unless the connection is a new one.
        """
        self.refresh()
        self._is_long = False
        is_new = self._raw is None
        try:
            self.read_ahead(*ahead)
            text = self._outgoing.message_after(statement)
            return self._run(lambda raw: raw.execute(text.encode()))
        except PostgresError:
            if is_new or not self.refresh():
                raise
            return self._run(lambda raw: raw.execute(statement.encode()))

    def _is_lost(self) -> bool:
        return self._raw is not None and (self._raw.closed or self._raw.broken)

    def _run(self, call: Callable[[psycopg.Connection[Any]], T], more: float = 0) -> T:
        patience = None if self._is_long or self.patience is None else self.patience + more
        try:
            raw = self._raw
            if raw is None:
                raw = self._raw = connect(self._address)
                self._prepared = PreparedStatements(allowed=self._may_prepare)
            with self._watch.running(raw, patience):
                return call(raw)
        except psycopg.Error as error:
            if self._watch.has_cut:
                raise PostgresError(f"no answer within {patience:g} s", None) from error
            if self._raw is not None and is_stale(error):
                self._may_prepare = False
                self._raw.close()
            raise postgres_error(error) from error


def _unless_known(step: str | None) -> str | None:
    return step if step not in names() else None


def _value(cursor: Cursor) -> Any:
    row = cursor.fetchone()
    return None if row is None else row[0]
