"""Display names of actors: what a person reads where an event, a reset or a job names who did it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core import ids
from gateway.core.redaction import redact
from gateway.runtime.os_user import os_user
from gateway.store import people_sql

if TYPE_CHECKING:
    from gateway.store.transaction import Tx

CLI: Final = "cli"
"""The actor of what the command line does in the data directory."""


def of(tx: Tx, actor: str) -> str | None:
    """Return the name for what is written now, secrets redacted; None for a device, the gateway, and an unknown actor.

    A key and a person have the name of now, ``cli`` that of this process's user in the operating system. What a gateway
    does for them later has the name of the request, from ``tx.actor_names``.
    """
    if actor not in tx.actor_names:  # one look-up for all events of a transaction
        tx.actor_names[actor] = _now(tx, actor)
    name = tx.actor_names[actor]
    return None if name is None else redact(name)


def _now(tx: Tx, actor: str) -> str | None:
    if actor == CLI:
        return None if tx.context.serves else os_user()
    if actor.startswith(ids.KEY):
        name: str | None = tx.value("SELECT name FROM api_keys WHERE id = ?", actor)
        return name
    return people_sql.name_of(tx, actor)


def lasting(tx: Tx, actor: str) -> str | None:
    """Return the name for what is never erased, a certificate for example: none that holds the id of an end user."""
    name = of(tx, actor)
    return None if name is None or ids.END_USER in name else name
