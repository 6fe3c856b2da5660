"""Who a client of the broker is, where the broker asks the gateway (the embedded one, and those that ask over HTTP)."""

from __future__ import annotations

import hmac
from typing import Final

from gateway import lifecycle
from gateway.broker.access import Role
from gateway.broker.embedded import Authenticate, Identity
from gateway.broker.probes import ProbeAccounts
from gateway.store import Store, tokens

GATEWAY_USER: Final = "gateway"


def authenticator(store: Store, gateway_password: str, accounts: ProbeAccounts) -> Authenticate:
    """Knows devices by their tokens, the gateway by its password, and the doctor by its accounts; nobody else."""

    async def authenticate(client_id: str, username: str | None, password: str | None) -> Identity | None:
        if not username or not password:
            return None
        if username == GATEWAY_USER:
            good = hmac.compare_digest(password.encode(), gateway_password.encode())
            return Identity(Role.GATEWAY, GATEWAY_USER, None) if good else None
        if username in accounts.passwords:
            role = accounts.role(username, password)
            return None if role is None else Identity(role, username, None)
        token = await store.read(lambda view: tokens.by_secret(view, password))
        if token is None or token["state"] == "revoked" or not username == client_id == token["device_id"]:
            return None
        if token["first_used_at"] is None:
            await store.write(lambda tx: lifecycle.use(tx, token["id"]))
        return Identity(Role.DEVICE, username, token["id"])

    return authenticate
