"""Posted statements: sent with the next statement whose result is needed, since each message is a round trip.

They are one message together, which the server executes in order. A write of the registry is half reads and half
changes, and nothing asks what most changes did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gateway.store.postgres.ahead import Answers
from gateway.store.postgres.values import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

_ROLLBACK_TO: Final = "ROLLBACK TO "


class Posted:
    """A statement, and its result once that was asked for."""

    def __init__(self, text: str, send: Callable[[], None]) -> None:
        self.text = text
        self._send = send
        self._count: int | None = None
        self._rows: list[Any] = []

    def answered(self, count: int, rows: list[Any]) -> None:
        """Take the result."""
        self._count, self._rows = count, rows

    @property
    def rowcount(self) -> int:
        """Return how many rows were changed."""
        self._wait()
        return self._count or 0

    def __iter__(self) -> Iterator[Any]:
        """Return the rows that are left, one by one."""
        return iter(self.fetchall())

    def fetchone(self) -> Any:
        """Return the next row, or None."""
        self._wait()
        return self._rows.pop(0) if self._rows else None

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        self._wait()
        rows, self._rows = self._rows, []
        return rows

    def _wait(self) -> None:
        if self._count is None:
            self._send()


class Outgoing:
    """The posted statements of a connection that were not sent yet."""

    def __init__(self) -> None:
        self._waiting: list[Posted] = []
        self.ahead = Answers()

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._waiting)

    def add(self, posted: Posted) -> None:
        """Add one."""
        self._waiting.append(posted)

    def clear(self) -> None:
        """Forget them: their transaction is rolled back."""
        self._waiting.clear()
        self.ahead.clear()

    def roll_back(self, statement: str) -> bool:
        """Forget what this statement undoes. Return whether that was all: the savepoint itself was not sent yet."""
        savepoint = f"SAVEPOINT {statement.removeprefix(_ROLLBACK_TO)}"
        places = [place for place, each in enumerate(self._waiting) if each.text == savepoint]
        if statement.startswith(_ROLLBACK_TO) and places:
            del self._waiting[places[-1] + 1 :]
            return True
        self.clear()
        return False

    def message_after(self, first: str) -> str:
        """Return the text of one message with a first statement and these."""
        return ";".join((first, *(each.text for each in self._waiting)))

    def take(self) -> list[Posted]:
        """Return them, to be sent now."""
        taken, self._waiting = self._waiting, []
        return taken


def message(posted: list[Posted], last: str) -> str:
    """Return the text of one message with these statements and a last one."""
    return ";".join((*(each.text for each in posted), last))


def answer(posted: list[Posted], cursor: psycopg.Cursor[Any]) -> psycopg.Cursor[Any]:
    """Give each of these statements its result. Return the cursor with the result of the last statement."""
    for each in posted:
        each.answered(cursor.rowcount, rows_of(cursor))
        cursor.nextset()
    return cursor
