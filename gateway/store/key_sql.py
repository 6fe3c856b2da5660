"""SQL of projects, API keys and facts of the gateway."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core import ids
from gateway.core.clock import DAY_MS
from gateway.core.credentials import HINT_LENGTH, SCOPES, api_key_prefix, hash_secret, mint, same_hash
from gateway.errors import ConflictError, NotFoundError
from gateway.store.records import columns

if TYPE_CHECKING:
    from gateway.store.transaction import Tx, View

EPOCH_BASE: Final = "epoch_base"
"""A fact: the first generation of devices in the registry's epoch."""
_EXPIRES_SOON_MS: Final = 7 * DAY_MS
_PREFIX_LENGTH: Final = len("sk_live_")


class ProjectRecord(NamedTuple):
    """A project. ``created_at`` is in milliseconds since the epoch."""

    id: str
    name: str
    created_at: int


class KeyRecord(NamedTuple):
    """An API key with the name of its project; times are milliseconds since the epoch.

    ``hint`` is how the secret begins. ``scopes`` is a list as JSON text; :func:`scopes` reads it.
    """

    id: str
    project_id: str
    project: str
    name: str
    hash: bytes
    hint: str
    scopes: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None
    previous_hash: bytes | None
    previous_expires_at: int | None
    rotated_at: int | None

    def __repr__(self) -> str:
        """Return what may be logged."""
        return f"KeyRecord(id={self.id!r}, project_id={self.project_id!r})"


class ExpiringKey(NamedTuple):
    """An API key that expires soon, with the name of its project; ``expires_at`` is in milliseconds since the epoch."""

    id: str
    project_id: str
    project: str
    name: str
    expires_at: int


_PROJECTS: Final = f"SELECT {columns(ProjectRecord, 'p')} FROM projects p"  # noqa: S608 - our own columns
_PROJECT_NAME: Final = "(SELECT p.name FROM projects p WHERE p.id = k.project_id)"
_KEYS: Final = f"SELECT {columns(KeyRecord, 'k', project=_PROJECT_NAME)} FROM api_keys k"  # noqa: S608 - our own columns
_EXPIRING: Final = f"SELECT {columns(ExpiringKey, 'k', project=_PROJECT_NAME)} FROM api_keys k"  # noqa: S608 - our own columns


def meta(view: View, key: str) -> str | None:
    """Return a fact of the gateway."""
    value: str | None = view.value("SELECT value FROM meta WHERE key = ?", key)
    return value


def set_meta(tx: Tx, key: str, value: str) -> None:
    """Store a fact."""
    upsert = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
    tx.run(upsert, key, value)


def forget_meta(tx: Tx, key: str) -> None:
    """Delete a fact."""
    tx.run("DELETE FROM meta WHERE key = ?", key)


def projects(view: View) -> list[ProjectRecord]:
    """Return every project, the oldest first."""
    return view.records(ProjectRecord, f"{_PROJECTS} ORDER BY p.id")


def create_project(tx: Tx, name: str) -> str:
    """Create a project; return its id.

    Raises:
        ConflictError: ``resource_already_exists``: the name is taken.
    """
    known: str | None = tx.value("SELECT id FROM projects WHERE name = ?", name)
    if known is not None:
        raise ConflictError(
            "resource_already_exists",
            f"There is a project named '{name}' already: {known}. Use that one, or choose another name.",
            details={"id": known},
        )
    project_id = tx.new_id(ids.PROJECT)
    tx.run("INSERT INTO projects (id, name, created_at) VALUES (?, ?, ?)", project_id, name, tx.now)
    return project_id


