"""SQL of bindings: which end user had which device when. A row is written at each bind and completed at its end.

A binding names its first and its last event, and the heartbeats around it. The history of a device is a chain that
only a bound device's heartbeats enter. So what belongs to a person is found whatever the clock said at the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.store import short_ids
from gateway.store.records import columns

if TYPE_CHECKING:
    from gateway.store.transaction import Tx, View

NO_HEARTBEAT: Final = 0
"""No heartbeat is before the binding, or none is left. Row numbers of heartbeats begin at 1."""


class BindingRecord(NamedTuple):
    """A binding with the id of its device; times are milliseconds since the epoch.

    ``unbound_at``, ``last_event`` and ``last_heartbeat`` are null while the device is bound. ``after_heartbeat`` is the
    newest heartbeat of the device before the binding. It is null where a migration found the binding; what belongs to
    that one goes by time. ``last_heartbeat`` is null where such a binding had ended by then, too.
    """

    device_pk: int
    generation: int
    project_id: str
    end_user_id: str
    bound_at: int
    unbound_at: int | None
    first_event: int
    last_event: int | None
    after_heartbeat: int | None
    last_heartbeat: int | None
    device_id: str


_BINDINGS: Final = f"""SELECT {columns(BindingRecord, "b", device_id="d.id")}
    FROM bindings b JOIN devices d ON d.pk = b.device_pk"""  # noqa: S608 - our own columns

_NEWEST_EVENT: Final = "(SELECT max(seq) FROM events)"


def begin(tx: Tx, device_pk: int) -> None:
    """Record the binding of a device that was just bound. Its first event is the newest one, which tells that."""
    tx.run(
        f"""INSERT INTO bindings (device_pk, generation, project_id, end_user_id, bound_at, first_event,
            after_heartbeat)
            SELECT d.pk, d.binding_generation, d.project_id, d.end_user_id, d.bound_at, {_NEWEST_EVENT},
            coalesce(h.history_id, ?) FROM devices d LEFT JOIN health h ON h.device_pk = d.pk WHERE d.pk = ?""",  # noqa: S608 - a constant
        *(NO_HEARTBEAT, device_pk),
    )


def end(tx: Tx, device_pk: int) -> None:
    """Complete the binding of a device that was just unbound. Its last event is the newest one, which tells that."""
    tx.run(
        f"""UPDATE bindings SET unbound_at = ?, last_event = {_NEWEST_EVENT},
            last_heartbeat = coalesce((SELECT history_id FROM health WHERE health.device_pk = bindings.device_pk), ?)
            WHERE device_pk = ? AND unbound_at IS NULL""",  # noqa: S608 - a constant
        *(tx.now, NO_HEARTBEAT, device_pk),
    )


def again(view: View, binding: BindingRecord) -> BindingRecord | None:
    """Return a binding as it is now: an erasure of another person moves its marks, one of the same deletes it."""
    return view.record(
        BindingRecord,
        f"{_BINDINGS} WHERE b.device_pk = ? AND b.generation = ? AND b.end_user_id = ?",
        *(binding.device_pk, binding.generation, binding.end_user_id),
    )


def of_person(view: View, project_id: str, end_user_id: str) -> list[BindingRecord]:
    """Return the bindings of this end user in this project, oldest first."""
    return view.records(
        BindingRecord,
        f"""{_BINDINGS} WHERE {short_ids.same(view.dialect, "b.project_id", "?1")} AND b.end_user_id = ?2
            ORDER BY b.bound_at, b.device_pk, b.generation""",
        *(project_id, end_user_id),
    )


def prune(tx: Tx, before: int, limit: int) -> int:
    """Delete up to ``limit`` bindings that ended before then; return how many."""
    return tx.run(
        """DELETE FROM bindings WHERE (device_pk, generation) IN (SELECT device_pk, generation FROM bindings
            WHERE unbound_at IS NOT NULL AND unbound_at < ? ORDER BY unbound_at LIMIT ?)""",
        *(before, limit),
    ).rowcount
