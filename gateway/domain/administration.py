"""Administration: changes of projects, API keys, broker accounts and signing keys, each with its event.

``actor`` is who did it: the id of a key, ``gateway``, or ``cli`` for the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.clock import to_rfc3339
from gateway.domain import grant_keys, grants
from gateway.errors import ConflictError, NotFoundError
from gateway.models.events import EventType
from gateway.store import account_sql, event_sql, grant_key_sql, key_sql, signing_key_sql

if TYPE_CHECKING:
    from gateway.store import Tx, View


def create_project(tx: Tx, name: str, actor: str) -> str:
    """Create a project; return its id.

    Raises:
        ConflictError: ``resource_already_exists``: the name is taken.
    """
    project_id = key_sql.create_project(tx, name)
    event_sql.record_administrative(tx, project_id, EventType.PROJECT_CREATED, actor, project_id=project_id, name=name)
    return project_id


def create_key(
    tx: Tx,
    project: str,
    name: str,
    actor: str,
    *,
    scopes: tuple[str, ...] = (),
    test: bool = False,
    expires_at: int | None = None,
) -> tuple[key_sql.KeyRecord, str]:
    """Create an API key; return it and its secret, which is shown this once. Without ``scopes`` it has all of them.

    Raises:
        NotFoundError: no such project.
    """
    key_id, secret = key_sql.create(tx, project, name, scopes=scopes, test=test, expires_at=expires_at)
    row = key_sql.require(tx, key_id)
    _of_key(tx, row, EventType.KEY_CREATED, actor, scopes=key_sql.scopes(row), expires_at=_moment(row.expires_at))
    return row, secret


def rotate_key(tx: Tx, wanted: str, overlap_ms: int, actor: str) -> tuple[key_sql.KeyRecord, str]:
    """Give a key a new secret, which is shown this once; return the key and the secret.

    Raises:
        NotFoundError: there is no such key.
        ConflictError: it is revoked or has expired, or several have this name.
    """
    key_id = key_sql.require(tx, wanted).id
    secret = key_sql.rotate(tx, key_id, overlap_ms)
    row = key_sql.require(tx, key_id)
    until = _moment(row.previous_expires_at)
    _of_key(tx, row, EventType.KEY_ROTATED, actor, previous_secret_expires_at=until)
    return row, secret


def revoke_key(tx: Tx, wanted: str, actor: str) -> key_sql.KeyRecord:
    """Refuse a key from now on; one that is revoked stays as it is, without an event.

    Raises:
        NotFoundError: there is no such key.
        ConflictError: several have this name.
    """
    before = key_sql.require(tx, wanted)
    row = key_sql.revoke(tx, before.id)
    if before.revoked_at is None:
        _of_key(tx, row, EventType.KEY_REVOKED, actor)
    return row


def expire_key(tx: Tx, wanted: str, expires_at: int | None, actor: str) -> key_sql.KeyRecord:
    """Change until when a key is good (milliseconds since the epoch; ``None``: for ever).

    Raises:
        NotFoundError: there is no such key.
        ConflictError: it is revoked, or several have this name.
    """
    row = key_sql.expire(tx, key_sql.require(tx, wanted).id, expires_at)
    _of_key(tx, row, EventType.KEY_UPDATED, actor, expires_at=_moment(expires_at))
    return row


def keys_to_warn_of(view: View, now: int) -> list[key_sql.ExpiringKey]:
    """Return keys that expire soon and have no event about it yet."""
    return [
        row
        for row in key_sql.expiring(view, now)
        if not event_sql.told_of_key(view, EventType.KEY_EXPIRING, row.project_id, row.id, to_rfc3339(row.expires_at))
    ]


def warn_of_expiring_keys(tx: Tx) -> list[key_sql.ExpiringKey]:
    """Write an event for each key that expires soon, once per expiry date; return those keys."""
    due = keys_to_warn_of(tx, tx.now)
    for row in due:
        _of_key(tx, row, EventType.KEY_EXPIRING, "gateway", expires_at=to_rfc3339(row.expires_at))
    return due


def create_account(tx: Tx, name: str, project_id: str | None, actor: str) -> str:
    """Create a broker account of a project, or (``None``) of all; return its password, which is shown this once.

    Raises:
        InvalidRequestError: the name is not valid, or not valid for an account of one project.
        ConflictError: ``resource_already_exists``.
    """
    password = account_sql.create(tx, name, project_id)
    _of_account(tx, name, EventType.ACCOUNT_CREATED, actor)
    return password


def rotate_account(tx: Tx, name: str, actor: str) -> str:
    """Give a broker account another password, which is shown this once; return it.

    Raises:
        NotFoundError: there is no such account, or it was revoked.
    """
    password = account_sql.rotate(tx, name)
    _of_account(tx, name, EventType.ACCOUNT_ROTATED, actor)
    return password


def revoke_account(tx: Tx, name: str, actor: str) -> account_sql.AccountRecord:
    """Refuse a broker account from now on; return it.

    Raises:
        NotFoundError: there is no such account, or it was revoked.
    """
    row = account_sql.revoke(tx, name)
    _of_account(tx, name, EventType.ACCOUNT_REVOKED, actor)
    return row


def rotate_signing_key(tx: Tx, actor: str, **facts: Any) -> tuple[str | None, str]:
    """Sign for new bindings with a new key; return the ids of the old key, if there was one, and the new key."""
    before = signing_key_sql.signing_key(tx)
    retired, kid = None if before is None else before.kid, grants.rotate(tx)
    event_sql.record_administrative(
        tx, event_sql.REGISTRY, EventType.SIGNING_KEY_ROTATED, actor, kid=kid, retired=retired, **facts
    )
    return retired, kid


def deliver_signing_key(tx: Tx, actor: str) -> str:
    """Have bound devices asked, or asked again, to take the signing key in use; return the id of that key."""
    kid = grant_keys.start(tx)
    _of_delivery(tx, actor, kid, "started")
    return kid


def stop_delivery(tx: Tx, actor: str) -> str | None:
    """Ask no further device to take a signing key; return the id of the key, or None when there was no delivery."""
    kid = grant_keys.stop(tx)
    if kid is not None:
        _of_delivery(tx, actor, kid, "stopped")
    return kid


def mark_signing_key_leaked(tx: Tx, kid: str, actor: str) -> int:
    """Mark that others know this key: no device is to take a key on its word. Return how many commands that withdrew.

    Raises:
        NotFoundError: there is no such key.
        ConflictError: it is in use; a rotation comes first.
    """
    key = signing_key_sql.signing_key(tx, kid)
    if key is None:
        raise NotFoundError(f"There is no signing key '{kid[:80]}'. 'gateway signing-keys list' shows those there are.")
    if key.retired_at is None:
        raise ConflictError(
            "signing_key_in_use",
            "This key signs for new bindings. Nothing was changed. Make a new key first, with "
            "'gateway signing-keys rotate'.",
        )
    if key.leaked_at is None:
        grant_key_sql.set_leaked(tx, kid)
        event_sql.record_administrative(tx, event_sql.REGISTRY, EventType.SIGNING_KEY_LEAKED, actor, kid=kid)
    return grant_keys.withdraw(tx, kid)


def _of_delivery(tx: Tx, actor: str, kid: str, state: str) -> None:
    event_sql.record_administrative(tx, event_sql.REGISTRY, EventType.SIGNING_KEY_DELIVERY, actor, kid=kid, state=state)


def _of_key(tx: Tx, row: key_sql.KeyRecord | key_sql.ExpiringKey, kind: EventType, actor: str, **facts: Any) -> None:
    event_sql.record_administrative(tx, row.project_id, kind, actor, key_id=row.id, name=row.name, **facts)


def _of_account(tx: Tx, name: str, kind: EventType, actor: str) -> None:
    """Write the event: for an account of one project into that project, for one of all into the registry."""
    project_id = account_sql.known(tx, name).project_id
    event_sql.record_administrative(tx, project_id or event_sql.REGISTRY, kind, actor, account=name)


def _moment(at: int | None) -> str | None:
    return None if at is None else to_rfc3339(at)
