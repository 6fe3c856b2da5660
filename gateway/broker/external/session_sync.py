"""Session sync at a broker that authenticates through the gateway: cuts the sessions of revoked credentials."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from gateway.broker.clients import BrokerClient
from gateway.broker.external.admissions import Admissions
from gateway.broker.external.disconnect_clients import ClientDisconnector
from gateway.broker.settling import Settling
from gateway.core import ids
from gateway.store import Store, View, account_sql, broker_session_sql
from gateway.store.outbox_sql import OutboxRow

log = structlog.get_logger()

NOT_CUT: Final = (
    "The broker asks the gateway who may come in, and the gateway cannot tell it to close a session that is there "
    "already: a revoked token opens nothing anew, and may be heard and served until its device reconnects. Set "
    "broker_api_url where the broker has an API for that ('gateway docs other-brokers')."
)
PASS_SECONDS: Final = 0.1
"""How long one call waits for its attempts. Longer ones go on beside the next call."""
SLICE_SECONDS: Final = 0.2
"""How long one call of a comparison lists clients. Between two calls, revocations have their turn."""
LISTED_EVERY_SECONDS: Final = 2.0
"""How often the broker's clients are listed while a comparison is not finished."""
MOST_STRAYS: Final = 1_000
"""Sessions that a comparison cuts at a time. More are listed when some of them are cut."""


@dataclass
class _Listing:
    """Pages of the broker's clients, as far as they were read; ``changes`` counts the changes of accounts before.

    ``has_gaps``: sessions were cut while pages were left. The next page then begins later than this one ended.
    """

    pages: AsyncIterator[Sequence[BrokerClient]]
    changes: int
    began: float
    is_over: bool = False
    has_strays: bool = False
    has_gaps: bool = False


