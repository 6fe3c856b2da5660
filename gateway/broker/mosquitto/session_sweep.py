"""Sweep of the sessions that Mosquitto 2.0 has restored at its start: they are ended, a piece at a time.

The broker does not know their passwords any more. So each SIGHUP would cut them, and notes each one that expires once
more than it frees it (:mod:`gateway.broker.mosquitto.session_locks`). One SIGHUP is enough, since the restore has noted
it already. So no SIGHUP is sent until the sweep has ended or failed.

A sweep of a large fleet takes many minutes. Between two pieces, changes of access have their turn.
"""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from gateway.broker.mosquitto.saved_sessions import UnknownStoreError, expiring
from gateway.errors import StoreError, UnavailableError
from gateway.mqtt.probe import ProbeError
from gateway.store import account_sql, broker_entry_sql, broker_sql

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence
    from pathlib import Path

    from gateway.broker.mosquitto.password_file import PasswordFile
    from gateway.broker.mosquitto.session_locks import SessionLocks
    from gateway.store import Store

log = structlog.get_logger()

SWEPT: Final = "mosquitto_swept"
"""Fact in the registry: the process of Mosquitto that holds no session from before its start."""
AT_ONCE: Final = 20
"""Users of a piece. The plugin saves its file at each lock and release, so that a piece takes 0.2 s."""
TRIES: Final = 3
"""How often a piece is tried before the sweep has failed."""


class RestartedBroker(NamedTuple):
    """The process of a broker (``started``) that restored sessions, and its number of ``away`` clients.

    ``saved`` is its store, where the gateway can read it. ``accounts`` are those of its password file that are no
    devices, ``spared`` the gateway's own: none of those has a session that expires.
    """

    started: str
    away: int
    saved: Path | None
    accounts: Collection[str]
    spared: Collection[str]


class SessionSweep:
    """Ends the sessions that a broker may have restored.

    These are the sessions that expire, where the broker's store is readable. Otherwise they are those of all accounts
    and of all devices that ever had a token. A device whose token was revoked while the broker was down is in no
    password file any more, but may have a session.
    """

    def __init__(self, broker: RestartedBroker, file: PasswordFile, locks: SessionLocks, store: Store) -> None:
        self.started = broker.started
        self.has_failed = False
        """Whether the last run failed: the password file then changes all the same, as a revocation must not wait."""
        self._broker = broker
        self._file = file
        self._locks = locks
        self._store = store
        self._users = 0
        self._after: str | None = None
        """The last device of the pages that were swept. A further run goes on there."""

    async def run(self, at_work: asyncio.Lock) -> bool:
        """Sweep until all sessions have ended, and hold the lock for a piece at a time. Return False when it failed.

        Raises:
            StoreError: the registry cannot be read. Signals still wait. Call it again.
        """
        self.has_failed = False
        try:
            async for names in self.pieces():
                await self._end([name for name in names if name not in self._broker.spared], at_work)
        except StoreError:
            raise
        except (ProbeError, TimeoutError, UnavailableError) as error:
            self.has_failed = True
            log.warning("broker.locks_not_ready", reason=str(error) or "no answer in time")
            return False
        log.info("broker.sessions_swept", away=self._broker.away, users=self._users)
        await note_done(self._store, self.started)
        return True

    async def pieces(self) -> AsyncIterator[Sequence[str]]:
        """Yield the users whose sessions are to be ended, AT_ONCE at a time."""
        if self._after is None and self._broker.saved is not None:
            names = expiring(self._broker.saved)
            try:
                while some := await asyncio.to_thread(lambda: list(islice(names, AT_ONCE))):
                    yield some
            except UnknownStoreError as error:
                log.warning("broker.store_not_read", reason=str(error))
            else:
                return
        if self._after is None:
            known = await self._store.read(account_sql.everyone)
            accounts = sorted({*self._broker.accounts, *(account.name for account in known)})
            for first in range(0, len(accounts), AT_ONCE):
                yield accounts[first : first + AT_ONCE]
        after: str | None = self._after or ""
        while after is not None:
            self._after = after
            ids, after = await self._store.read(partial(broker_entry_sql.ever_bound, after=after, limit=AT_ONCE))
            yield ids

    async def _end(self, names: Sequence[str], at_work: asyncio.Lock) -> None:
        for tries_left in reversed(range(TRIES)):
            try:
                async with at_work:
                    await self._check_process()
                    await self._locks.sweep(names)
            except (ProbeError, TimeoutError, UnavailableError):
                if not tries_left:
                    raise
            else:
                self._users += len(names)
                return

    async def _check_process(self) -> None:
        if await asyncio.to_thread(self._file.broker_process) != self.started:
            raise UnavailableError("Mosquitto was restarted during the sweep.")


async def is_done(store: Store, started: str) -> bool:
    """Return whether the sessions that this process restored have ended."""
    return await store.read(lambda view: broker_sql.fact(view, store.context.broker, SWEPT)) == started


async def note_done(store: Store, started: str) -> None:
    """Note in the registry that this process has no session from before its start."""
    if not await is_done(store, started):
        await store.write(lambda tx: broker_sql.set_fact(tx, tx.context.broker, SWEPT, started))
