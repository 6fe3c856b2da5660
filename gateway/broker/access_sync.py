"""Access sync: the broker's accounts and sessions follow the registry, as the outbox says.

A revoked token opens nothing from the commit on: the broker refuses it, and a live session is cut (contract, section
1). How that is done depends on the broker. Where the gateway cannot do it, the start and ``/ready`` say so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

import structlog

from gateway.broker.first_use import FirstUses
from gateway.core.backoff import Backoff, Pauses
from gateway.errors import GatewayError
from gateway.store import Store, Tx, View, measurements, outbox_sql, reset_sql, token_sql
from gateway.store.outbox_sql import OutboxRow
from gateway.store.wakeups import Wakeups

log = structlog.get_logger()

BATCH: Final = 1_000
RETRIES: Final = Pauses(first_seconds=0.1, longest_seconds=0.5)
"""Pauses between tries while the broker does not follow. They are short: a revoked session may live for 1 s (contract,
section 1). A credential that changes meanwhile, or a new connection to the broker, ends a pause after SPACING_SECONDS.
"""
SPACING_SECONDS: Final = 0.05
LOGGED_EVERY_SECONDS: Final = 60.0
"""The same failure is logged this often while it lasts."""
AGAIN_SECONDS: Final = 0.15
"""Pause before a device is checked once more."""


class AccessManager(Protocol):
    """What the gateway can do about the accounts and sessions of a broker."""

    name: str

    @property
    def first_uses(self) -> FirstUses | None:
        """Return what records first uses over MQTT, or None where the broker authenticates through the gateway."""

    @property
    def knows_new_tokens(self) -> bool:
        """Return whether the broker accepts a new token once it is in step. At others the operator must add it."""

    @property
    def limitation(self) -> str | None:
        """Return what the gateway cannot do at this broker even when all is well, or None when it can do everything."""

    @property
    def trouble(self) -> str | None:
        """Return what failed for some sessions though it worked for others, or None when nothing is left."""

    async def sync(self, devices: Sequence[OutboxRow]) -> Sequence[OutboxRow]:
        """Bring the access of these devices in step with the registry. Return those that must be checked again soon.

        Raises:
            GatewayError: the broker did not follow; the caller tries again.
        """

    async def compare(self) -> bool:
        """Bring the access of all devices and integrators in step. Return whether that is all; if not, call it again.

        Raises:
            GatewayError: the broker did not follow; the caller tries again.
        """

    def stop(self) -> None:
        """Stop what is under way."""


class NoAccess:
    """A broker whose accounts the gateway does not manage. The gateway refuses over HTTP and cuts no session."""

    name = "none"
    first_uses = None
    knows_new_tokens = False
    trouble = None
    limitation = (
        "Accounts and live sessions at this broker are not the gateway's to steer: what revokes a device token, and "
        "cuts its session, is you. For Mosquitto set mosquitto_password_file; others can ask the gateway "
        "('gateway docs other-brokers')."
    )

    async def sync(self, devices: Sequence[OutboxRow]) -> Sequence[OutboxRow]:
        """Log what the operator has to do."""
        if devices:
            log.warning("broker.access_not_managed", devices=[row.device_id for row in devices][:10])
        return ()

    async def compare(self) -> bool:
        """Return True: there is nothing that the gateway could compare."""
        return True

    def stop(self) -> None:
        """Do nothing: nothing is under way."""


class AccessSyncer:
    """Works off the outbox rows of credentials. It changes nothing at the broker until ``allowed`` is set."""

    def __init__(
        self, store: Store, wakeups: Wakeups, access: AccessManager, allowed: asyncio.Event | None = None
    ) -> None:
        self.access = access
        self._allowed = allowed
        self._error: str | None = "The broker has not been told yet who may connect."
        self._store = store
        self._wakeups = wakeups
        self._logged: tuple[str, float] | None = None

    @property
    def last_error(self) -> str | None:
        """Return why the broker is not in step, or None when it is or is about to be."""
        return self._error or self.access.trouble

    async def run(self) -> None:
        """Work until cancelled. What fails is tried again, also when there is more to do."""
        backoff = Backoff(RETRIES)
        self._wakeups.access.set()
        try:
            while True:
                if self._allowed is not None:
                    await self._allowed.wait()
                self._error = await self._attempt()
                if self._error is None:
                    backoff.reset()
                    await self._wakeups.wait_for(outbox_sql.CREDENTIAL)
                else:
                    await asyncio.sleep(SPACING_SECONDS)
                    await self._more_within(backoff.pause())
        finally:
            self.access.stop()

    async def _attempt(self) -> str | None:
        """Make one attempt; return what went wrong, or None."""
        try:
            await self._work()
        except GatewayError as error:
            self._log_failure(error.message)
            return error.message
        except Exception as error:  # a bug of ours must not stop the revoking of tokens
            log.exception("broker.access_not_synced")
            return repr(error)
        self._logged = None
        return None

    def _log_failure(self, reason: str) -> None:
        """Log a new reason at once, and the same one again only after LOGGED_EVERY_SECONDS."""
        now = asyncio.get_running_loop().time()
        if self._logged is None or self._logged[0] != reason or now - self._logged[1] >= LOGGED_EVERY_SECONDS:
            self._logged = reason, now
            log.error("broker.access_not_synced", reason=reason)

    async def _work(self) -> None:
        """Work pass after pass while some of it must be checked again.

        Rows come first: they are tokens that were just revoked, and a comparison may find what cannot be repaired.
        """
        while not (await self._rows() & await self._compared()):
            self._error, self._logged = None, None
            await self._more_within(AGAIN_SECONDS)

    async def _rows(self) -> bool:
        """Work each row off once. Return whether none is left to be checked again."""
        after, settled = 0, True
        while rows := await self._store.read(partial(_due, after=after, broker=self._store.context.broker)):
            again = {row.seq for row in await self.access.sync(rows)}
            done = [row for row in rows if row.seq not in again]
            await self._store.write(lambda tx, done=done: _done(tx, done))  # type: ignore[misc]
            self._wakeups.notify_progress()
            after, settled = rows[-1].seq, settled and not again
        return settled

    async def _compared(self) -> bool:
        """Compare if a comparison is due. Return whether it is done."""
        if not self._wakeups.access.is_set():
            return True
        self._wakeups.access.clear()  # before the read: what changes meanwhile is compared again
        done = False
        try:
            done = await self.access.compare()
        finally:
            if not done:
                self._wakeups.access.set()
        return done

    async def _more_within(self, seconds: float) -> None:
        """Wait until there may be more work, for at most so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wakeups.wait_for(outbox_sql.CREDENTIAL)


def _done(tx: Tx, rows: list[OutboxRow]) -> None:
    tx.read_ahead(*(partial(token_sql.live, device_pk=row.device_pk) for row in rows))
    closed = [row.device_pk for row in rows if not token_sql.live(tx, row.device_pk)]
    for row in rows:
        tx.measure(measurements.ACCESS, "closed" if row.device_pk in closed else "open")
    reset_sql.set_sessions_closed(tx, closed)
    outbox_sql.done(tx, [row.seq for row in rows])


def _due(view: View, after: int, broker: int) -> list[OutboxRow]:
    return outbox_sql.pending(view, outbox_sql.CREDENTIAL, BATCH, after=after, broker=broker)