class SessionSync:
    """Cuts each session whose credential is not good now, or not known."""

    name = "http"
    first_uses = None
    knows_new_tokens = True

    def __init__(self, store: Store, admissions: Admissions, cutter: ClientDisconnector | None) -> None:
        self.limitation = None if cutter else NOT_CUT
        self._store = store
        self._admissions = admissions
        self._cutter = cutter
        self._settling = Settling()
        self._beginning: set[BrokerClient] = set()
        self._strays: set[BrokerClient] = set()
        self._listing: _Listing | None = None

    @property
    def trouble(self) -> str | None:
        """Return why sessions are not cut, or None."""
        return self._settling.trouble

    def stop(self) -> None:
        """Stop what is under way."""
        self._settling.stop()

    async def sync(self, devices: Sequence[OutboxRow]) -> Sequence[OutboxRow]:
        """Cut what has to be cut of these devices, each independently.

        Return the devices of which a session may be about to begin, or cannot be cut now.
        """
        if self._cutter is None:
            if devices:
                log.warning("broker.sessions_not_cut", devices=[row.device_id for row in devices][:10])
            return ()
        wanted = {BrokerClient.of_device(row.device_id): partial(self._settle_device, self._cutter) for row in devices}
        settled = await self._settling.settled(
            {client: partial(settle, client) for client, settle in wanted.items()}, PASS_SECONDS
        )
        return [row for row in devices if BrokerClient.of_device(row.device_id) not in settled]

    async def compare(self) -> bool:
        """Cut sessions without a good credential, left from before a restart or a backup, and those of integrators.

        Return whether that is all; if not, call it again in a moment.

        Raises:
            UnavailableError: the broker's API does not list the connected clients.
        """
        if self._cutter is None:
            return True
        listing, time = await self._listed(self._cutter), asyncio.get_running_loop().time
        until, cut = time() + SLICE_SECONDS, await self._cut_strays(self._cutter)
        while not listing.is_over and len(self._strays) < MOST_STRAYS:
            await self._read(listing)
            cut |= await self._cut_strays(self._cutter)
            if time() >= until:
                break
        if cut or self._strays or not listing.is_over or listing.has_gaps:
            return False
        if not await self._is_enforced(listing):
            return False
        self._listing = None
        return True

    async def _listed(self, cutter: ClientDisconnector) -> _Listing:
        """Go on with the listing, or begin another one: for a comparison, after a change, or after a while."""
        now, changes = asyncio.get_running_loop().time(), await self._store.read(account_sql.changes)
        listing = self._listing
        if listing is not None and listing.changes == changes:
            is_new_due = listing.is_over and not self._strays and now - listing.began >= LISTED_EVERY_SECONDS
            if not is_new_due:
                return listing
        self._strays |= await self._store.read(lambda view: self._strays_of(view, self._admissions.integrators()))
        self._listing = _Listing(cutter.connected(), changes, now)
        return self._listing

    async def _read(self, listing: _Listing) -> None:
        """Read a page of the listing. When that fails, the next call of the comparison begins another listing.

        Raises:
            UnavailableError: the broker's API does not list the clients, or the registry cannot be read.
        """
        self._listing = None
        page = await anext(listing.pages, None)
        strays = await self._store.read(lambda view: self._strays_of(view, page or ()))
        self._listing = listing
        if page is None:
            listing.is_over = True
            return
        listing.has_gaps = listing.has_gaps or listing.has_strays
        listing.has_strays = listing.has_strays or bool(strays)
        self._strays |= strays

    async def _cut_strays(self, cutter: ClientDisconnector) -> set[BrokerClient]:
        cut = await self._settling.settled(
            {client: partial(self._cut, cutter, client) for client in self._strays}, PASS_SECONDS
        )
        self._strays -= cut
        return cut

    def _strays_of(self, view: View, there: Collection[BrokerClient]) -> set[BrokerClient]:
        """Return those of some clients whose session has no good credential."""
        devices = [client for client in there if ids.is_id(ids.DEVICE, client.username)]
        good = broker_session_sql.good_sessions(view, self._broker, [client.username for client in devices])
        known = {row.name: row for row in account_sql.everyone(view)}
        old = {
            client
            for client in there
            if client.username in known
            and broker_session_sql.is_old(view, known[client.username], self._made(view, client), self._broker)
        }
        return old | {client for client in devices if client.username not in good and self._is_stray(view, client)}

    def _is_stray(self, view: View, client: BrokerClient) -> bool:
        if ids.is_id(ids.DEVICE, client.username):
            return not broker_session_sql.is_good(view, client.username, self._made(view, client), self._broker)
        account = account_sql.find(view, client.username)
        return account is not None and broker_session_sql.is_old(view, account, self._made(view, client), self._broker)

    def _made(self, view: View, client: BrokerClient) -> int | None:
        """Return the credential of its session: a device's token, or the time of an integrator's password."""
        known = self._admissions.token_of(client.client_id)
        return broker_session_sql.credential_of(view, client.client_id, self._broker) if known is None else known

    async def _is_enforced(self, listing: _Listing) -> bool:
        """Record the accounts that have no old session left. Return whether that is all of them."""
        waiting = await self._store.read(lambda view: self._with_old_sessions(view, listing.changes))
        done = [row for row in waiting or () if self._admissions.is_settled(row.name)]
        if done:
            await self._store.write(lambda tx: account_sql.note_cut(tx, done))
        return waiting is not None and len(done) == len(waiting)

    def _with_old_sessions(self, view: View, changes: int) -> list[account_sql.AccountRecord] | None:
        """Return the accounts that may have sessions of an earlier password; None where one was changed since."""
        if account_sql.changes(view) != changes:
            return None
        return [row for row in account_sql.everyone(view) if not account_sql.is_cut(view, row, self._broker)]

    @property
    def _broker(self) -> int:
        return self._store.context.broker

    async def _cut(self, cutter: ClientDisconnector, client: BrokerClient) -> bool:
        if not await self._store.read(lambda view: self._is_stray(view, client)):
            return True  # bound or made again while this waited
        await cutter.cut(client)
        self._admissions.forget(client.client_id)
        log.info("broker.session_cut", client_id=client.client_id)
        return True

    async def _settle_device(self, cutter: ClientDisconnector, client: BrokerClient) -> bool:
        """Cut its session if need be. Return whether that is all."""
        if not await self._store.read(lambda view: self._is_stray(view, client)):
            return True
        settled = self._admissions.is_settled(client.client_id)
        await cutter.cut(client)
        if client not in self._beginning:
            log.info("broker.session_cut", client_id=client.client_id)
        if settled:
            self._admissions.forget(client.client_id)
            self._beginning.discard(client)
        else:
            self._beginning.add(client)
        return settled
