"""Secrets that the gateway must read: private signing keys, and signing secrets of webhooks.

They are stored in the clear, or all sealed under one key (:mod:`gateway.runtime.sealing`). ``meta`` names the key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.runtime import sealing
from gateway.store import key_sql
from gateway.store.dialect import POSTGRESQL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.store.engine import DatabaseConnection
    from gateway.store.transaction import Tx, View

KEY_ID: Final = "encryption_key"
_COLUMNS: Final = (("signing_keys", "kid", "private_key"), ("webhooks", "id", "secret"))
_PREVIOUS: Final = ("webhooks", "id", "previous_secret")


def place_of_key(kid: str) -> str:
    """Return the place of a private signing key, which its seal is bound to."""
    return f"signing_keys/{kid}"


def place_of_webhook(webhook_id: str) -> str:
    """Return the place of a webhook's secrets: the present one and the previous one have the same."""
    return f"webhooks/{webhook_id}"


def seal(tx: Tx, place: str, secret: bytes) -> bytes:
    """Return a secret as this registry stores it.

    Raises:
        UnavailableError: the setting's key is not the registry's.
    """
    vault = tx.context.vault
    sealing.require_same(key_id(tx), vault.key_id)
    return vault.seal(place, secret, tx.entropy(sealing.NONCE_BYTES)) if vault.key_id else secret


def key_id(view: View) -> str | None:
    """Return the name of the key that seals this registry's secrets, or None when they lie in the clear."""
    return key_sql.meta(view, KEY_ID) or None


def settle(tx: Tx) -> int:
    """Encrypt an unencrypted registry, when there is a key; return how many secrets were sealed.

    Raises:
        UnavailableError: it is encrypted under another key than the setting's.
    """
    vault, known = tx.context.vault, key_id(tx)
    if known is None and vault.key_id is not None:
        return reseal(tx, sealing.Vault(), vault)
    sealing.require_same(known, vault.key_id)
    return 0


def reseal(tx: Tx, before: sealing.Vault, after: sealing.Vault) -> int:
    """Open every secret with one vault and seal it with the other; return how many there are.

    Raises:
        UnavailableError: ``before`` does not open them.
    """
    sealing.require_same(key_id(tx), before.key_id)
    number = 0
    for table, name, column, row_id, stored in list(_stored(tx)):
        place = f"{table}/{row_id}"
        secret = after.seal(place, before.open(place, stored), tx.entropy(sealing.NONCE_BYTES))
        tx.run(f"UPDATE {table} SET {column} = ? WHERE {name} = ?", secret, row_id)  # noqa: S608 - constants
        number += 1
    key_sql.set_meta(tx, KEY_ID, after.key_id or "")
    return number


def _stored(view: View) -> Iterator[tuple[str, str, str, str, bytes]]:
    for table, name, column in (*_COLUMNS, _PREVIOUS):
        for row in view.all(f"SELECT {name}, {column} FROM {table} WHERE {column} IS NOT NULL"):  # noqa: S608 - constants
            yield table, name, column, row[0], row[1]


def leave_no_traces(connection: DatabaseConnection) -> None:
    """Make SQLite overwrite what it no longer needs. Call this before the transaction that seals.

    PostgreSQL has no such thing: old rows stay in its files until they are vacuumed, and in its log and backups.
    """
    if connection.dialect is POSTGRESQL:
        return
    connection.execute("PRAGMA secure_delete = ON")


def write_anew(connection: DatabaseConnection) -> None:
    """Rewrite the whole file, which takes as much room again: no older bytes are left in its free pages.

    On PostgreSQL the tables that hold secrets are rewritten.

    Raises:
        sqlite3.OperationalError: there is no room.
    """
    for table in ("signing_keys", "webhooks") if connection.dialect is POSTGRESQL else ("",):
        connection.execute(f"VACUUM FULL {table}" if table else "VACUUM")


def empty_log(connection: DatabaseConnection) -> None:
    """Move SQLite's write-ahead log into the database and truncate it, so that no old page is left in it."""
    if connection.dialect is POSTGRESQL:
        return
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
