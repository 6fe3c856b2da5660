"""SQL of the salts that make pseudonyms of end users."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.store.transaction import Tx


def insert_salt(tx: Tx, project_id: str, end_user_id: str, new: bytes) -> None:
    """Insert the salt of a person who has none."""
    tx.run("INSERT INTO end_user_salts (project_id, end_user_id, salt) VALUES (?, ?, ?)", project_id, end_user_id, new)
    tx.new_salts[project_id, end_user_id] = new


def forget_salt(tx: Tx, project_id: str, end_user_id: str) -> bool:
    """Delete the salt, so that nothing resolves the pseudonym any more; return whether there was one."""
    tx.new_salts.pop((project_id, end_user_id), None)
    return (
        tx.run("DELETE FROM end_user_salts WHERE project_id = ? AND end_user_id = ?", project_id, end_user_id).rowcount
        == 1
    )
