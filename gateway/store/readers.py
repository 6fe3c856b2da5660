"""Reader threads, in separate pools by purpose, so that one kind of read never waits for another.

Searches that read every device once shared two threads with everything else. Twelve of them held up ``/health``, the
cutting of revoked sessions and the admission of devices.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Final, TypeVar

from gateway.errors import UnavailableError

T = TypeVar("T")


class Purpose(StrEnum):
    """The purpose of a read. Each has its own threads."""

    STEERING = "steering"
    """The gateway's own work: publish, compare, revoke, expire, send to webhooks."""
    AUTHENTICATION = "authentication"
    """Whether a client of the broker may connect."""
    HEALTH = "health"
    """Health, readiness, metrics and public keys."""
    REQUESTS = "requests"
    """API requests that are answered from an index."""
    SCANS = "scans"
    """API requests that look at many rows: searches, filters, counts."""


THREADS: Final = dict.fromkeys(Purpose, 2)
READERS: Final = sum(THREADS.values())
"""Connections that read, at most."""


class DeadlineError(UnavailableError):
    """A read took longer than it may."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"Reading this took longer than {seconds:g} s and was given up. Search for a longer text, add a filter "
            "such as 'serial_number' or 'end_user_id', or try again in a moment.",
            details={"deadline_seconds": seconds},
        )


class Deadline:
    """The time limit of a read, counted from here on; the wait for a thread counts too."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Return the seconds that are left; 0 when it has passed."""
        return max(0.0, self._at - time.monotonic())

    def passed(self) -> bool:
        """Return whether it has passed."""
        return time.monotonic() >= self._at

    def require(self) -> None:
        """Check that it has not passed.

        Raises:
            DeadlineError: it has.
        """
        if self.passed():
            raise DeadlineError(self.seconds)

    def end(self) -> None:
        """End it now: no caller waits for the read any more."""
        self._at = 0.0


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

    def start(self, purpose: Purpose, work: Callable[[], None]) -> None:
        """Run this on a thread for that purpose; it reports by itself."""
        self._pools[purpose].submit(work)

    def stop(self) -> None:
        """End the threads. Blocks until the running reads have ended."""
        for pool in self._pools.values():
            pool.shutdown()
