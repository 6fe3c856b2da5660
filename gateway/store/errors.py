"""Storage errors: SQLite's error codes with a remedy for the operator (https://www.sqlite.org/rescode.html)."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

import structlog

from gateway import __version__
from gateway.errors import StoreError

log = structlog.get_logger()

_AGAIN: Final = "Then send the same request again."
_ANYTHING: Final = f"Check free space and permissions of the data directory. {_AGAIN}"
_DAMAGED: Final = (
    "The file is damaged: stop the gateway, keep a copy of the data directory, and put the last backup back ('gateway "
    "restore FILE'; 'gateway docs runbook' has the steps)."
)
_REMEDIES: Final[Mapping[str, str]] = {
    "SQLITE_FULL": f"The disk is full: free some space where the data directory is. {_AGAIN}",
    "SQLITE_READONLY": f"The data directory is read only: make it writable for the gateway's user. {_AGAIN}",
    "SQLITE_BUSY": f"Another program keeps the registry locked: find it ('fuser gateway.db') and end it. {_AGAIN}",
    "SQLITE_LOCKED": f"Another program keeps the registry locked: find it ('fuser gateway.db') and end it. {_AGAIN}",
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_NOTADB": _DAMAGED,
}


class StorageHealth:
    """Health of the storage. It logs when trouble begins and when it is over.

    It is over with the next commit, except for damage: a write that succeeds on other pages proves nothing.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._lasts = False

    def met(self, error: sqlite3.Error, failed: str = "written") -> StoreError:
        """Record an error of SQLite; return the error to raise for it."""
        told = store_error(error, failed)
        if not self._lasts and self.reason != told.message:  # once, not for every write that fails by it
            self.reason, self._lasts = told.message, remedy(error) is _DAMAGED
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

    def written(self) -> None:
        """Record a commit."""
        if self.reason is not None and not self._lasts:
            log.info("store.recovered", after=self.reason)
            self.reason = None


def store_error(error: sqlite3.Error, failed: str = "written") -> StoreError:
    """Return SQLite's error as ours, with the remedy for an operator."""
    return StoreError(f"The registry could not be {failed} ({error}). Nothing was changed. {remedy(error)}")


def remedy(error: sqlite3.Error) -> str:
    """Return the remedy by SQLite's code. Of an extended code (``SQLITE_IOERR_WRITE``) the first two words count."""
    name = getattr(error, "sqlite_errorname", "")
    return _REMEDIES.get("_".join(name.split("_")[:2]), _ANYTHING)
