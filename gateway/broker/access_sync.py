"""Access sync: the broker's accounts and sessions follow the registry, as the outbox says.

A revoked token opens nothing from the commit on: the broker refuses it, and a live session is cut (contract, section
1). How that is done depends on the broker. Where the gateway cannot do it, the start and ``/ready`` say so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from gateway.broker.access_rules import Role
from gateway.broker.first_use import FirstUses
from gateway.broker.mosquitto.entries_in_force import InForce
from gateway.broker.mosquitto.password_entries import OperatorAccounts, without_lost
from gateway.broker.mosquitto.password_file import PasswordFile
from gateway.broker.mosquitto.reload_probe import NAME as SENTINEL
from gateway.broker.mosquitto.reload_probe import ReloadProbe
from gateway.broker.mosquitto.session_locks import NAME as LOCKS
from gateway.broker.mosquitto.session_locks import SessionLocks
from gateway.errors import GatewayError, UnavailableError
from gateway.mqtt.probe import ProbeError, ProbeTarget
from gateway.store import Row, Store, Tx, View, account_sql, epoch_sql, key_sql, measurements, outbox_sql, token_sql
from gateway.store.wakeups import Wakeups

if TYPE_CHECKING:
    from gateway.broker.embedded.server import EmbeddedBroker  # loads amqtt, which only the embedded broker needs

log = structlog.get_logger()

NOT_SIGNALLED: Final = (
    "The gateway writes mosquitto_password_file, and nobody tells Mosquitto to read it: a revoked token opens the "
    "broker, and a new one does not, until somebody sends it SIGHUP. Set mosquitto_pid_file."
)
SWEPT: Final = "mosquitto_swept"
"""Fact in the registry: the process of Mosquitto that holds no session from before its start."""
BATCH: Final = 1_000
FIRST_RETRY_SECONDS: Final = 0.1
LONGEST_RETRY_SECONDS: Final = 0.5
"""Pauses between tries while the broker does not follow. They are short: a revoked session may live for 1 s (contract,
section 1). A credential that changes meanwhile, or a new connection to the broker, ends a pause after SPACING_SECONDS.
"""
SPACING_SECONDS: Final = 0.05
LOGGED_EVERY_SECONDS: Final = 60.0
"""The same failure is logged this often while it lasts."""
AGAIN_SECONDS: Final = 0.15
"""Pause before a device is checked once more."""


Rights = Callable[[Mapping[str, str | None]], None]
"""Writes the rights of these accounts: their names, and the project of each, or ``None`` for all."""


class BrokerAccess(Protocol):
    """What the gateway can do about the accounts and sessions of a broker."""

    name: str

    @property
    def limitation(self) -> str | None:
        """Return what the gateway cannot do at this broker even when all is well, or None when it can do everything."""

    @property
    def trouble(self) -> str | None:
        """Return what failed for some sessions though it worked for others, or None when nothing is left."""

    async def sync(self, devices: Sequence[Row]) -> Sequence[Row]:
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


class EmbeddedAccess:
    """Access to the embedded broker. It asks the registry at each CONNECT, so only live sessions are checked here."""

    name = "embedded"
    limitation = None
    trouble = None

    def __init__(self, broker: EmbeddedBroker, store: Store) -> None:
        self._broker = broker
        self._store = store

    async def sync(self, devices: Sequence[Row]) -> Sequence[Row]:
        """Cut each device whose session was not opened with a token that is good now; drop its queue."""
        for device in devices:
            pk = device["device_pk"]
            good = await self._store.read(lambda view, pk=pk: {row["id"] for row in token_sql.live(view, pk)})  # type: ignore[misc]
            session = self._broker.sessions().get(device["device_id"])
            if session is None or session.token_id not in good:
                await self._broker.cut(device["device_id"])
        return ()

    def stop(self) -> None:
        """Do nothing: nothing is under way."""

    async def compare(self) -> bool:
        """Cut integrators that were revoked or connected with an earlier password. Devices have rows of their own."""
        good = {
            (row["name"], row["created_at"])
            for row in await self._store.read(account_sql.everyone)
            if not row["revoked_at"]
        }
        for key, identity in self._broker.kept_sessions().items():
            made = identity.token_id
            if identity.role is not Role.DEVICE and made is not None and (identity.username, made) not in good:
                await self._broker.cut(key)
        return True


class MosquittoAccess:
    """Access to a Mosquitto with a password file. At a reload it cuts clients whose entry is gone or changed.

    ``file.fixed`` are the gateway's own accounts. Accounts that an operator adds to the file, or removes from it, stay
    as the operator left them. Without a pid file another process must make the broker read the file. ``rights`` lets
    integrators read under their own names, where the gateway writes the broker's access rules as well. ``locks`` end
    sessions before the broker cuts them: Mosquitto 2.0 crashes otherwise.
    """

    name = "mosquitto"
    trouble = None

    def __init__(
        self,
        file: PasswordFile,
        store: Store,
        target: ProbeTarget,
        rights: Rights = lambda _: None,
        locks: SessionLocks | None = None,
    ) -> None:
        self.file = file
        self._locks = locks
        self._in_force = InForce(file.path)
        self._seen: str | None = None
        self._rights = rights
        self._own = dict(file.fixed)
        self._store = store
        self._sentinel = ReloadProbe(file, target) if file.is_signalled else None
        self._waiting: tuple[list[tuple[str, str]], dict[str, str]] | None = None
        self.first_uses = FirstUses(store)
        self.people = OperatorAccounts(file.path)

    @property
    def limitation(self) -> str | None:
        """Return that no process signals the broker, that it crashes, or which lines were left out."""
        if self._sentinel is None:
            return NOT_SIGNALLED
        return (self._locks.caution if self._locks else None) or self.people.caution

    async def write(self) -> Mapping[str, int]:
        """Write the file from the registry. Return the tokens in it that replace others and were never used.

        Raises:
            PasswordFileError: it cannot be written.
        """
        entries, replacing = await self._store.read(
            lambda view: (token_sql.broker_entries(view), token_sql.replacing(view))
        )
        ours = {row["name"]: row for row in await self._store.read(account_sql.everyone)}
        restored = await self._store.read(epoch_sql.base) > 0
        await asyncio.to_thread(self._prepare, entries, ours, restored=restored)
        if self._locks and self._sentinel:
            wanted = self.file.fixed | dict(entries)
            await self._locks.end(self._in_force.changed(wanted) - self._own.keys() - {SENTINEL})
        await asyncio.to_thread(self._write, entries)
        return replacing

    async def sync(self, devices: Sequence[Row]) -> Sequence[Row]:  # noqa: ARG002 - the file holds all of them
        """Write the file from the registry, and return when the broker has read it."""
        if self._sentinel is None:
            await self.write()
            return ()
        await self._try_locks()
        replacing = await self.write()
        try:
            await self._sentinel.taken_up()
            self._in_force.taken_up()
            if self._locks:
                await self._locks.release()
        except (ProbeError, TimeoutError) as error:
            raise UnavailableError(f"Mosquitto has not taken up the password file yet: {error}") from error
        self._waiting = None
        self.first_uses.in_force(replacing)
        return ()

    async def compare(self) -> bool:
        """Do the same: the file holds all accounts."""
        await self.sync(())
        return True

    def stop(self) -> None:
        """Do nothing: nothing is under way."""

    def _prepare(self, entries: list[tuple[str, str]], ours: Mapping[str, Row], *, restored: bool) -> None:
        """Find out what the file must hold besides ``entries``, and write the broker's access rules."""
        kept = {name: entry for name, entry in self.people.read().items() if name not in ours}
        if restored:
            kept = without_lost(kept)
        good = {name: row["broker_entry"] for name, row in ours.items() if row["revoked_at"] is None}
        self._rights({name: ours[name]["project_id"] for name in good if name not in account_sql.KNOWN})
        fixed = {name: entry for name, entry in (kept | good | self._own).items() if name != SENTINEL}
        # The reload probe's entry stays while the broker has yet to read this very file, so that no try writes it
        # again.
        again, self._waiting = self._waiting == (entries, fixed), (entries, fixed)
        self.file.fixed = fixed | (self._sentinel.account(again=again) if self._sentinel else {})

    def _write(self, entries: list[tuple[str, str]]) -> None:
        self._in_force.written(self.file.fixed | dict(entries))
        self.people.written(replaced=self.file.write(entries))

    async def _try_locks(self) -> None:
        """Prepare the locks where the broker has been restarted since they were last used.

        A failure is logged and tried again the next time: the file must be written at once.
        """
        started = None if self._locks is None else await asyncio.to_thread(self.file.broker_process)
        if self._locks is None or started is None or started == self._seen:
            return
        try:
            await self._ready_locks(self._locks, started)
        except (ProbeError, TimeoutError, UnavailableError) as error:
            log.warning("broker.locks_not_ready", reason=str(error) or "no answer in time")
        else:
            self._seen = started

    async def _ready_locks(self, locks: SessionLocks, started: str) -> None:
        """Check a broker that was just started, and end the sessions that it has restored.

        The broker does not know the passwords of those sessions any more, so each SIGHUP would cut them.
        """
        if self._in_force.newest.get(LOCKS) != self._own.get(LOCKS):
            await self._introduce_locks()
        away, before = await locks.examine(), await self._store.read(lambda view: key_sql.meta(view, SWEPT))
        if away and started != before:
            devices = self._in_force.sure.keys() - self._own.keys() - {SENTINEL}
            log.info("broker.sessions_swept", away=away, users=len(devices))
            await locks.sweep(devices)
        if started != before:
            await self._store.write(lambda tx: key_sql.set_meta(tx, SWEPT, started))

    async def _introduce_locks(self) -> None:
        """Add the account of the locks, and change nothing else."""
        assert self._sentinel
        as_it_is = {name: entry for name, entry in self._in_force.sure.items() if name != SENTINEL}
        self.file.fixed = as_it_is | self._own | self._sentinel.account()
        self._waiting = None
        await asyncio.to_thread(self._write, [])
        await self._sentinel.taken_up()
        self._in_force.taken_up()


