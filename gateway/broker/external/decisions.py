"""Decisions on the two questions of every dialect: may this client connect, and may it do this.

A question about a right names the user and the client id, no credential. The credential that was admitted last under
this client id decides. After a new binding the session of the old, revoked token thus has no rights.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from gateway.broker.access_rules import Action, Role, is_name, loggable, may, may_retain
from gateway.broker.authentication import authenticator, identity_of
from gateway.broker.clients import BrokerClient
from gateway.broker.embedded.server import ClientIdentity
from gateway.broker.external.admissions import Admissions
from gateway.broker.service_accounts import Accounts
from gateway.core import ids
from gateway.store import Purpose, Store, View, account_sql, broker_session_sql

log = structlog.get_logger()

READERS: Final = (Role.INTEGRATOR, Role.PROJECT_INTEGRATOR, Role.HOME_ASSISTANT)
"""Roles that may have several clients at once."""


class AuthDecisions:
    """Decides by the registry as it is committed at that moment, and by the access rules of the contract, section 3.

    ``own_id`` is the gateway's client id, which no other account may use. Admitted clients are recorded in
    ``admissions``; ``refused`` is called for each refused one.
    """

    def __init__(
        self,
        store: Store,
        standing: Accounts,
        admissions: Admissions,
        *,
        own_id: str,
        prefix: str = "",
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        self.prefix = prefix
        self._store = store
        self._accounts = standing
        self._admissions = admissions
        self._authenticate = authenticator(store, standing)
        self._own_id = own_id
        self._refused = refused

    async def lets_in(self, client: BrokerClient, password: str) -> bool:
        """Return whether this is its password, and its client id one that it may have.

        Raises:
            StoreError: the registry cannot be read.
        """
        with self._admissions.knock(client.username):
            identity = await self._identity(client, password)
            good = identity is not None and await self._is_noted(client, identity)
        if not good:
            self._refused()
            log.info("broker.connect_refused", client_id=loggable(client.client_id), username=loggable(client.username))
        return good

    async def _identity(self, client: BrokerClient, password: str) -> ClientIdentity | None:
        """Return the client's identity, or None to refuse it.

        While a session of another credential may be about to begin under this client id, this waits. The broker must
        take that session over, or it would have the rights of this one.
        """
        while True:
            identity = await self._authenticate(client.client_id, client.username, password)
            if identity is None or not self._may_be_called(identity.role, client):
                return None
            seconds = self._admissions.unsettled_seconds(client.client_id, identity.token_id or 0)
            if not seconds:
                return identity
            await asyncio.sleep(seconds)

    async def _is_noted(self, client: BrokerClient, identity: ClientIdentity) -> bool:
        """Record the credential of the session that is about to begin. Return False when it was revoked meanwhile."""
        credential = identity.token_id
        if credential is None:
            return True
        known = await self._store.read(
            lambda view: broker_session_sql.credential_of(view, client.client_id, self._broker)
        )
        if known != credential and not await self._store.write(
            lambda tx: broker_session_sql.note(tx, client.client_id, client.username, credential)
        ):
            return False
        self._admissions.let_in(client, credential)
        return True

    async def identity_of(self, client: BrokerClient) -> ClientIdentity | None:
        """Return the identity of a client that was admitted before, or None when it would be refused now.

        Raises:
            StoreError: the registry cannot be read.
        """
        account = self._accounts.get(client.username)
        if account is None:
            found = await self._store.read(lambda view: self._known_in(view, client), Purpose.AUTHENTICATION)
        else:
            found = ClientIdentity(account.role, client.username, None)
        return found if found is not None and self._may_be_called(found.role, client) else None

    async def allows(
        self, client: BrokerClient, action: Action, topic: str, *, retain: bool = False, prefix: str | None = None
    ) -> bool:
        """Return whether it may do this. ``prefix``: the topic prefix, where the broker spells it differently.

        Raises:
            StoreError: the registry cannot be read.
        """
        who = await self.identity_of(client)
        under = self.prefix if prefix is None else prefix
        good = who is not None and may(who.role, who.username, action, topic, prefix=under, project=who.project_id)
        if who is not None and retain:
            good = good and may_retain(who.role, who.username, topic, prefix=under)
        if not good:
            log.info("broker.access_refused", username=loggable(client.username), action=action, topic=topic[:256])
        return good

    @property
    def _broker(self) -> int:
        return self._store.context.broker

    def _may_be_called(self, role: Role, client: BrokerClient) -> bool:
        """Return whether the account may use the client id. Brokers keep sessions by client id alone."""
        username, client_id = client.username, client.client_id
        if not is_name(username) or not is_name(client_id.replace("-", "_")):
            return False
        if role is Role.GATEWAY:
            return client_id in (self._own_id, username)
        return client_id == username or (role in READERS and client_id.startswith(f"{username}-"))

    def _known_in(self, view: View, client: BrokerClient) -> ClientIdentity | None:
        """Return what the registry says of the credential of this session."""
        name, credential = client.username, self._admissions.token_of(client.client_id)
        if ids.is_id(ids.DEVICE, name):
            if credential is None:
                credential = broker_session_sql.good_sessions(view, self._broker, [client.client_id]).get(name)
            elif not broker_session_sql.is_good(view, name, credential, self._broker):
                credential = None
            return None if credential is None else ClientIdentity(Role.DEVICE, name, credential)
        if credential is None:
            credential = broker_session_sql.credential_of(view, client.client_id, self._broker)
        if not broker_session_sql.is_good(view, name, credential, self._broker):
            return None
        account = account_sql.find(view, name)
        return None if account is None else identity_of(account)
