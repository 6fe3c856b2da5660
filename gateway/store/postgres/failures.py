"""Errors of psycopg as ours, with the ``sqlstate`` where libpq gives none."""

from __future__ import annotations

import re
from typing import Final

import psycopg

from gateway.store.errors import STALE_STATEMENT, PostgresError

_BAD_VALUE: Final = "22000"
"""The ``sqlstate`` for a value that psycopg itself refuses, such as a text with a NUL."""
_BROKEN: Final = "the connection was lost"
IN_DOUBT: Final = "08007"
"""The ``sqlstate`` for a commit whose answer was lost (transaction_resolution_unknown)."""
_CHANGED_PLAN: Final = "cached plan must not change result type"
_REFUSALS: Final = (
    ("28000", re.compile("authentication failed|pg_hba.conf|no password supplied|not permitted to log in")),
    ("28000", re.compile("role .* does not exist")),
    ("3D000", re.compile("database .* does not exist")),
    ("25006", re.compile("session is read-only|hot standby")),
    ("53100", re.compile("No space left on device")),
    ("53300", re.compile("too many clients|remaining connection slots")),
    ("57P03", re.compile("starting up|shutting down|not yet accepting")),
    ("0A000", re.compile("certificate|SSL")),
)
"""The ``sqlstate`` by words of the message: libpq gives none when a connection is refused."""


def postgres_error(error: psycopg.Error) -> PostgresError:
    """Return psycopg's error as ours."""
    text = str(error).strip() or _BROKEN
    state = error.sqlstate or (_BAD_VALUE if isinstance(error, psycopg.DataError) else _refusal(text))
    return PostgresError(
        text.splitlines()[0], STALE_STATEMENT if is_stale(error) else state, error.diag.constraint_name
    )


def is_stale(error: psycopg.Error) -> bool:
    """Return whether a statement failed because it was prepared, and may succeed when it is not.

    The session does not know it, since a pooler has changed the session. Or a newer gateway has changed the columns.
    """
    return error.sqlstate == STALE_STATEMENT or _CHANGED_PLAN in str(error)


def _refusal(text: str) -> str | None:
    return next((state for state, words in _REFUSALS if words.search(text)), None)