class NoAccess:
    """A broker whose accounts the gateway does not manage. The gateway refuses over HTTP and cuts no session."""

    name = "none"
    trouble = None
    limitation = (
        "Accounts and live sessions at this broker are not the gateway's to steer: what revokes a device token, and "
        "cuts its session, is you. For Mosquitto set mosquitto_password_file; others can ask the gateway "
        "('gateway docs other-brokers')."
    )

    async def sync(self, devices: Sequence[Row]) -> Sequence[Row]:
        """Log what the operator has to do."""
        if devices:
            log.warning("broker.access_not_managed", devices=[row["device_id"] for row in devices][:10])
        return ()

    async def compare(self) -> bool:
        """Return True: there is nothing that the gateway could compare."""
        return True

    def stop(self) -> None:
        """Do nothing: nothing is under way."""


def first_uses_at(access: BrokerAccess) -> FirstUses | None:
    """Return what records first uses over MQTT, or None where the broker authenticates through the gateway."""
    return access.first_uses if isinstance(access, MosquittoAccess) else None


def knows_new_tokens(access: BrokerAccess) -> bool:
    """Return whether the broker accepts a new token once ``access`` is in step. At others the operator must add it."""
    return not isinstance(access, NoAccess) and access.limitation != NOT_SIGNALLED


