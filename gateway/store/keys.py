"""SQL of projects, API keys and what the gateway knows of itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gateway import ids
from gateway.credentials import HINT_LENGTH, SCOPES, api_key_prefix, hash_secret, mint, same_hash
from gateway.errors import NotFoundError

if TYPE_CHECKING:
    from gateway.store.database import Row, Tx, View


def meta(view: View, key: str) -> str | None:
    """A fact the gateway keeps about itself."""
    value: str | None = view.value("SELECT value FROM meta WHERE key = ?", key)
    return value


def set_meta(tx: Tx, key: str, value: str) -> None:
    """Keep a fact."""
    tx.run("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", key, value)


def projects(view: View) -> list[Row]:
    """Every project, the oldest first."""
    return view.all("SELECT * FROM projects ORDER BY id")


def create_project(tx: Tx, name: str) -> str:
    """A new project; its id."""
    project_id = tx.new_id(ids.PROJECT)
    tx.run("INSERT INTO projects (id, name, created_at) VALUES (?, ?, ?)", project_id, name, tx.now)
    return project_id


def create(tx: Tx, project_id: str, name: str, *, scopes: tuple[str, ...] = (), test: bool = False) -> tuple[str, str]:
    """A new key: its id and its secret, which is shown this once. Without ``scopes`` it may do everything.

    Raises:
        NotFoundError: no such project.
    """
    if view_project(tx, project_id) is None:
        known = ", ".join(row["id"] for row in projects(tx))
        raise NotFoundError(f"There is no project '{project_id}'. Use one of: {known}.")
    secret = mint(api_key_prefix(restricted=bool(scopes), test=test), tx.entropy)
    key_id = tx.new_id(ids.KEY)
    tx.run(
        "INSERT INTO api_keys (id, project_id, name, hash, hint, scopes, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        key_id,
        project_id,
        name,
        hash_secret(secret),
        secret[:HINT_LENGTH],
        json.dumps(scopes or SCOPES),
        tx.now,
    )
    return key_id, secret


def view_project(view: View, project_id: str) -> Row | None:
    """The project with this id."""
    return view.one("SELECT * FROM projects WHERE id = ?", project_id)


def all_keys(view: View) -> list[Row]:
    """Every key with its project's name, the newest first."""
    return view.all(
        "SELECT k.*, p.name AS project FROM api_keys k JOIN projects p ON p.id = k.project_id ORDER BY k.id DESC"
    )


def by_secret(view: View, secret: str, now: int) -> Row | None:
    """The key with this secret, unless it is revoked or has expired."""
    given = hash_secret(secret)
    row = view.one(
        "SELECT * FROM api_keys WHERE hash = ? AND revoked_at IS NULL AND coalesce(expires_at, ?) >= ?",
        given,
        now,
        now,
    )
    return row if row is not None and same_hash(row["hash"], given) else None


def touch(tx: Tx, key_id: str, before: int) -> None:
    """Note that the key is in use, unless that was noted at or after ``before`` (milliseconds since the epoch)."""
    tx.run(
        "UPDATE api_keys SET last_used_at = ? WHERE id = ? AND coalesce(last_used_at, 0) < ?", tx.now, key_id, before
    )
