"""Restore: put a backup in the place of the registry, and begin a new epoch (contract, section 1)."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from gateway.domain import administration, devices, epoch
from gateway.errors import ConflictError, NotFoundError, StoreError, UnavailableError
from gateway.runtime.sealing import Vault
from gateway.store import (
    DATABASE_NAME,
    Context,
    View,
    account_sql,
    backup,
    device_sql,
    epoch_sql,
    grant_key_sql,
    key_sql,
    secret_sql,
    signing_key_sql,
)
from gateway.store.event_sql import CLI
from gateway.store.position_file import read_position
from gateway.store.reopened import Reopened, reopened
from gateway.store.sqlite.connection import connect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gateway.store import Tx

Revoke = Literal["reopened", "all"]
_ACTOR: Final = CLI


@dataclass(frozen=True)
class Restored:
    """Where the old registry lies now, if there was one, the new epoch, and how much was revoked in the copy.

    ``kept_keys`` is the number of signing keys that the copy did not have.
    """

    old_registry: Path | None
    epoch: epoch.Epoch
    revoked: int
    kept_keys: int


def what_reopens(data_dir: Path, source: Path) -> Reopened | None:
    """Return what this restore makes good again, or None when the replaced registry cannot be read."""
    try:
        with (
            closing(connect(data_dir / DATABASE_NAME, read_only=True)) as replaced,
            closing(connect(source, read_only=True)) as copy,
        ):
            return reopened(View(replaced), View(copy))
    except (StoreError, sqlite3.Error):
        return None


def restore(data_dir: Path, source: Path, *, revoke: Revoke | None = None, vault: Vault | None = None) -> Restored:
    """Put a copy in the place of the registry. ``revoke``: what it makes good again, or all keys and accounts.

    Raises:
        AlreadyRunningError: a gateway runs on the data directory.
        NotFoundError, InvalidRequestError: ``source`` is missing, or not good.
        ConflictError: ``unknown_revocations``: the replaced registry cannot be read, so revocations are unknown.
        StoreError: the directory cannot be written, or another program has the registry open.
        UnavailableError: the copy's secrets are encrypted under another key than that of ``vault``.
    """
    began: list[epoch.Epoch] = []
    revoked: list[str] = []
    kept: list[str] = []

    def prepare(tx: Tx) -> None:
        began.append(epoch.begin(tx, epoch.RESTORED, known=_issued(data_dir)))
        kept.extend(_keep_signing_keys(tx, data_dir))
        if revoke == "all":
            revoked.extend(_revoke_all(tx))
        elif revoke == "reopened":
            revoked.extend(_revoke_reopened(tx, _known(data_dir, source)))

    aside = backup.restore(data_dir, source, prepare, Context(vault=vault or Vault()))
    return Restored(aside, began[-1], len(revoked), len(kept))


def _known(data_dir: Path, source: Path) -> Reopened:
    found = what_reopens(data_dir, source)
    if found is None:
        raise ConflictError(
            "unknown_revocations",
            f"There is no registry in {data_dir} that can be read, so it cannot be known what was revoked after the "
            "backup was made. Nothing was changed. Use --revoke-keys=all to revoke every API key and broker account of "
            "the backup, or restore without --revoke-keys.",
        )
    return found


def _revoke_reopened(tx: Tx, found: Reopened) -> list[str]:
    names = []
    for each in found.api_keys:
        administration.revoke_key(tx, each["id"], _ACTOR)
        names.append(each["id"])
    for each in found.broker_accounts:
        administration.revoke_account(tx, each["id"], _ACTOR)
        names.append(each["id"])
    for each in found.device_tokens:  # a binding with a revoked token is of no use: end it
        device = device_sql.any_by_id(tx, each["id"])
        if device is None:
            raise NotFoundError(f"The copy has no device {each['id']}.")
        devices.unbind(tx, device.project_id, each["id"], _ACTOR)
        names.append(each["id"])
    return names


def _revoke_all(tx: Tx) -> list[str]:
    good_keys = [row.id for row in key_sql.all_keys(tx) if row.revoked_at is None]
    good_accounts = [row.name for row in account_sql.everyone(tx) if row.revoked_at is None]
    for key_id in good_keys:
        administration.revoke_key(tx, key_id, _ACTOR)
    for name in good_accounts:
        administration.revoke_account(tx, name, _ACTOR)
    return [*good_keys, *good_accounts]


def _keep_signing_keys(tx: Tx, data_dir: Path) -> list[str]:
    """Take over signing keys that the copy does not have, as retired; return their ids.

    They are those that bound devices obey, and those that signed certificates. A bound device may have taken such a key
    after the copy was made. It names that key when it refuses a command, and the gateway then signs with it. A
    certificate that was handed out stays verifiable, also when the copy does not have it. A key that leaked stays
    marked.
    """
    kept = []
    certifying = {key.kid: key for key in _keys_of_replaced(data_dir, grant_key_sql.certifying)}
    obeyed = {key.kid: key for key in _keys_of_replaced(data_dir, grant_key_sql.keys_to_keep)}
    if certifying:
        key_sql.set_meta(tx, signing_key_sql.CERTIFIED_BEFORE, json.dumps(sorted(certifying)))
    for key in {**certifying, **obeyed}.values():
        place = secret_sql.place_of_key(key.kid)
        if signing_key_sql.signing_key(tx, key.kid) is None:
            try:
                stored = secret_sql.seal(tx, place, tx.context.vault.open(place, key.private_key))
            except UnavailableError:  # sealed under another key than the copy
                continue
            signing_key_sql.insert_signing_key(tx, key.kid, key.public_key, stored)
            grant_key_sql.retire(tx, key.kid)
            kept.append(key.kid)
        if key.leaked_at is not None:
            grant_key_sql.retire(tx, key.kid)
            grant_key_sql.set_leaked(tx, key.kid)
    return kept


def _keys_of_replaced(
    data_dir: Path, read: Callable[[View], list[signing_key_sql.SigningKeyRecord]]
) -> list[signing_key_sql.SigningKeyRecord]:
    """Return keys of the replaced registry; none where it cannot be read, or is too old to have such."""
    try:
        with closing(connect(data_dir / DATABASE_NAME, read_only=True)) as connection:
            return read(View(connection))
    except (StoreError, sqlite3.Error):
        return []


def _issued(data_dir: Path) -> int:
    """Return the highest generation that the replaced registry is known to have issued.

    It may be damaged, and often is. Then the file beside it has the number.
    """
    noted = epoch.known_by(read_position(data_dir))
    try:
        with closing(connect(data_dir / DATABASE_NAME, read_only=True)) as connection:
            return max(noted, epoch_sql.highest_generation(View(connection)))
    except (StoreError, sqlite3.Error):
        return noted
