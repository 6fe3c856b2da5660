"""Credentials that a restore makes good again: they were revoked, or changed, after the copy was made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.store.engine import Row
    from gateway.store.transaction import View


@dataclass(frozen=True)
class Reopened:
    """Each list holds the ``id`` and ``name`` of credentials that are good in the copy, not in the replaced registry.

    ``why`` says what became of it after the copy was made. ``device_tokens`` name the device and its serial number.
    """

    api_keys: list[dict[str, str]] = field(default_factory=list)
    broker_accounts: list[dict[str, str]] = field(default_factory=list)
    device_tokens: list[dict[str, str]] = field(default_factory=list)
    webhooks: list[dict[str, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.api_keys or self.broker_accounts or self.device_tokens or self.webhooks)


def reopened(replaced: View, copy: View) -> Reopened:
    """Compare the registry that is to be replaced with the copy that takes its place.

    Raises:
        sqlite3.Error: one of the two cannot be read.
    """
    return Reopened(
        _api_keys(replaced, copy), _accounts(replaced, copy), _tokens(replaced, copy), _hooks(replaced, copy)
    )


def _fact(row: Row, why: str) -> dict[str, str]:
    return {"id": row["id"], "name": row["name"], "why": why}


def _api_keys(replaced: View, copy: View) -> list[dict[str, str]]:
    now = {row["id"]: row for row in replaced.all("SELECT * FROM api_keys")}
    good = copy.all("SELECT * FROM api_keys WHERE revoked_at IS NULL ORDER BY id")
    return [_fact(row, why) for row in good if (why := _why(row, now.get(row["id"])))]


def _why(before: Row, now: Row | None) -> str | None:
    """Return what closed this credential after the copy was made, or None when nothing did or it is unknown."""
    if now is None:
        return None
    if now["revoked_at"] is not None:
        return "revoked since"
    return "its secret was changed since" if now["hash"] != before["hash"] else None


def _accounts(replaced: View, copy: View) -> list[dict[str, str]]:
    now = {row["id"]: row for row in replaced.all("SELECT name AS id, * FROM broker_accounts")}
    good = copy.all("SELECT name AS id, * FROM broker_accounts WHERE revoked_at IS NULL ORDER BY name")
    return [_fact(row, why) for row in good if (why := _why(row, now.get(row["id"])))]


def _tokens(replaced: View, copy: View) -> list[dict[str, str]]:
    """Return active tokens. A ``reset_only`` one opens its own reset and nothing else."""
    known = {row["id"] for row in replaced.all("SELECT id FROM devices")}
    good_now = {row["hash"] for row in replaced.all("SELECT hash FROM tokens WHERE state = 'active'")}
    rows = copy.all(
        """SELECT DISTINCT d.id, d.serial_number AS name, t.hash FROM tokens t JOIN devices d ON d.pk = t.device_pk
            WHERE t.state = 'active' ORDER BY d.id"""
    )
    return [_fact(row, "revoked since") for row in rows if row["id"] in known and row["hash"] not in good_now]


def _hooks(replaced: View, copy: View) -> list[dict[str, str]]:
    on_now = {row["id"] for row in replaced.all("SELECT id FROM webhooks WHERE enabled = 1")}
    rows = copy.all("SELECT id, url AS name FROM webhooks WHERE enabled = 1 ORDER BY id")
    return [_fact(row, "deleted or switched off since") for row in rows if row["id"] not in on_now]
