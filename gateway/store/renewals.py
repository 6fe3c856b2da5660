"""Renewals: single statements that a gateway must execute in time, on a separate connection.

A lease ends when it is not renewed. The writer's thread waits for other writes of this gateway and of others, so a long
one would cost a lease. A renewal is one statement about one row, and its own transaction. So it needs no lock of the
registry: the row orders it, and a process that is paused holds no lock.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from gateway.errors import UnavailableError
from gateway.store.errors import DATABASE_ERRORS, StorageHealth
from gateway.store.transaction import Context, Tx

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.store.engine import DatabaseConnection

T = TypeVar("T")


class Renewals:
    """Owns the connection and its thread. ``trouble`` is that of the store's writer."""

    def __init__(self, connection: DatabaseConnection, context: Context, trouble: StorageHealth) -> None:
        self._connection = connection
        self._context = context
        self._trouble = trouble
        self._is_stopped = False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="store-renewals")

    async def run(self, write: Callable[[Tx], T]) -> T:
        """Run a write function of one statement; return its result once that is committed.

        Raises:
            StoreError: the registry cannot be written.
            UnavailableError: the gateway is stopping.
        """
        if self._is_stopped:
            raise UnavailableError("The gateway is stopping.")
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(self._run, write))

    def stop(self) -> None:
        """End the thread. Blocks until the renewal under way has ended."""
        self._is_stopped = True
        self._pool.shutdown()

    def _run(self, write: Callable[[Tx], T]) -> T:
        self._connection.refresh()
        try:
            return self._once(write)
        except DATABASE_ERRORS as error:
            if not self._connection.refresh():
                raise self._trouble.met(error) from error
        try:
            return self._once(write)  # on a new connection, since the server may have been restarted
        except DATABASE_ERRORS as error:
            raise self._trouble.met(error) from error

    def _once(self, write: Callable[[Tx], T]) -> T:
        if newer := self._connection.newer_schema():
            raise self._trouble.outgrown(newer)
        result = write(Tx(self._connection, self._context))
        self._connection.flush()
        self._trouble.written()
        return result
