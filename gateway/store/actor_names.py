"""Display names of actors: what a person reads where an event, a reset or a job names who did it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core import ids
from gateway.runtime.os_user import os_user
from gateway.store import people_sql

if TYPE_CHECKING:
    from gateway.store.transaction import View

CLI: Final = "cli"
"""The actor of what the command line does in the data directory."""


def of(view: View, actor: str) -> str | None:
    """Return the name that this actor has now; None for a device, the gateway, and an unknown key or person.

    A person has the name of the newest sign-in. ``cli`` has the name of this process's user in the operating system.
    """
    if actor == CLI:
        return os_user()
    if actor.startswith(ids.KEY):
        name: str | None = view.value("SELECT name FROM api_keys WHERE id = ?", actor)
        return name
    return people_sql.name_of(view, actor)
