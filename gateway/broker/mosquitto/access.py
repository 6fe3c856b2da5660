"""Access at Mosquitto: the password file, and the sessions that a change of it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from gateway.broker.first_use import FirstUses
from gateway.broker.mosquitto.entries_in_force import InForce
from gateway.broker.mosquitto.password_draft import PasswordDraft
from gateway.broker.mosquitto.password_entries import OperatorAccounts, without_lost
from gateway.broker.mosquitto.password_file import PasswordFile
from gateway.broker.mosquitto.password_lines import PasswordLines
from gateway.broker.mosquitto.reload_probe import NAME as SENTINEL
from gateway.broker.mosquitto.reload_probe import ReloadProbe
from gateway.broker.mosquitto.session_locks import NAME as LOCKS
from gateway.broker.mosquitto.session_locks import SessionLocks
from gateway.errors import UnavailableError
from gateway.mqtt.probe import ProbeError, ProbeTarget
from gateway.store import Store, View, account_sql, broker_sql, epoch_sql, token_sql, unused_token_sql
from gateway.store.outbox_sql import OutboxRow

log = structlog.get_logger()

NOT_SIGNALLED: Final = (
    "The gateway writes mosquitto_password_file, and nobody tells Mosquitto to read it: a revoked token opens the "
    "broker, and a new one does not, until somebody sends it SIGHUP. Set mosquitto_pid_file."
)
SWEPT: Final = "mosquitto_swept"
"""Fact in the registry: the process of Mosquitto that holds no session from before its start."""

Rights = Callable[[Mapping[str, str | None]], None]
"""Writes the rights of these accounts: their names, and the project of each, or ``None`` for all."""


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
        self._waiting: tuple[bytes, dict[str, str]] | None = None
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

    def begin(self) -> None:
        """Begin with the file as it is found. Another gateway may have written it since this one did."""
        self._in_force, self._seen, self._waiting = InForce(self.file.path), None, None

    async def write(self) -> Mapping[str, int]:
        """Write the file from the registry. Return the tokens in it that replace others and were never used.

        Raises:
            PasswordFileError: it cannot be written.
        """
        ours = {row.name: row for row in await self._store.read(account_sql.everyone)}
        restored = await self._store.read(epoch_sql.base) > 0
        accounts = await asyncio.to_thread(self._accounts, ours, restored=restored)
        with self.file.draft(accounts) as draft:
            replacing = await self._store.read(lambda view: self._fill(view, draft, accounts))
            content = await asyncio.to_thread(draft.finish, self.file.fixed)
            if self._locks and self._sentinel:
                changed = await asyncio.to_thread(self._in_force.changed, content)
                await self._locks.end(changed - self._own.keys() - {SENTINEL})
            await asyncio.to_thread(self._put, draft, content)
        return replacing

    async def sync(self, devices: Sequence[OutboxRow]) -> Sequence[OutboxRow]:  # noqa: ARG002 - the file holds all of them
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

    def _accounts(self, ours: Mapping[str, account_sql.AccountRecord], *, restored: bool) -> dict[str, str]:
        """Find out what the file must hold besides the devices, and write the broker's access rules."""
        kept = {name: entry for name, entry in self.people.read().items() if name not in ours}
        if restored:
            kept = without_lost(kept)
        good = {name: account.broker_entry for name, account in ours.items() if account.revoked_at is None}
        self._rights({name: ours[name].project_id for name in good if name not in account_sql.KNOWN})
        return {name: entry for name, entry in (kept | good | self._own).items() if name != SENTINEL}

    def _fill(self, view: View, draft: PasswordDraft, accounts: dict[str, str]) -> Mapping[str, int]:
        """Add the devices of one state of the registry. Return the tokens that replace others and were never used."""
        broker = self._store.context.broker
        wanted = draft.add_devices(token_sql.each_broker_entry(view, broker)), accounts
        # The reload probe's entry stays while the broker has yet to read this very file, so that no try writes it
        # again.
        again, self._waiting = self._waiting == wanted, wanted
        self.file.fixed = accounts | (self._sentinel.account(again=again) if self._sentinel else {})
        return unused_token_sql.replacing(view, broker)

    def _put(self, draft: PasswordDraft, content: PasswordLines) -> None:
        self._in_force.written(content)
        self.people.written(replaced=self.file.put(draft))

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
        if self._in_force.newest.accounts().get(LOCKS) != self._own.get(LOCKS):
            await self._introduce_locks()
        away, before = (
            await locks.examine(),
            await self._store.read(lambda view: broker_sql.fact(view, self._store.context.broker, SWEPT)),
        )
        if away and started != before:
            users = await asyncio.to_thread(self._users)
            log.info("broker.sessions_swept", away=away, users=len(users))
            await locks.sweep(users)
        if started != before:
            await self._store.write(lambda tx: broker_sql.set_fact(tx, tx.context.broker, SWEPT, started))

    async def _introduce_locks(self) -> None:
        """Add the account of the locks, and change nothing else."""
        assert self._sentinel
        await asyncio.to_thread(self._write_locks, self._sentinel)
        await self._sentinel.taken_up()
        self._in_force.taken_up()

    def _write_locks(self, sentinel: ReloadProbe) -> None:
        sure, self._waiting = self._in_force.sure, None
        accounts = {name: entry for name, entry in sure.accounts().items() if name != SENTINEL}
        self.file.fixed = accounts | self._own | sentinel.account()
        with self.file.draft(self.file.fixed) as draft:
            draft.add_devices(sure.devices())
            self._put(draft, draft.finish(self.file.fixed))

    def _users(self) -> set[str]:
        """Return the users that may have a session, without the gateway's own accounts."""
        sure = self._in_force.sure
        return ({name for name, _ in sure.devices()} | sure.accounts().keys()) - self._own.keys() - {SENTINEL}
