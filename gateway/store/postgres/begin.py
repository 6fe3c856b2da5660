"""How transactions begin on PostgreSQL. Their settings are local to them, so a pooler may lie between."""

from __future__ import annotations

from typing import Final

WRITE_LOCK: Final = 0x6761_7465
"""Key of the advisory lock that a write holds to its end. The transaction owns it, so it works behind PgBouncer."""
IDLE_MS: Final = 5_000
"""A gateway that is paused in a transaction loses it after this time, so the others need not wait for it."""
_BY_INDEX: Final = "SET LOCAL enable_mergejoin = off"
"""A page joins a few rows to others by their key. For a page behind a hundred thousand rows the server would merge two
indexes from their first row on, and expects to be at the page at once. It took 500 ms in place of 1."""
_SEES_COMMITS: Final = "ISOLATION LEVEL READ COMMITTED"
"""Stated, since a server may have another default: a write would then decide by what was there before its lock."""
BEGIN: Final = (
    f"BEGIN {_SEES_COMMITS}; SET LOCAL idle_in_transaction_session_timeout = {IDLE_MS}; {_BY_INDEX};"
    f" SELECT pg_advisory_xact_lock({WRITE_LOCK})"
)
BEGIN_SHARED: Final = BEGIN.replace("xact_lock(", "xact_lock_shared(")
BEGIN_READ: Final = f"""BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {_BY_INDEX};
    SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL jit = off"""
"""A page takes a millisecond. To start parallel workers for it, or to compile it, took the server 60 times as long."""
