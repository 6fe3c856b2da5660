"""Threads that read, in pools apart by purpose, so that one kind of read never waits for another.

Searches that look at every device once shared two threads with everything else: twelve of them held up ``/health``, the
cutting of revoked sessions and the admission of devices.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Final, TypeVar

from gateway.errors import UnavailableError

T = TypeVar("T")

_STEPS_BETWEEN_LOOKS: Final = 10_000
"""After so many steps of SQLite's machine the deadline is looked at: every few milliseconds."""


class Purpose(StrEnum):
    """What a read is for. Each has its own threads."""

    STEERING = "steering"
    """What the gateway does by itself: publish, compare, revoke, expire, send to webhooks."""
    AUTHENTICATION = "authentication"
    """Whether a client of the broker may connect."""
    HEALTH = "health"
    """Health, readiness, metrics and public keys."""
    REQUESTS = "requests"
    """API requests that are answered from an index."""
    SCANS = "scans"
    """API requests that look at many rows: searches, filters, counts."""


THREADS: Final = dict.fromkeys(Purpose, 2)


class DeadlineError(UnavailableError):
    """A read took longer than it may."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"Reading this took longer than {seconds:g} s and was given up. Search for a longer text, add a filter "
            "such as 'serial_number' or 'end_user_id', or try again in a moment.",
            details={"deadline_seconds": seconds},
        )


class Deadline:
    """When a read is given up, counted from when this is made; waiting for a thread counts as well."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """How many seconds are left; 0 when it is over."""
        return max(0.0, self._at - time.monotonic())

    def passed(self) -> bool:
        """Whether it is over."""
        return time.monotonic() >= self._at

    def require(self) -> None:
        """Do nothing before it is over.

        Raises:
            DeadlineError: it is.
        """
        if self.passed():
            raise DeadlineError(self.seconds)

    def end(self) -> None:
        """It is over now: nobody waits for the read any more."""
        self._at = 0.0

    def watch(self, connection: sqlite3.Connection) -> None:
        """Have SQLite interrupt whatever this connection does when it is over."""
        connection.set_progress_handler(self.passed, _STEPS_BETWEEN_LOOKS)


def unwatch(connection: sqlite3.Connection) -> None:
    """Let the connection take its time again."""
    connection.set_progress_handler(None, 0)


def interrupted(error: sqlite3.Error) -> bool:
    """Whether SQLite gave up because it was told to."""
    return getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT"


class Readers:
    """The pools. A thread starts when it is first needed."""

    def __init__(self) -> None:
        self._pools = {
            purpose: ThreadPoolExecutor(number, thread_name_prefix=f"store-reader-{purpose}")
            for purpose, number in THREADS.items()
        }

    async def run(self, purpose: Purpose, read: Callable[[], T]) -> T:
        """Run this on a thread for that purpose."""
        return await asyncio.get_running_loop().run_in_executor(self._pools[purpose], read)

    def stop(self) -> None:
        """End the threads. Blocks until the reads that run have ended."""
        for pool in self._pools.values():
            pool.shutdown()
