"""SQL of sessions at brokers that authenticate through the gateway: the last credential of each client id.

A broker keeps one session per client id, and a new one takes over the old one. So the credential admitted last under a
client id is the session's. A device's credential is its token, an integrator's the time of its password.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from gateway.core import ids
from gateway.models.fields import MAX_NUMBER
from gateway.store import account_sql
from gateway.store.broker_sql import FIRST, serves

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.store.transaction import Tx, View

MOST_CLIENTS: Final = 1_000
"""Number of clients kept per integrator, those admitted last. Others count as unknown."""


def credential_of(view: View, client_id: str, broker: int = FIRST) -> int | None:
    """Return the credential of this session at this broker, or None when it is not known."""
    found: int | None = view.value(
        "SELECT credential FROM broker_sessions WHERE broker_pk = ? AND client_id = ?", broker, client_id
    )
    return found


def note(tx: Tx, client_id: str, username: str, credential: int) -> bool:
    """Record this credential for the client, if it is still good; return whether it is."""
    broker = tx.context.broker
    if not is_good(tx, username, credential, broker):
        return False
    tx.run(
        """INSERT INTO broker_sessions (broker_pk, client_id, username, credential, let_in_at) VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (broker_pk, client_id) DO UPDATE SET username = excluded.username,
            credential = excluded.credential, let_in_at = excluded.let_in_at""",
        *(broker, client_id, username, credential, tx.now),
    )
    tx.run(
        """DELETE FROM broker_sessions WHERE broker_pk = ?5 AND username = ?1
            AND client_id IN (SELECT client_id FROM broker_sessions WHERE broker_pk = ?5 AND username = ?1
                ORDER BY let_in_at DESC, client_id <> ?2 LIMIT ?4 OFFSET ?3)""",
        *(username, client_id, MOST_CLIENTS, MAX_NUMBER, broker),
    )
    return True


def is_good(view: View, username: str, credential: int | None, broker: int = FIRST) -> bool:
    """Return whether a session of this user that this broker admitted with this credential still has its rights.

    An integrator's unknown session has them once all sessions of earlier passwords were cut.
    """
    if ids.is_id(ids.DEVICE, username):
        return credential is not None and _is_live(view, username, credential, broker)
    account = account_sql.find(view, username)
    return account is not None and not is_old(view, account, credential, broker)


def is_old(view: View, account: account_sql.AccountRecord, credential: int | None, broker: int) -> bool:
    """Return whether this session may have begun with another password than the account's present one."""
    if account.revoked_at is not None:
        return True
    return not account_sql.is_cut(view, account, broker) if credential is None else credential != account.created_at


def good_sessions(view: View, broker: int, device_ids: Collection[str]) -> dict[str, int]:
    """Return the token of each of these devices whose session there began with a token that is not revoked.

    That holds for devices that this broker serves.
    """
    rows = view.all(
        f"""SELECT d.id, t.id AS token FROM broker_sessions s
            JOIN tokens t ON t.id = s.credential JOIN devices d ON d.pk = t.device_pk AND d.id = s.client_id
            WHERE s.broker_pk = ? AND s.client_id IN ({view.dialect.names}) AND d.deleted_at IS NULL
            AND t.state <> 'revoked' AND {serves("d.pk", "s.broker_pk")}""",  # noqa: S608 - constants
        *(broker, json.dumps(list(device_ids))),
    )
    return {row["id"]: row["token"] for row in rows}


def forget_all(tx: Tx) -> None:
    """Forget every session: those admitted after a registry's copy was made are not in the copy."""
    tx.run("DELETE FROM broker_sessions")
    account_sql.forget_cuts(tx)


def _is_live(view: View, device_id: str, token_id: int, broker: int) -> bool:
    found = view.one(
        f"""SELECT 1 FROM tokens t JOIN devices d ON d.pk = t.device_pk WHERE t.id = ? AND d.id = ?
            AND d.deleted_at IS NULL AND t.state <> 'revoked' AND {serves("d.pk", "?")}""",  # noqa: S608 - a constant
        *(token_id, device_id, broker),
    )
    return found is not None
