"""SQL of the heartbeats that were received during one binding: read and deleted from the newest to the oldest.

The history of a device is a chain (:mod:`gateway.store.heartbeat_sql`). Those of a binding are one piece of it, between
``after_heartbeat`` and ``last_heartbeat``. Of a binding that a migration found neither is known, and its times decide.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.errors import NotFoundError
from gateway.models.fields import MAX_NUMBER
from gateway.store import binding_sql, heartbeat_partition_sql, heartbeat_sql
from gateway.store.binding_sql import NO_HEARTBEAT, BindingRecord
from gateway.store.heartbeat_sql import Period, StoredHeartbeat

if TYPE_CHECKING:
    from gateway.store.transaction import Tx, View

_WALK: Final = """WITH RECURSIVE walk AS (
        SELECT * FROM heartbeats WHERE id = ?1 AND device_pk = ?2 AND id <> ?3
    UNION ALL
        SELECT b.* FROM walk w JOIN heartbeats b ON b.id = w.previous
        WHERE b.device_pk = w.device_pk AND b.id < w.id AND w.previous <> ?3)
    SELECT * FROM walk LIMIT ?4"""
"""Here and below, each condition is one on ``w``: see :data:`gateway.store.heartbeat_sql._WALK`."""
_SUCCESSOR: Final = """WITH RECURSIVE walk AS (
        SELECT id, device_pk, previous FROM heartbeats WHERE id = ?1 AND device_pk = ?2 AND id > ?3
    UNION ALL
        SELECT b.id, b.device_pk, b.previous FROM walk w JOIN heartbeats b ON b.id = w.previous
        WHERE b.device_pk = w.device_pk AND b.id < w.id AND w.previous > ?3)
    SELECT id FROM walk WHERE previous = ?3"""


class _Piece(NamedTuple):
    """The newest heartbeats of a binding: the row numbers of the first, of all, and of the one before them."""

    head: int
    ids: list[int]
    before: int | None


def page(view: View, binding: BindingRecord, *, after: int | None, limit: int) -> list[StoredHeartbeat]:
    """Return a page of them, newest first, after the row ``after``.

    The marks of the binding are read again: where the heartbeats before it were erased, an old mark ends no walk.

    Raises:
        NotFoundError: the binding is gone, or no longer the person's: an erasure was accepted meanwhile.
    """
    now = binding_sql.again(view, binding)
    if now is None:
        raise NotFoundError("The end user is being erased.")
    return _page(view, now, heartbeat_partition_sql.departed(view), after, limit)


def _page(view: View, binding: BindingRecord, above: int, after: int | None, limit: int) -> list[StoredHeartbeat]:
    """Return a page of rows with numbers above this one."""
    if binding.after_heartbeat is None:
        until = MAX_NUMBER if binding.unbound_at is None else binding.unbound_at + 1
        period = Period(binding.bound_at, until)
        pk = binding.device_pk
        return heartbeat_sql.page_above(view, pk, period, above, after=after, limit=limit, every=None)
    start = _newest(view, binding) if after is None else _previous(view, binding.device_pk, after)
    rows = view.records(StoredHeartbeat, _WALK, start, binding.device_pk, binding.after_heartbeat, limit)
    return [row for row in rows if row.id > above]


def delete(tx: Tx, binding: BindingRecord, limit: int) -> int:
    """Delete up to ``limit`` of an ended binding, the newest first, and join the chain again; return how many."""
    return _delete(tx, binding, heartbeat_partition_sql.departed(tx), limit)


def delete_departed(tx: Tx, binding: BindingRecord, limit: int) -> int:
    """Delete those that have left the history and are still in its oldest partition. Delete the others before."""
    return _delete(tx, binding, 0, limit) if tx.dialect.partitioned else 0


def _delete(tx: Tx, binding: BindingRecord, above: int, limit: int) -> int:
    now = binding_sql.again(tx, binding)
    rows = [] if now is None else _page(tx, now, above, None, limit)
    if not rows:
        return 0
    last = rows[-1]
    before = last.previous if last.previous is not None and last.previous < last.id else None
    piece = _Piece(rows[0].id, [row.id for row in rows], before)
    _join(tx, binding.device_pk, piece)
    chosen = json.dumps(piece.ids)
    tx.run(
        f"DELETE FROM history_days WHERE device_pk = ? AND first_id IN ({tx.dialect.numbers})",  # noqa: S608 - a constant
        *(binding.device_pk, chosen),
    )
    return tx.run(f"DELETE FROM heartbeats WHERE id IN ({tx.dialect.numbers})", chosen).rowcount  # noqa: S608 - the same


def _newest(view: View, binding: BindingRecord) -> int | None:
    if binding.unbound_at is not None:
        return binding.last_heartbeat
    newest: int | None = view.value("SELECT history_id FROM health WHERE device_pk = ?", binding.device_pk)
    return newest


def _previous(view: View, device_pk: int, heartbeat_id: int) -> int | None:
    found: int | None = view.value(
        "SELECT previous FROM heartbeats WHERE id = ? AND device_pk = ?", heartbeat_id, device_pk
    )
    return found


def _join(tx: Tx, device_pk: int, piece: _Piece) -> None:
    """Let what named the newest heartbeat of the piece name the one before the piece instead."""
    successor = _successor(tx, device_pk, piece.head)
    if successor is not None:
        tx.run("UPDATE heartbeats SET previous = ? WHERE id = ?", piece.before, successor)
    tx.run(  # the day is marked again by the next heartbeat
        "UPDATE health SET history_id = ?, history_day = NULL WHERE device_pk = ? AND history_id = ?",
        *(piece.before, device_pk, piece.head),
    )
    mark = NO_HEARTBEAT if piece.before is None else piece.before
    tx.run(
        "UPDATE bindings SET after_heartbeat = ? WHERE device_pk = ? AND after_heartbeat = ?",
        *(mark, device_pk, piece.head),
    )
    tx.run(
        "UPDATE bindings SET last_heartbeat = ? WHERE device_pk = ? AND last_heartbeat = ?",
        *(mark, device_pk, piece.head),
    )


def _successor(tx: Tx, device_pk: int, heartbeat_id: int) -> int | None:
    """Return the heartbeat of the device after this one, or None if it is the newest.

    The walk begins at the first heartbeat of the next day, so it passes those of one day at most.
    """
    start: int | None = tx.value(
        "SELECT min(first_id) FROM history_days WHERE device_pk = ? AND first_id > ?", device_pk, heartbeat_id
    )
    if start is None:
        start = tx.value("SELECT history_id FROM health WHERE device_pk = ?", device_pk)
    found: int | None = tx.value(_SUCCESSOR, start, device_pk, heartbeat_id)
    return found
