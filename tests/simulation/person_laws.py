"""Laws of a person's data (invariant 8), judged by the tables alone."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from typing import Final

from tests.simulation.integrator import Finding

PERSON: Final = "eu_1"
"""To whom operators bind every device."""
_GONE: Final = "nothing of an erased person is left in the tables"
_THEIRS: Final = "each heartbeat belongs to a binding of its device"
_ENDS: Final = "an accepted erasure is finished"
_WORD: Final = re.compile(rf"\b{PERSON}\b")


def check_erased(view: sqlite3.Connection, since: int) -> Iterator[Finding]:
    """Of an erasure that was answered: nothing names the person but what happened after ``since``, the last event."""
    rows = view.execute("SELECT seq, type, data FROM events").fetchall()
    naming = [row for row in rows if _WORD.search(row["data"])]
    for row in naming:
        if row["seq"] <= since:
            yield 8, _GONE, f"event {row['seq']}, {row['type']}, names the person"
    for row in view.execute("SELECT * FROM bindings WHERE end_user_id = ? AND first_event <= ?", (PERSON, since)):
        yield 8, _GONE, f"the binding of device {row['device_pk']} with generation {row['generation']} is left"
    if not naming:
        for table in ("end_user_salts", "bindings", "idempotency", "devices"):
            if view.execute(f"SELECT 1 FROM {table} WHERE end_user_id = ?", (PERSON,)).fetchone():  # noqa: S608 - constants
                yield 8, _GONE, f"{table} names the person, and no event does"
    yield from check_histories(view)


def check_histories(view: sqlite3.Connection) -> Iterator[Finding]:
    """No heartbeat is left without its binding, and none has two."""
    rows = view.execute(
        """SELECT h.id, h.device_pk, count(b.generation) AS bindings FROM heartbeats h
            LEFT JOIN bindings b ON b.device_pk = h.device_pk AND h.id > b.after_heartbeat
                AND (b.unbound_at IS NULL OR h.id <= b.last_heartbeat)
            GROUP BY h.id HAVING count(b.generation) <> 1"""
    )
    for row in rows:
        yield 8, _THEIRS, f"heartbeat {row['id']} of device {row['device_pk']} is in {row['bindings']} bindings"


def check_at_rest(view: sqlite3.Connection) -> Iterator[Finding]:
    """At the end no erasure is open, also after kills and full disks."""
    for row in view.execute("SELECT pseudonym FROM erasures"):
        yield 8, _ENDS, f"{row['pseudonym']} is open"
    yield from check_histories(view)
