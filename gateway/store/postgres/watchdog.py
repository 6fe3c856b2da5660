"""Watchdog: ends statements that a server does not answer.

A server that is stopped (SIGSTOP), or a machine that hangs, still acknowledges what TCP brings. So neither keepalives
nor PostgreSQL's own timeouts end the wait. The watchdog shuts the socket down, and the waiting thread gets an error.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
import weakref
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.store.readers import Deadline

ANSWER_SECONDS: Final = 10.0
"""A statement that takes longer is given up, unless its read has a longer deadline."""
LOOK_SECONDS: Final = 0.5
_CANCEL_SECONDS: Final = 1.0


class Watch:
    """Time limit of the statement that one connection executes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: psycopg.Connection[Any] | None = None
        self._until = 0.0
        self.deadline: Deadline | None = None
        """When the server is asked to give the present read up; it ends early where the caller is gone."""
        self.has_cut = False
        """Whether the last statement got no answer."""

    @contextmanager
    def running(self, connection: psycopg.Connection[Any], seconds: float | None) -> Iterator[None]:
        """Watch the block, which waits for the server; None: it may take any time."""
        with self._lock:
            self.has_cut = False
            self._until = math.inf if seconds is None else time.monotonic() + seconds
            self._running = connection
        try:
            yield
        finally:
            with self._lock:  # the socket is not closed before this, so its number is its own
                self._running = None

    def look(self) -> None:
        """End the statement if its time is over."""
        with self._lock, suppress(OSError, psycopg.Error):
            if self._running is None:
                return
            if time.monotonic() >= self._until:
                self.has_cut = True
                with socket.socket(fileno=os.dup(self._running.fileno())) as ours:
                    self._running = None
                    ours.shutdown(socket.SHUT_RDWR)
            elif self.deadline is not None and self.deadline.passed():
                self._running.cancel_safe(timeout=_CANCEL_SECONDS)


class Watchdog:
    """Looks at the statements of an engine's connections, in a thread that lives as long as they do."""

    def __init__(self) -> None:
        self._watches: weakref.WeakSet[Watch] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._is_running = False
        self._wake = threading.Event()

    def watch(self) -> Watch:
        """Return the watch of a new connection."""
        made = Watch()
        with self._lock:
            self._watches.add(made)
            if not self._is_running:
                self._is_running = True
                self._wake.clear()
                threading.Thread(target=self._run, name="postgres-watchdog", daemon=True).start()
        return made

    def stop(self) -> None:
        """End the thread soon. No connection may be used after this."""
        with self._lock:
            self._watches.clear()
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait(LOOK_SECONDS)
            with self._lock:
                watches = list(self._watches)
                if not watches:
                    self._is_running = False
                    return
            for each in watches:
                each.look()
            del each, watches  # or the last ones would never go
