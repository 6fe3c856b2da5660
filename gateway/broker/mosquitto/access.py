"""Access at Mosquitto: the password file, and the sessions that a change of it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from gateway.broker.first_use import FirstUses
from gateway.broker.mosquitto import file_record, session_sweep
from gateway.broker.mosquitto.entries_in_force import InForce
from gateway.broker.mosquitto.password_draft import PasswordDraft
from gateway.broker.mosquitto.password_entries import OperatorAccounts, without_lost
from gateway.broker.mosquitto.password_file import PasswordFile
from gateway.broker.mosquitto.password_lines import MISSING, PasswordLines
from gateway.broker.mosquitto.reload_probe import NAME as SENTINEL
from gateway.broker.mosquitto.reload_probe import ReloadProbe
from gateway.broker.mosquitto.session_locks import NAME as LOCKS
from gateway.broker.mosquitto.session_locks import SessionLocks
from gateway.broker.mosquitto.session_sweep import RestartedBroker, SessionSweep
from gateway.errors import UnavailableError
from gateway.mqtt.probe import ProbeError, ProbeTarget
from gateway.store import (
    Store,
    View,
    account_sql,
    broker_entry_sql,
    epoch_sql,
    token_sql,
    unused_token_sql,
)
from gateway.store.outbox_sql import OutboxRow

log = structlog.get_logger()

NOT_SIGNALLED: Final = (
    "The gateway writes mosquitto_password_file, and nobody tells Mosquitto to read it: a revoked token opens the "
    "broker, and a new one does not, until somebody sends it SIGHUP. Set mosquitto_pid_file."
)
MOST_CHANGES: Final = 20_000
"""If more devices are marked, the whole file is compared."""

Rights = Callable[[Mapping[str, str | None]], None]
"""Writes the rights of these accounts: their names, and the project of each, or ``None`` for all."""


class MosquittoAccess:
    """Access to a Mosquitto with a password file. At a reload it cuts clients whose entry is gone or changed.

    ``file.fixed`` are the gateway's own accounts. Accounts that an operator adds to the file, or removes from it, stay
    as the operator left them. Without a pid file another process must make the broker read the file. ``rights`` lets
    integrators read under their own names, where the gateway writes the broker's access rules as well. ``locks`` end
    sessions before the broker cuts them: Mosquitto 2.0 crashes otherwise. ``secret`` stays the same over a restart.
    ``saved`` is the broker's store, where the gateway can read it.
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
        *,
        secret: str | None = None,
        saved: Path | None = None,
    ) -> None:
        self.file = file
        self._locks = locks
        self._saved = saved
        self._at_work = asyncio.Lock()
        self._in_force = InForce(file.path, file.known)
        self._seen: str | None = None
        self._sweep: SessionSweep | None = None
        self._rights = rights
        self._own = dict(file.fixed)
        self._store = store
        self._sentinel = ReloadProbe(file, target, secret) if file.is_signalled else None
        self._unused: dict[str, int] = {}
        self._touched: set[str] = set()
        self.to_check = asyncio.Event()
        """Set when the devices of the file are to be compared with the registry, now that the broker goes by it."""
        self.first_uses = FirstUses(store)
        self.people = OperatorAccounts(file.path)

    @property
    def knows_new_tokens(self) -> bool:
        """Return whether a process is signalled, so that the broker reads the file again."""
        return self._sentinel is not None

    @property
    def limitation(self) -> str | None:
        """Return that no process signals the broker, that it crashes, or which lines were left out."""
        if self._sentinel is None:
            return NOT_SIGNALLED
        return (self._locks.caution if self._locks else None) or self.people.caution

    async def begin(self) -> None:
        """Begin with the file as it is found. Another gateway may have written it since this one did."""
        await self._learn()
        self._in_force, self._seen, self._sweep = InForce(self.file.path, self.file.known), None, None

    async def write(self) -> Mapping[str, int]:
        """Write the file from the registry. Return the tokens in it that replace others and were never used.

        Where the file is the one that was written last, only the marked devices are read. The tokens of others are then
        those that are known, until :meth:`look_for_unused`.

        Raises:
            PasswordFileError: it cannot be written.
        """
        accounts = await self._wanted_accounts()
        with self.file.draft(accounts) as draft:
            edited = await self._store.read(lambda view: self._fill(view, draft, accounts))
            content = await asyncio.to_thread(draft.finish, self.file.fixed)
            if self._locks and self._locks.needed:
                changed = await asyncio.to_thread(self._in_force.changed, content, edited)
                await self._locks.end(changed - self._own.keys() - {SENTINEL})
            await asyncio.to_thread(self._put, draft, content, edited)
        await self._note()
        return self._unused

    async def _is_same(self) -> bool:
        """Return whether the file says already what it must say."""
        accounts = await self._wanted_accounts()
        with self.file.draft(accounts) as draft:
            if draft.stamp != self.file.known:
                return False
            await self._store.read(lambda view: self._fill(view, draft, accounts))
            await asyncio.to_thread(draft.finish, self.file.fixed)
            return not draft.is_new

    async def _wanted_accounts(self) -> dict[str, str]:
        await self._learn()
        ours = {row.name: row for row in await self._store.read(account_sql.everyone)}
        restored = await self._store.read(epoch_sql.base) > 0
        return await asyncio.to_thread(self._accounts, ours, restored=restored)

    async def _learn(self) -> None:
        self.file.known = await self._store.read(lambda view: file_record.known(view, self._store.context.broker))

    async def _note(self) -> None:
        written, broker = self.file.written, self._store.context.broker
        if written is None or written in (MISSING, self.file.known):
            return
        await self._store.write(lambda tx: file_record.note(tx, broker, written))
        self.file.known = written

    async def sync(self, devices: Sequence[OutboxRow]) -> Sequence[OutboxRow]:
        """Write the file from the registry, and return when the broker has read it.

        While sessions from before the broker's start are being ended, only lock out whom the registry refuses, and
        return all devices.
        """
        return () if await self._sync(devices) else devices

    async def _sync(self, devices: Sequence[OutboxRow] = ()) -> bool:
        """Do the same; return whether the broker goes by the file."""
        if self._sentinel is None:
            await self.write()
            return True
        async with self._at_work:
            try:
                is_in_step = await self._bring_in_step(self._sentinel, devices)
            except (ProbeError, TimeoutError) as error:
                raise UnavailableError(f"Mosquitto has not taken up the password file yet: {error}") from error
        if is_in_step:
            self.first_uses.in_force(self._unused)
        if devices and self._sweep is not None:
            self.to_check.set()
        return is_in_step

    async def _bring_in_step(self, sentinel: ReloadProbe, devices: Sequence[OutboxRow]) -> bool:
        """Write the file, and have the broker read it. After a start there may be nothing to do, and so no signal.

        Return False when no signal may be sent yet, but all that must be refused are locked out.
        """
        if await self._is_sweeping() and await self._lock_out(devices):
            return False
        if await self._is_ready() or not await self._is_followed(sentinel):
            await self._try_locks(sentinel)
            if await self._is_sweeping() and await self._lock_out(devices):
                return False
            await self.write()
            await sentinel.taken_up()
        self._in_force.taken_up()
        if self._locks:
            await self._locks.release()
        return True

    async def _is_followed(self, sentinel: ReloadProbe) -> bool:
        """Return whether the file says what it must say, and the broker goes by it."""
        return await self._is_same() and await sentinel.is_in_force()

    async def _lock_out(self, devices: Sequence[OutboxRow]) -> bool:
        """Refuse those of these devices, and the accounts, whose entry in force is not good any more.

        Their sessions are ended, too. Return False when some could not be locked: only a signal refuses those.
        """
        assert self._locks
        broker, ids = self._store.context.broker, [row.device_id for row in devices]
        accounts = await self._wanted_accounts()
        good = await self._store.read(lambda view: broker_entry_sql.good(view, broker, ids))
        users = await asyncio.to_thread(self._in_force.outdated, good, accounts)
        users |= {device_id for device_id, entries in good.items() if not entries}
        return not await self._locks.end(users - self._own.keys() - {SENTINEL})

    async def prepare(self) -> None:
        """Prepare the locks for the first signal after a start, before a change has to wait for that.

        Locks that an earlier run of the gateway has left are removed, since the broker goes by the file. Sessions that
        the broker has restored are ended. Between the pieces of that, revocations have their turn.

        Raises:
            GatewayError: the broker did not follow, or the registry cannot be read.
        """
        if self._sentinel is None or await self._is_ready():
            return
        async with self._at_work:
            await self._try_locks(self._sentinel)
        sweep = self._sweep
        if sweep is not None and await sweep.run(self._at_work) and self._sweep is sweep:
            self._seen, self._sweep = sweep.started, None
        await self._sync()

    async def compare(self) -> bool:
        """Do the same, and have the devices of the file compared afterwards (:mod:`.password_check`)."""
        is_in_step = await self._sync()
        self.to_check.set()
        return is_in_step

    async def look_for_unused(self) -> None:
        """Read all tokens that replace others and were never used. A change of access meanwhile is newer."""
        self._touched.clear()
        broker = self._store.context.broker
        found = await self._store.read(lambda view: unused_token_sql.replacing_and_in_step(view, broker))
        newer = {device: token for device, token in self._unused.items() if device in self._touched}
        self._unused = {device: token for device, token in found.items() if device not in self._touched} | newer
        self.first_uses.in_force(self._unused)

    def stop(self) -> None:
        """Do nothing: nothing is under way."""

    def _accounts(self, ours: Mapping[str, account_sql.AccountRecord], *, restored: bool) -> dict[str, str]:
        """Find out what the file must hold besides the devices, and write the broker's access rules."""
        kept = {name: entry for name, entry in self.people.read(self.file.known).items() if name not in ours}
        if restored:
            kept = without_lost(kept)
        good = {name: account.broker_entry for name, account in ours.items() if account.revoked_at is None}
        self._rights({name: ours[name].project_id for name in good if name not in account_sql.KNOWN})
        return {name: entry for name, entry in (kept | good | self._own).items() if name != SENTINEL}

    def _fill(self, view: View, draft: PasswordDraft, accounts: dict[str, str]) -> Collection[str] | None:
        """Add the devices of one state of the registry. Return those whose line was changed, where that is known."""
        broker = self._store.context.broker
        known = file_record.known(view, broker)
        changes = broker_entry_sql.marked(view, broker, MOST_CHANGES) if draft.stamp == known else None
        if changes is None:
            draft.add_devices(token_sql.each_broker_entry(view, broker))
            self._unused, edited = unused_token_sql.replacing(view, broker), None
        else:
            edited = draft.keep_devices(changes)
            others = {device: token for device, token in self._unused.items() if device not in changes}
            self._unused = others | unused_token_sql.replacing(view, broker, changes.keys())
            self._touched |= changes.keys()
        self.file.fixed = accounts | self._probe_entry(draft.same_accounts(known), accounts)
        return edited

    def _probe_entry(self, present: Mapping[str, str] | None, accounts: Mapping[str, str]) -> dict[str, str]:
        """Return the entry of the reload probe: that of a file that says the same, or a new one.

        ``present``: the accounts of a file with the same devices, else None.
        """
        if self._sentinel is None:
            return {}
        entry = None if present is None else present.get(SENTINEL)
        is_same = entry is not None and present == {**accounts, SENTINEL: entry}
        return self._sentinel.account(known=entry if is_same else None)

    def _put(self, draft: PasswordDraft, content: PasswordLines, edited: Collection[str] | None = None) -> None:
        self._in_force.written(content, edited)
        self.people.written(replaced=self.file.put(draft))

    async def _is_ready(self) -> bool:
        """Return whether the locks are ready for a signal to the broker that runs now, or are not needed."""
        return self._locks is None or await asyncio.to_thread(self.file.broker_process) == self._seen

    async def _is_sweeping(self) -> bool:
        """Return whether the broker that runs now may still have restored sessions, so that no signal may be sent."""
        if self._sweep is None or self._sweep.has_failed:
            return False
        return await asyncio.to_thread(self.file.broker_process) == self._sweep.started

    async def _try_locks(self, sentinel: ReloadProbe) -> None:
        """Prepare the locks where the broker has been restarted since they were last used.

        A failure is logged and tried again the next time: the file must be written at once.
        """
        started = None if self._locks is None else await asyncio.to_thread(self.file.broker_process)
        if self._locks is None or started is None or started == self._seen:
            return
        if self._sweep is not None and self._sweep.started == started:
            return
        try:
            self._sweep = await self._ready_locks(self._locks, sentinel, started)
        except (ProbeError, TimeoutError, UnavailableError) as error:
            log.warning("broker.locks_not_ready", reason=str(error) or "no answer in time")
        else:
            self._seen = started if self._sweep is None else None

    async def _ready_locks(self, locks: SessionLocks, sentinel: ReloadProbe, started: str) -> SessionSweep | None:
        """Check a broker that was just started. Return the sweep of the sessions that it has restored, if any."""
        if self._in_force.newest.accounts().get(LOCKS) != self._own.get(LOCKS):
            await self._introduce_locks()
        away = await locks.examine()
        if not away or await session_sweep.is_done(self._store, started):
            await session_sweep.note_done(self._store, started)
            return None
        if await self._is_followed(sentinel):  # locks of an earlier run need not wait for the sweep
            await locks.release()
        log.info("broker.sweep_began", away=away)
        accounts, spared = self._in_force.sure.accounts().keys(), {*self._own, SENTINEL}
        broker = RestartedBroker(started, away, self._saved, accounts - spared, spared)
        return SessionSweep(broker, self.file, locks, self._store)

    async def _introduce_locks(self) -> None:
        """Add the account of the locks, and change nothing else."""
        assert self._sentinel
        await asyncio.to_thread(self._write_locks, self._sentinel)
        await self._sentinel.taken_up()
        self._in_force.taken_up()

    def _write_locks(self, sentinel: ReloadProbe) -> None:
        sure = self._in_force.sure
        accounts = {name: entry for name, entry in sure.accounts().items() if name != SENTINEL}
        self.file.fixed = accounts | self._own | sentinel.account()
        with self.file.draft(self.file.fixed) as draft:
            draft.add_devices(sure.devices())
            self._put(draft, draft.finish(self.file.fixed))
