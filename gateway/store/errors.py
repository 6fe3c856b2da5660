"""Storage errors: the error codes of both engines, with a remedy for the operator.

SQLite: https://www.sqlite.org/rescode.html. PostgreSQL: https://www.postgresql.org/docs/current/errcodes-appendix.html.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final, TypeGuard

import structlog

from gateway import __version__
from gateway.errors import StoreError

log = structlog.get_logger()


class PostgresError(Exception):
    """An error of PostgreSQL or of the connection to it.

    ``sqlstate`` is the five-character code, or ``None`` when the server gave none.
    """

    def __init__(self, message: str, sqlstate: str | None, constraint: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.constraint = constraint


DATABASE_ERRORS: Final = (sqlite3.Error, PostgresError)
MINTED: Final = (
    "projects",
    "api_keys",
    "devices",
    "commands",
    "events",
    "webhooks",
    "deliveries",
    "certificates",
    "jobs",
)
"""The tables whose ids are minted."""
_TAKEN: Final = frozenset(f"UNIQUE constraint failed: {table}.id" for table in MINTED)
_TAKEN_CONSTRAINTS: Final = frozenset(f"{table}_{suffix}" for table in MINTED for suffix in ("pkey", "id_key"))
_FAULT_OF_ONE: Final = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)
_STATES_OF_ONE: Final = ("21", "22", "23", "42")
"""Classes of ``sqlstate`` for faults of a single statement: data, integrity, syntax."""
_NO_RIGHT: Final = "42501"
_NO_TABLE: Final = "42P01"
_STATES_OF_ALL: Final = (_NO_RIGHT, _NO_TABLE)
"""States of those classes that no statement of ours causes: someone took a right from the database user, or a table.

