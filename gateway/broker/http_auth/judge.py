"""Answers the two questions of every dialect: may this client come in, and may it do this."""

from __future__ import annotations

from typing import Final

import structlog

from gateway import ids
from gateway.broker.access import Action, Role, is_name, loggable, may, may_retain
from gateway.broker.authentication import authenticator, role_of
from gateway.broker.clients import Client
from gateway.broker.http_auth.admissions import Admissions
from gateway.broker.standing import Accounts
from gateway.store import Purpose, Store, View, tokens
from gateway.store import accounts as sql

log = structlog.get_logger()

READERS: Final = (Role.INTEGRATOR, Role.HOME_ASSISTANT)
"""They may have several clients at once."""


class Judge:
    """Goes by the registry as it is committed at that moment, and by the rules of the contract, section 3.

    ``own_id`` is the gateway's client id, which is nobody else's. Whoever was let in is noted in ``admissions``.
    """

    def __init__(
        self, store: Store, standing: Accounts, admissions: Admissions, *, own_id: str, prefix: str = ""
    ) -> None:
        self.prefix = prefix
        self._store = store
        self._accounts = standing
        self._admissions = admissions
        self._authenticate = authenticator(store, standing)
        self._own_id = own_id

    async def lets_in(self, client: Client, password: str) -> bool:
        """Whether this is its password, and its client id one that it may have.

        Raises:
            StoreError: the registry cannot be read.
        """
        with self._admissions.knock(client.username):
            identity = await self._authenticate(client.client_id, client.username, password)
            good = identity is not None and self._may_be_called(identity.role, client)
            if identity is not None and identity.token_id is not None and good:
                self._admissions.let_in(client, identity.token_id)
        if not good:
            log.info("broker.connect_refused", client_id=loggable(client.client_id), username=loggable(client.username))
        return good

    async def role_of(self, client: Client) -> Role | None:
        """Who this client is that was let in before; ``None`` when it would not be any more.

        Raises:
            StoreError: the registry cannot be read.
        """
        account = self._accounts.get(client.username)
        if account is None:
            role = await self._store.read(lambda view: _role_in(view, client.username), Purpose.AUTHENTICATION)
        else:
            role = account.role
        return role if role is not None and self._may_be_called(role, client) else None

    async def allows(
        self, client: Client, action: Action, topic: str, *, retain: bool = False, prefix: str | None = None
    ) -> bool:
        """Whether it may do this; ``prefix`` where the broker writes it in another way than the gateway.

        Raises:
            StoreError: the registry cannot be read.
        """
        role = await self.role_of(client)
        under = self.prefix if prefix is None else prefix
        good = role is not None and may(role, client.username, action, topic, prefix=under)
        if role is not None and retain:
            good = good and may_retain(role, client.username, topic, prefix=under)
        if not good:
            log.info("broker.access_refused", username=loggable(client.username), action=action, topic=topic[:256])
        return good

    def _may_be_called(self, role: Role, client: Client) -> bool:
        """Brokers keep sessions by client id alone, so an account must not be able to take over another one's."""
        username, client_id = client.username, client.client_id
        if not is_name(username) or not is_name(client_id.replace("-", "_")):
            return False
        if role is Role.GATEWAY:
            return client_id in (self._own_id, username)
        return client_id == username or (role in READERS and client_id.startswith(f"{username}-"))


def _role_in(view: View, username: str) -> Role | None:
    """Who has this name in the registry, and is good."""
    if ids.is_id(ids.DEVICE, username):
        return Role.DEVICE if tokens.opens_something(view, username) else None
    account = sql.find(view, username)
    return None if account is None or account["revoked_at"] is not None else role_of(username)
