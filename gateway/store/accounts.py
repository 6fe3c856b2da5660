"""SQL of accounts at the broker that are no devices: integrators, who read and write nothing (contract, section 3).

A password has 200 random bits, like every secret here: one SHA-256 of it is kept, and the salted SHA-512 that
Mosquitto's password file holds. One that is revoked is kept, so that it is also taken out of that file.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gateway.credentials import BROKER_PASSWORD, broker_entry, hash_secret, mint, same_hash
from gateway.errors import ConflictError, InvalidRequestError, NotFoundError
from gateway.store.keys import meta, set_meta

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.store.database import Row, Tx, View

CHANGES: Final = "accounts_changed"
"""A fact that counts the changes: a gateway that runs notices by it what the command line has done."""
INTEGRATOR: Final = "integrator"
HOME_ASSISTANT: Final = "home_assistant"
KNOWN: Final = (INTEGRATOR, HOME_ASSISTANT)
"""What Mosquitto's file of rights knows as it ships."""
_NAME: Final = re.compile(rf"integrator(_[a-z0-9_]{{1,40}})?|{HOME_ASSISTANT}")
_SALT_BYTES: Final = 12


def may_be_named(name: str) -> bool:
    """Return whether an account that the gateway makes can have this name."""
    return _NAME.fullmatch(name) is not None


def create(tx: Tx, name: str) -> str:
    """A new account; its password, which is shown this once.

    Raises:
        InvalidRequestError: not a name that integrators have.
        ConflictError: ``resource_already_exists``.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(
            f"'{name}' should be integrator, integrator_ and then a-z, 0-9 and _, or {HOME_ASSISTANT}: by its name the "
            "broker knows what it may do.",
            details={"field": "name"},
        )
    known = find(tx, name)
    if known is not None and known["revoked_at"] is None:
        raise ConflictError(
            "resource_already_exists",
            f"There is an account '{name}' already. Give it a new password with 'gateway accounts rotate {name}'.",
        )
    return _give_password(tx, name)


def rotate(tx: Tx, name: str) -> str:
    """Another password for the account, shown this once; the old one is refused at once.

    Raises:
        NotFoundError: there is no such account, or it was revoked.
    """
    require(tx, name)
    return _give_password(tx, name)


def revoke(tx: Tx, name: str) -> Row:
    """Refuse the account from now on.

    Raises:
        NotFoundError: there is no such account, or it was revoked.
    """
    require(tx, name)
    tx.run("UPDATE broker_accounts SET revoked_at = ? WHERE name = ?", tx.now, name)
    _changed(tx)
    row = find(tx, name)
    assert row is not None
    return row


def _give_password(tx: Tx, name: str) -> str:
    password = mint(BROKER_PASSWORD, tx.entropy)
    tx.run(
        """INSERT OR REPLACE INTO broker_accounts (name, hash, broker_entry, created_at) VALUES (?, ?, ?, ?)""",
        *(name, hash_secret(password), broker_entry(password, tx.entropy(_SALT_BYTES)), tx.now),
    )
    _changed(tx)
    return password


def _changed(tx: Tx) -> None:
    set_meta(tx, CHANGES, str(changes(tx) + 1))


def note_cut(tx: Tx, rows: Iterable[Row]) -> None:
    """No session of an earlier password of these accounts is left, unless they were given another one meanwhile."""
    for row in rows:
        tx.run(
            "UPDATE broker_accounts SET old_sessions_cut = 1 WHERE name = ? AND created_at = ?",
            *(row["name"], row["created_at"]),
        )


def changes(view: View) -> int:
    """How often accounts were changed."""
    return int(meta(view, CHANGES) or 0)


def require(view: View, name: str) -> Row:
    """The account of this name, which is good.

    Raises:
        NotFoundError: there is none.
    """
    row = find(view, name)
    if row is None or row["revoked_at"] is not None:
        raise NotFoundError(f"There is no account '{name}'. 'gateway accounts list' shows those there are.")
    return row


def is_good(view: View, name: str) -> bool:
    """Whether there is such an account, not revoked."""
    row = find(view, name)
    return row is not None and row["revoked_at"] is None


def find(view: View, name: str) -> Row | None:
    """The account of this name, revoked or not."""
    return view.one("SELECT * FROM broker_accounts WHERE name = ?", name)


def everyone(view: View) -> list[Row]:
    """Every account, revoked ones too, by name."""
    return view.all("SELECT * FROM broker_accounts ORDER BY name")


def opened_by(view: View, name: str, password: str) -> Row | None:
    """The account, if this is its password and it is good."""
    row = find(view, name)
    if row is None or row["revoked_at"] is not None or not same_hash(row["hash"], hash_secret(password)):
        return None
    return row
