"""SQL of accounts at the broker that are no devices: integrators, which read and never write (contract, section 3).

A password has 200 random bits, like every secret here. The registry keeps its SHA-256, and the salted SHA-512 for
Mosquitto's password file. A revoked account is kept, so that it is also removed from that file.

An account belongs to a project, or reads all projects. A name never changes that, since a broker's file of access rules
goes by names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core.credentials import BROKER_PASSWORD, broker_entry, hash_secret, mint, same_hash
from gateway.errors import ConflictError, InvalidRequestError, NotFoundError
from gateway.store import broker_sql, project_mark_sql
from gateway.store.key_sql import meta, set_meta
from gateway.store.records import columns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.store.transaction import Tx, View

CHANGES: Final = "accounts_changed"
"""A fact that counts the changes. A running gateway notices changes by the command line through it."""
INTEGRATOR: Final = "integrator"
HOME_ASSISTANT: Final = "home_assistant"
KNOWN: Final = (INTEGRATOR, HOME_ASSISTANT)
"""Accounts in Mosquitto's file of access rules as it ships."""
_NAME: Final = re.compile(rf"integrator(_[a-z0-9_]{{1,40}})?|{HOME_ASSISTANT}")
_SALT_BYTES: Final = 12
_CUT: Final = "sessions_cut:"
"""A fact of a broker, with the name of an account: of which password no earlier one has a session left."""


class AccountRecord(NamedTuple):
    """An account at the broker that is no device; times are milliseconds since the epoch.

    ``project_id`` is ``None`` for an account that reads all projects.
    """

    name: str
    hash: bytes
    broker_entry: str
    created_at: int
    revoked_at: int | None
    project_id: str | None

    def __repr__(self) -> str:
        """Return what may be logged."""
        return f"AccountRecord(name={self.name!r}, project_id={self.project_id!r})"


_ACCOUNTS: Final = f"SELECT {columns(AccountRecord, 'a')} FROM broker_accounts a"  # noqa: S608 - our own columns


def may_be_named(name: str) -> bool:
    """Return whether an account that the gateway makes can have this name."""
    return _NAME.fullmatch(name) is not None


def create(tx: Tx, name: str, project_id: str | None = None) -> str:
    """Create an account; return its password, which is shown this once. ``None`` for ``project_id``: it reads all.

    Raises:
        InvalidRequestError: not a valid name, or not one for an account that belongs to a project.
        ConflictError: ``resource_already_exists``, or the name had other rights before.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(
            f"'{name}' should be integrator, integrator_ and then a-z, 0-9 and _, or {HOME_ASSISTANT}: by its name the "
            "broker knows what it may do.",
            details={"field": "name"},
        )
    if name in KNOWN and project_id is not None:
        raise InvalidRequestError(
            f"'{name}' reads all projects at every broker: say so with --all-projects, or choose a name like "
            "integrator_dashboard for an account that reads one project.",
            details={"field": "name"},
        )
    known = find(tx, name)
    if known is not None and known.revoked_at is None:
        raise ConflictError(
            "resource_already_exists",
            f"There is an account '{name}' already. Give it a new password with 'gateway accounts rotate {name}'.",
        )
    if known is not None and known.project_id != project_id:
        raise ConflictError(
            "resource_already_exists",
            f"'{name}' was an account of {known.project_id or 'all projects'}, and a broker may still have its old "
            "rights. Choose another name.",
        )
    before = projects(tx)
    password = _give_password(tx, name, project_id)
    _mark_copies(tx, before)
    return password


def rotate(tx: Tx, name: str) -> str:
    """Give the account another password and return it; the old one is refused at once.

    Raises:
        NotFoundError: there is no such account, or it was revoked.
    """
    return _give_password(tx, name, require(tx, name).project_id)


def revoke(tx: Tx, name: str) -> AccountRecord:
    """Refuse the account from now on.

    Raises:
        NotFoundError: there is no such account, or it was revoked.
    """
    require(tx, name)
    before = projects(tx)
    tx.run("UPDATE broker_accounts SET revoked_at = ? WHERE name = ?", tx.now, name)
    _mark_copies(tx, before)
    _changed(tx)
    return known(tx, name)


def projects(view: View) -> frozenset[str]:
    """Return the projects with an account: their devices' states and events are also published for the project."""
    rows = view.all(
        "SELECT DISTINCT project_id FROM broker_accounts WHERE project_id IS NOT NULL AND revoked_at IS NULL"
    )
    return frozenset(row["project_id"] for row in rows)