def create(
    tx: Tx,
    project_id: str,
    name: str,
    *,
    scopes: tuple[str, ...] = (),
    test: bool = False,
    expires_at: int | None = None,
) -> tuple[str, str]:
    """Create a key; return its id and its secret, which is shown this once. Without ``scopes`` it has all of them.

    Raises:
        NotFoundError: no such project.
    """
    project = require_project(tx, project_id)
    secret = mint(api_key_prefix(restricted=bool(scopes), test=test), tx.entropy)
    key_id = tx.new_id(ids.KEY)
    tx.run(
        """INSERT INTO api_keys (id, project_id, name, hash, hint, scopes, created_at, expires_at)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
        key_id,
        project.id,
        name,
        hash_secret(secret),
        secret[:HINT_LENGTH],
        json.dumps(scopes or SCOPES),
        tx.now,
        expires_at,
    )
    return key_id, secret


def scopes(key: KeyRecord) -> list[str]:
    """Return the scopes of a key."""
    found: list[str] = json.loads(key.scopes)
    return found


def require(view: View, wanted: str) -> KeyRecord:
    """Return the key with this id, or the only unrevoked one with this name, else the newest revoked one.

    Raises:
        NotFoundError: there is no such key.
        ConflictError: several have this name.
    """
    named = view.records(KeyRecord, f"{_KEYS} WHERE k.id = ?1 OR k.name = ?1 ORDER BY k.id", wanted)
    keys = [key for key in named if key.id == wanted or key.revoked_at is None] or named[-1:]
    if not keys:
        raise NotFoundError(f"There is no API key '{wanted}'. 'gateway keys list' shows those there are.")
    if len(keys) > 1:
        several = ", ".join(key.id for key in keys)
        raise ConflictError("several_keys", f"Several API keys are named '{wanted}'. Name one by its id: {several}.")
    return keys[0]


def rotate(tx: Tx, key_id: str, overlap_ms: int) -> str:
    """Give the key a new secret, which is shown this once; the previous one stays good for ``overlap_ms``.

    An older secret is refused at once.

    Raises:
        ConflictError: ``key_revoked``, or expired.
    """
    key = _require_alive(tx, key_id)
    secret = mint(key.hint[:_PREFIX_LENGTH], tx.entropy)
    tx.run(
        """UPDATE api_keys SET hash = ?, hint = ?, rotated_at = ?, previous_hash = ?, previous_expires_at = ?
            WHERE id = ?""",
        hash_secret(secret),
        secret[:HINT_LENGTH],
        tx.now,
        key.hash if overlap_ms else None,
        tx.now + overlap_ms if overlap_ms else None,
        key.id,
    )
    return secret


def revoke(tx: Tx, key_id: str) -> KeyRecord:
    """Revoke the key with all its secrets; a revoked one stays as it is."""
    tx.run(
        """UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?), previous_hash = NULL, previous_expires_at = NULL
            WHERE id = ?""",
        tx.now,
        key_id,
    )
    return require(tx, key_id)


def expire(tx: Tx, key_id: str, expires_at: int | None) -> KeyRecord:
    """Set the key's expiry (milliseconds since the epoch); ``None``: it never expires.

    Raises:
        ConflictError: ``key_revoked``.
    """
    key = _require_alive(tx, key_id, expired_too=True)
    tx.run("UPDATE api_keys SET expires_at = ? WHERE id = ?", expires_at, key.id)
    return require(tx, key_id)


def _require_alive(view: Tx, key_id: str, *, expired_too: bool = False) -> KeyRecord:
    key = require(view, key_id)
    if key.revoked_at is not None:
        raise ConflictError("key_revoked", f"{key.id} ('{key.name}') is revoked for good. Create another key.")
    if not expired_too and key.expires_at is not None and key.expires_at < view.now:
        raise ConflictError(
            "key_expired",
            f"{key.id} ('{key.name}') has expired. Create another key, or give this one more time first: "
            "gateway keys expire KEY --in 30d",
        )
    return key


def expiring(view: View, now: int) -> list[ExpiringKey]:
    """Return keys that expire within a week, or in the last quarter of a shorter life; the next first."""
    soon = view.dialect.least("?2", "(k.expires_at - k.created_at) / 4")
    return view.records(
        ExpiringKey,
        f"""{_EXPIRING} WHERE k.revoked_at IS NULL
            AND k.expires_at BETWEEN ?1 AND ?1 + {soon} ORDER BY k.expires_at""",
        *(now, _EXPIRES_SOON_MS),
    )


def require_project(view: View, wanted: str) -> ProjectRecord:
    """Return the project with this id or name.

    Raises:
        NotFoundError: there is no such project.
    """
    project = view.record(ProjectRecord, f"{_PROJECTS} WHERE p.id = ?1 OR p.name = ?1 ORDER BY p.id = ?1 DESC", wanted)
    if project is None:
        known = ", ".join(f"{each.id} ({each.name})" for each in projects(view))
        raise NotFoundError(f"There is no project '{wanted}'. Use one of: {known or 'none yet'}.")
    return project


def all_keys(view: View) -> list[KeyRecord]:
    """Return every key with its project's name, the newest first."""
    return view.records(KeyRecord, f"{_KEYS} ORDER BY k.id DESC")


def by_secret(view: View, secret: str, now: int) -> KeyRecord | None:
    """Return the good key with this secret, or with this previous secret during a rotation's overlap.

    The overlap also ends when the clock is further before the rotation than the overlap is long. The clock was then set
    back, and the previous secret would stay good for as long as that.
    """
    given = hash_secret(secret)
    key = view.record(
        KeyRecord,
        f"""{_KEYS} WHERE (hash = ?1 OR (previous_hash = ?1
            AND ?2 BETWEEN 2 * rotated_at - previous_expires_at AND previous_expires_at - 1))
            AND revoked_at IS NULL AND coalesce(expires_at, ?2) >= ?2""",
        given,
        now,
    )
    if key is None:
        return None
    known = (key.hash, key.previous_hash or key.hash)
    return key if any(same_hash(each, given) for each in known) else None


def of_closed_secret(view: View, secret: str) -> KeyRecord | None:
    """Return the key whose secret this is or was, good or not: to say why it was refused."""
    return view.record(KeyRecord, f"{_KEYS} WHERE k.hash = ?1 OR k.previous_hash = ?1", hash_secret(secret))


def touch(tx: Tx, key_id: str, before: int) -> None:
    """Record that the key is in use, unless that was recorded at or after ``before`` (milliseconds since the epoch).

    A time that a wrong clock recorded ahead is corrected.
    """
    tx.run(
        """UPDATE api_keys SET last_used_at = ?1
            WHERE id = ?2 AND (coalesce(last_used_at, 0) < ?3 OR last_used_at > ?1)""",
        *(tx.now, key_id, before),
    )
