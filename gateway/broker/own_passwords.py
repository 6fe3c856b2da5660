"""Passwords of the gateway's own accounts at its broker. They stay the same over a restart.

Mosquitto reads its whole password file at each change. With new passwords at each start the file would be written each
time, whatever the size of the fleet. So the passwords are derived from a secret of the broker in the registry, which is
sealed there like signing keys. Where the secret cannot be opened, there is a new one.
"""

from __future__ import annotations

import base64
import hmac
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gateway.errors import UnavailableError
from gateway.runtime.sealing import NONCE_BYTES
from gateway.store import broker_sql

if TYPE_CHECKING:
    from gateway.runtime.sealing import Vault
    from gateway.store import Store, Tx, View

FACT: Final = "own_passwords"
_SECRET_BYTES: Final = 32


@dataclass(frozen=True)
class OwnPasswords:
    """Derives the password of each account from the secret."""

    secret: bytes = field(repr=False)

    def of(self, account: str) -> str:
        """Return the password of this account."""
        return base64.urlsafe_b64encode(hmac.digest(self.secret, account.encode(), "sha256")).rstrip(b"=").decode()


async def own_passwords(store: Store) -> OwnPasswords:
    """Return the passwords at the broker of this process. Make the secret at the first start.

    Raises:
        StoreError: the registry cannot be read or written.
    """
    vault = store.context.vault
    secret = await store.read(lambda view: _secret(view, store.context.broker, vault))
    if secret is None:
        secret = await store.write(_make_secret)
    return OwnPasswords(secret)


def _secret(view: View, broker: int, vault: Vault) -> bytes | None:
    stored = broker_sql.fact(view, broker, FACT)
    with suppress(UnavailableError, ValueError):
        return None if stored is None else vault.open(_place(broker), bytes.fromhex(stored))
    return None


def _make_secret(tx: Tx) -> bytes:
    broker, vault = tx.context.broker, tx.context.vault
    known = _secret(tx, broker, vault)  # another gateway of this broker may have made it
    if known is not None:
        return known
    secret = tx.entropy(_SECRET_BYTES)
    broker_sql.set_fact(tx, broker, FACT, vault.seal(_place(broker), secret, tx.entropy(NONCE_BYTES)).hex())
    return secret


def _place(broker: int) -> str:
    return f"broker_facts/{broker}/{FACT}"