def reading_all(view: View) -> list[str]:
    """Return the names of the accounts that read all projects."""
    rows = view.all("SELECT name FROM broker_accounts WHERE project_id IS NULL AND revoked_at IS NULL ORDER BY name")
    return [row["name"] for row in rows]


def _mark_copies(tx: Tx, before: frozenset[str]) -> None:
    """Publish the states of a project for its first account, and clear them after its last."""
    for project_id in projects(tx) ^ before:
        project_mark_sql.begin(tx, project_id)


def _give_password(tx: Tx, name: str, project_id: str | None) -> str:
    password = mint(BROKER_PASSWORD, tx.entropy)
    tx.run(
        """INSERT INTO broker_accounts (name, hash, broker_entry, created_at, project_id) VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (name) DO UPDATE SET hash = excluded.hash, broker_entry = excluded.broker_entry,
            created_at = excluded.created_at, project_id = excluded.project_id, revoked_at = NULL""",
        *(name, hash_secret(password), broker_entry(password, tx.entropy(_SALT_BYTES)), tx.now, project_id),
    )
    broker_sql.forget_everywhere(tx, f"{_CUT}{name}")
    _changed(tx)
    return password


def _changed(tx: Tx) -> None:
    set_meta(tx, CHANGES, str(changes(tx) + 1))


def note_cut(tx: Tx, accounts: Iterable[AccountRecord]) -> None:
    """Note that no session of a password before these is left at this broker."""
    for account in accounts:
        broker_sql.set_fact(tx, tx.context.broker, f"{_CUT}{account.name}", str(account.created_at))


def is_cut(view: View, account: AccountRecord, broker: int) -> bool:
    """Return whether no session of an earlier password is left at this broker."""
    return broker_sql.fact(view, broker, f"{_CUT}{account.name}") == str(account.created_at)


def forget_cuts(tx: Tx) -> None:
    """Forget that sessions of earlier passwords were cut."""
    for account in everyone(tx):
        broker_sql.forget_everywhere(tx, f"{_CUT}{account.name}")


def changes(view: View) -> int:
    """Return how often accounts were changed."""
    return int(meta(view, CHANGES) or 0)


def require(view: View, name: str) -> AccountRecord:
    """Return the account of this name, which is good.

    Raises:
        NotFoundError: there is no such account, or it was revoked.
    """
    account = find(view, name)
    if account is None or account.revoked_at is not None:
        raise NotFoundError(f"There is no account '{name}'. 'gateway accounts list' shows those there are.")
    return account


def is_good(view: View, name: str) -> bool:
    """Return whether this account exists and is not revoked."""
    account = find(view, name)
    return account is not None and account.revoked_at is None


def find(view: View, name: str) -> AccountRecord | None:
    """Return the account of this name, revoked or not."""
    return view.record(AccountRecord, f"{_ACCOUNTS} WHERE a.name = ?", name)


def known(view: View, name: str) -> AccountRecord:
    """Return the account of this name, which must exist, revoked or not."""
    account = find(view, name)
    if account is None:
        raise LookupError(f"no account {name}")
    return account


def everyone(view: View) -> list[AccountRecord]:
    """Return every account, revoked ones too, by name."""
    return view.records(AccountRecord, f"{_ACCOUNTS} ORDER BY a.name")


def opened_by(view: View, name: str, password: str) -> AccountRecord | None:
    """Return the account, if this is its password and it is good."""
    account = find(view, name)
    if account is None or account.revoked_at is not None or not same_hash(account.hash, hash_secret(password)):
        return None
    return account