A table in a schema that the user may not use counts as missing.
"""
_UNIQUE_VIOLATION: Final = "23505"
STALE_STATEMENT: Final = "26000"
"""The ``sqlstate`` of a prepared statement that is no longer valid (invalid_sql_statement_name)."""
_CONFLICTS: Final = {"40001": "serialization", "40P01": "deadlock", STALE_STATEMENT: "stale_statement"}
_QUERY_CANCELED: Final = "57014"


def id_was_taken(error: BaseException) -> bool:
    """Return whether a new id is taken: two processes minted the same one. The next id will do."""
    if isinstance(error, PostgresError):
        return error.sqlstate == _UNIQUE_VIOLATION and error.constraint in _TAKEN_CONSTRAINTS
    return isinstance(error, sqlite3.IntegrityError) and str(error) in _TAKEN


def conflict(error: BaseException) -> str | None:
    """Return how a transaction met another one, so that the same work may be done again; None for other errors."""
    return _CONFLICTS.get(error.sqlstate or "") if isinstance(error, PostgresError) else None


def concerns_all(error: BaseException) -> TypeGuard[sqlite3.Error | PostgresError]:
    """Return whether the database itself cannot go on (full, busy, read only, away, closed to its user).

    No single write causes that.
    """
    if isinstance(error, PostgresError):
        state = error.sqlstate or ""
        return state in _STATES_OF_ALL or state[:2] not in _STATES_OF_ONE
    return isinstance(error, sqlite3.Error) and not isinstance(error, _FAULT_OF_ONE)


def was_interrupted(error: sqlite3.Error | PostgresError) -> bool:
    """Return whether a read was given up because its deadline had passed."""
    if isinstance(error, PostgresError):
        return error.sqlstate == _QUERY_CANCELED
    return getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT"


OPENED: Final = "opened"
USED: Final = "used"
"""What failed in a command, of which it is not known whether it has changed something before."""
_AGAIN: Final = "Then send the same request again."
_ANYTHING: Final = f"Check free space and permissions of the data directory (setting 'data_dir'). {_AGAIN}"
_DAMAGED: Final = (
    "The file is damaged: stop the gateway, keep a copy of the data directory (setting 'data_dir'), and put the last "
    "backup back ('gateway restore FILE'; 'gateway docs runbook' has the steps)."
)
_REMEDIES: Final[Mapping[str, str]] = {
    "SQLITE_FULL": f"The disk is full: free some space where the data directory is (setting 'data_dir'). {_AGAIN}",
    "SQLITE_READONLY": "The data directory (setting 'data_dir') or the registry in it is read only: make both writable "
    f"for the gateway's user. {_AGAIN}",
    "SQLITE_BUSY": f"Another program keeps the registry locked: find it ('fuser gateway.db') and end it. {_AGAIN}",
    "SQLITE_LOCKED": f"Another program keeps the registry locked: find it ('fuser gateway.db') and end it. {_AGAIN}",
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_NOTADB": _DAMAGED,
}
_ANYTHING_AT_A_SERVER: Final = f"Look into the log of the PostgreSQL server. {_AGAIN}"
_AWAY: Final = f"The PostgreSQL server cannot be reached: check that it runs, and the setting 'database'. {_AGAIN}"
_STANDBY: Final = (
    "The server is a read-only standby: name the primary in the setting 'database', or all hosts. If the primary has "
    f"failed, promote the standby. {_AGAIN}"
)
_IN_DOUBT: Final = "08007"
_LOST: Final = "The connection was lost during the commit."
_CLOSED: Final = (
    "A table is missing, or is in a schema that the database user of the setting 'database' may not use: grant it "
    "USAGE on that schema, or restore the last backup of the server."
)
_REMEDIES_BY_STATE: Final[Mapping[str, str]] = {
    "08": _AWAY,
    "57": _AWAY,
    _IN_DOUBT: f"{_LOST} Send the same request again, with the same Idempotency-Key.",
    "0A000": "No TLS connection was made: name the authority of the server's certificate (sslrootcert=FILE in the "
    "setting 'database'), and the host by the name in that certificate.",
    "25006": _STANDBY,
    "28": "The server refuses this user or password: check the user in the setting 'database', its password "
    "('database_password_file', PGPASSWORD or PGPASSFILE), and the server's pg_hba.conf.",
    "3D000": "The server has no such database: create it ('createdb'), or name another one in the setting 'database'.",
    "53100": f"The disk of the PostgreSQL server is full: free some space there. {_AGAIN}",
    "53": f"The PostgreSQL server is short of connections or memory: raise its limits (max_connections). {_AGAIN}",
    _NO_RIGHT: "The database user of the setting 'database' lacks a right: make it the owner of the database and of "
    "all tables in it, or name the user that made them. To make a new registry, CREATE on the database and on its "
    "schema public is enough.",
    _NO_TABLE: _CLOSED,
    "3F": _CLOSED,
    "XX001": "The database is damaged: promote a standby, or restore the last backup of the server.",
}


class StorageHealth:
    """Health of the storage. It logs when trouble begins and when it is over.

    It is over with the next commit, except for damage: a write that succeeds on other pages proves nothing.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._lasts = False
        self._is_away = False

    def met(self, error: sqlite3.Error | PostgresError, failed: str = "written") -> StoreError:
        """Record an error of the database; return the error to raise for it."""
        told = store_error(error, failed)
        if not self._lasts and self.reason != told.message:  # once, not for every write that fails by it
            self.reason, self._lasts = told.message, remedy(error) is _DAMAGED
            self._is_away = remedy(error) in (_AWAY, _STANDBY)
            log.error("store.failing", reason=told.message)
        return told

    def outgrown(self, step: str) -> StoreError:
        """Record that another program has migrated the registry by this step; return the error to raise."""
        told = StoreError(
            f"A newer version has migrated the registry (it has {step}) while this gateway {__version__} runs on it. "
            "This one writes nothing more and acknowledges nothing. Restart the gateway with the newer version."
        )
        if self.reason != told.message:
            self.reason, self._lasts = told.message, True
            log.error("store.schema_too_new", step=step, version=__version__, reason=told.message)
        return told

    def answered(self) -> None:
        """Record a read. It shows that a server is there again, and nothing about a disk."""
        if self._is_away:
            self.written()

    def written(self) -> None:
        """Record a commit."""
        if self.reason is not None and not self._lasts:
            log.info("store.recovered", after=self.reason)
            self.reason = None


def store_error(error: sqlite3.Error | PostgresError, failed: str = "written", *, again: bool = True) -> StoreError:
    """Return the database's error as ours, with the remedy for an operator.

    ``again``: a request failed, and the remedy ends with how to send it again. A command has no request.
    """
    if isinstance(error, PostgresError) and error.sqlstate == _IN_DOUBT:
        advice = remedy(error) if again else f"{_LOST} See whether it was done before you do it again."
        return StoreError(f"It is not known whether the registry was written ({error}). {advice}")
    effect = "" if failed == USED else " Nothing was changed."
    return StoreError(f"The registry could not be {failed} ({error}).{effect} {remedy(error, again=again)}")


def remedy(error: sqlite3.Error | PostgresError, *, again: bool = True) -> str:
    """Return the remedy by the code; ``again`` as in :func:`store_error`.

    Of SQLite's extended codes (``SQLITE_IOERR_WRITE``) the first two words count.
    """
    if isinstance(error, PostgresError):
        state = error.sqlstate or "08"
        found = _REMEDIES_BY_STATE.get(state) or _REMEDIES_BY_STATE.get(state[:2], _ANYTHING_AT_A_SERVER)
    else:
        name = getattr(error, "sqlite_errorname", "")
        found = _REMEDIES.get("_".join(name.split("_")[:2]), _ANYTHING)
    return found if again else found.removesuffix(f" {_AGAIN}")
