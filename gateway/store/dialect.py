"""SQL dialects of the two engines: the few expressions that SQLite and PostgreSQL spell differently.

Everything else in ``gateway/store`` is one text for both. Placeholders are ``?``, or ``?1`` where a value occurs twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class SqlDialect:
    """How one engine spells an expression. Each method returns SQL text.

    ``numbers`` and ``names`` are queries with one placeholder, a list as JSON text. They return its members in a column
    ``value``, as integers or as text. ``lists`` does so for a list of lists: its columns are ``place``, from 0 on, and
    ``item``, whose members :meth:`member` returns. ``newest_event`` returns the number of the newest event that was
    ever committed. ``next_events`` draws as many numbers of events as a placeholder says, and returns the first.
    ``database_bytes`` returns its size where the server knows it. ``like`` compares without regard to the case of A
    to Z. ``share`` after a query of leases keeps them from being taken until the end of the transaction; ``claim``
    waits for those that do so. ``together`` is how many messages of devices are stored by the same statements. On
    SQLite a few cost little. On PostgreSQL each statement is a round trip. ``partitioned``: the history of heartbeats
    is in partitions.
    """

    name: str
    numbers: str
    names: str
    lists: str
    newest_event: str
    next_events: str
    database_bytes: str
    like: str
    share: str
    claim: str
    together: int
    partitioned: bool
    _now: str
    _contains: str
    _least: str
    _greatest: str
    _joined: str
    _json_path: tuple[str, str, str]
    _unindexed: str
    _member: str

    def now(self, instant: int) -> str:
        """Return the present time in milliseconds: by the server's clock, or this process's ``instant`` on SQLite."""
        return self._now.format(instant)

    def least(self, one: str, other: str) -> str:
        """Return the smaller of two values that are not NULL."""
        return f"{self._least}({one}, {other})"

    def greatest(self, one: str, other: str) -> str:
        """Return the greater of two values that are not NULL."""
        return f"{self._greatest}({one}, {other})"

    def contains(self, column: str) -> str:
        """Return the condition that a column of text has the text of a placeholder in it; A to Z count as a to z."""
        return self._contains.format(column)

    def joined(self, column: str) -> str:
        """Return the values of an aggregated column of text, joined by commas."""
        return self._joined.format(column)

    def json_member(self, column: str, *path: str) -> str:
        """Return the member of a JSON document at this path: as text on PostgreSQL, by its type on SQLite."""
        before, between, after = self._json_path
        return f"{before.format(column)}{between.join(path)}{after}"

    def member(self, column: str, index: int) -> str:
        """Return a member of a JSON list: as text on PostgreSQL, by its type on SQLite."""
        return self._member.format(column, index)

    def unindexed(self, column: str) -> str:
        """Return the column in a form that SQLite uses no index for. PostgreSQL's planner needs no such hint."""
        return f"{self._unindexed}{column}"


SQLITE: Final = SqlDialect(
    name="sqlite",
    numbers="SELECT value FROM json_each(?)",
    names="SELECT value FROM json_each(?)",
    lists="SELECT key AS place, value AS item FROM json_each(?)",
    database_bytes="SELECT NULL",
    newest_event="SELECT seq FROM sqlite_sequence WHERE name = 'events'",
    next_events="SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0) + 1 WHERE ? > 0",
    like="LIKE",
    share="",
    claim="",
    together=50,
    partitioned=False,
    _now="{}",
    _contains="instr(lower({}), ?) > 0",
    _least="min",
    _greatest="max",
    _joined="group_concat({})",
    _json_path=("json_extract({}, '$.", ".", "')"),
    _unindexed="+",
    _member="json_extract({}, '$[{}]')",
)
POSTGRESQL: Final = SqlDialect(
    name="postgresql",
    numbers="SELECT value::bigint AS value FROM json_array_elements_text(?::json)",
    names="SELECT value FROM json_array_elements_text(?::json)",
    lists="""SELECT number - 1 AS place, value AS item
        FROM json_array_elements(?::json) WITH ORDINALITY AS listed(value, number)""",
    newest_event="SELECT seq FROM event_counter",
    next_events="UPDATE event_counter SET seq = seq + ?1 RETURNING seq - ?1 + 1",
    database_bytes="SELECT pg_database_size(current_database())",
    like="ILIKE",
    share=" FOR KEY SHARE",
    claim=" FOR UPDATE",
    together=500,
    partitioned=True,
    _now="(extract(epoch FROM clock_timestamp()) * 1000)::bigint",
    _contains="strpos(lower({}), ?) > 0",
    _least="least",
    _greatest="greatest",
    _joined="string_agg({}, ',')",
    _json_path=("({}::json #>> '{{", ",", "}')"),
    _unindexed="",
    _member="({} ->> {})",
)
