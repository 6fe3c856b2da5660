"""SQL that marks the devices of a project that has got its first integrator, or has lost its last.

Their states are then published once more for the project, or cleared. That is a piece of the fleet at a time. The
account is created or revoked in one transaction with the first piece. No device depends on another one here, and each
is published as it is when its row is handled. So the pieces need not be atomic.

Until the last piece, the project counts as one with an integrator. A device that is deleted or moved before its turn is
then marked by that change, and what it left at a broker is cleared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.store import key_sql, short_ids
from gateway.store.outbox_sql import MARKS, PROJECT_STATE, mark_listed

if TYPE_CHECKING:
    from gateway.store.transaction import Tx, View

AT_ONCE: Final = 1_000
"""Devices of one transaction."""
_UNDER_WAY: Final = f"SELECT key, value FROM meta WHERE substr(key, 1, {len(MARKS)}) = '{MARKS}' ORDER BY key LIMIT 1"  # noqa: S608 - constants


def begin(tx: Tx, project_id: str) -> None:
    """Mark the first devices of the project; :func:`go_on` marks the others."""
    _mark(tx, project_id, 0)


def is_under_way(view: View) -> bool:
    """Return whether devices of some project are still to be marked."""
    return view.one(_UNDER_WAY) is not None


def go_on(tx: Tx) -> int:
    """Mark up to AT_ONCE more devices of one project; return how many."""
    row = tx.one(_UNDER_WAY)
    return 0 if row is None else _mark(tx, row["key"].removeprefix(MARKS), int(row["value"]))


def _mark(tx: Tx, project_id: str, after: int) -> int:
    pks = page(tx, project_id, after, AT_ONCE)
    mark_listed(tx, PROJECT_STATE, pks, None)
    if len(pks) == AT_ONCE:
        key_sql.set_meta(tx, f"{MARKS}{project_id}", str(pks[-1]))
    else:
        key_sql.forget_meta(tx, f"{MARKS}{project_id}")
    return len(pks)


def page(view: View, project_id: str, after: int, limit: int) -> list[int]:
    """Return the row numbers of devices of the project after this one, at most so many."""
    rows = view.all(
        f"""SELECT pk FROM devices WHERE {short_ids.same(view.dialect, "project_id", "?1")} AND deleted_at IS NULL
            AND pk > ?2 ORDER BY pk LIMIT ?3""",  # noqa: S608 - constants
        *(project_id, after, limit),
    )
    return [row["pk"] for row in rows]
