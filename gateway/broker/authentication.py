"""Authentication of clients, where the broker asks the gateway (the embedded one, and those that ask over HTTP)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from gateway.broker.access_rules import Role
from gateway.broker.embedded.server import Authenticate, ClientIdentity
from gateway.broker.service_accounts import Accounts
from gateway.core import ids
from gateway.domain import devices
from gateway.errors import StoreError
from gateway.store import Purpose, Store, View, account_sql, token_sql


def identity_of(account: account_sql.AccountRecord) -> ClientIdentity:
    """Return the identity of an account in the registry."""
    name, project_id = account.name, account.project_id
    if project_id is not None:
        return ClientIdentity(Role.PROJECT_INTEGRATOR, name, account.created_at, project_id)
    role = Role.HOME_ASSISTANT if name == account_sql.HOME_ASSISTANT else Role.INTEGRATOR
    return ClientIdentity(role, name, account.created_at)


def authenticator(store: Store, accounts: Accounts) -> Authenticate:
    """Return a function that knows devices, these accounts and the registry's integrators by their MQTT passwords."""

    async def authenticate(client_id: str, username: str | None, password: str | None) -> ClientIdentity | None:
        if not username or not password:
            return None
        if username in accounts:
            account = accounts[username]
            return ClientIdentity(account.role, username, None) if account.opens_with(password) else None
        if not username.startswith(ids.DEVICE):
            known = await store.read(
                lambda view: account_sql.opened_by(view, username, password), Purpose.AUTHENTICATION
            )
            return None if known is None else identity_of(known)
        if username != client_id:
            return None
        broker = store.context.broker
        find = partial(token_sql.by_mqtt_password, device_id=username, password=password, broker=broker)
        token = await store.read(find, Purpose.AUTHENTICATION)
        if token is None:
            return None
        if token.first_used_at is None:
            await store.write(lambda tx: devices.use(tx, token.id))
        return ClientIdentity(Role.DEVICE, username, token.id)

    return authenticate


def acquaintance(store: Store, accounts: Accounts) -> Callable[[str], Awaitable[bool]]:
    """Return a function that says whether a user name exists, whatever the password: one indexed look-up."""

    async def is_known(username: str) -> bool:
        if username in accounts:
            return True
        try:
            return await store.read_small(lambda view: _opens_something(view, username, store.context.broker))
        except StoreError:  # the password check reports it
            return True

    return is_known


def _opens_something(view: View, username: str, broker: int) -> bool:
    if username.startswith(ids.DEVICE):
        return token_sql.opens_something(view, username, broker=broker)
    account = account_sql.find(view, username)
    return account is not None and account.revoked_at is None