class AccessSyncer:
    """Works off the outbox rows of credentials."""

    def __init__(self, store: Store, wakeups: Wakeups, access: BrokerAccess) -> None:
        self.access = access
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
        pause = FIRST_RETRY_SECONDS
        self._wakeups.access.set()
        try:
            while True:
                self._error = await self._attempt()
                if self._error is None:
                    pause = FIRST_RETRY_SECONDS
                    await self._wakeups.wait_for(outbox_sql.CREDENTIAL)
                else:
                    await asyncio.sleep(SPACING_SECONDS)
                    await self._more_within(pause)
                    pause = min(2 * pause, LONGEST_RETRY_SECONDS)
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
        while rows := await self._store.read(partial(_due, after=after)):
            again = {row["seq"] for row in await self.access.sync(rows)}
            done = [row for row in rows if row["seq"] not in again]
            await self._store.write(lambda tx, done=done: _done(tx, done))  # type: ignore[misc]
            self._wakeups.notify_progress()
            after, settled = rows[-1]["seq"], settled and not again
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


def _done(tx: Tx, rows: list[Row]) -> None:
    for row in rows:
        tx.measure(measurements.ACCESS, "open" if token_sql.live(tx, row["device_pk"]) else "closed")
    outbox_sql.done(tx, [row["seq"] for row in rows])


def _due(view: View, after: int) -> list[Row]:
    return outbox_sql.pending(view, outbox_sql.CREDENTIAL, BATCH, after=after)
