"""SQL of event budgets: how many events of a type one device may cause.

Each event goes into the audit trail and to every webhook and MQTT integrator. A device whose state flaps with every
heartbeat must not cause one each time. Suppressed events are counted, and the next event of the type says how many
there were. Events of a reset, a binding or a command are never suppressed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gateway.core.clock import HOUR_MS
from gateway.core.limits import paid_until
from gateway.store import event_sql, measurements

if TYPE_CHECKING:
    from gateway.store.records import DeviceKey
    from gateway.store.transaction import Tx, View

SAVED_HOURS: Final = 2
"""Unused budget is saved, up to that of so many hours."""
SUPPRESSIBLE: Final = (
    "acknowledgement.refused",
    "device.low_battery",
    "device.online",
    "device.storage_full",
    "device.updated",
)
"""Types with a budget. An ``offline`` is suppressed together with its ``online``."""


def record(tx: Tx, device: DeviceKey, kind: str, actor: str, **facts: Any) -> bool:
    """Record an event that this device caused; return False when its budget is used up and the event was suppressed."""
    if _recorded(tx, device, kind, actor, facts, known=0):
        return True
    suppress(tx, device.pk, kind)
    return False


def make_up(tx: Tx, device: DeviceKey, kind: str, actor: str, **facts: Any) -> bool:
    """Record a suppressed condition that still holds, once the budget has room; return whether it was."""
    return _recorded(tx, device, kind, actor, facts, known=1)


def suppress(tx: Tx, device_pk: int, kind: str) -> None:
    """Count an event that is not recorded."""
    tx.measure(measurements.EVENT_SUPPRESSED, kind)
    tx.run(
        """INSERT INTO event_budgets (device_pk, type, paid_until, suppressed) VALUES (?, ?, 0, 1)
            ON CONFLICT (device_pk, type) DO UPDATE SET suppressed = event_budgets.suppressed + 1""",
        *(device_pk, kind),
    )


def owes(view: View, device_pk: int, kind: str) -> bool:
    """Return whether the last event of this type was suppressed."""
    return _of(view, device_pk, kind)[1] > 0


def _recorded(tx: Tx, device: DeviceKey, kind: str, actor: str, facts: dict[str, Any], *, known: int) -> bool:
    """Record if the budget allows it. ``known`` is the number of suppressed events that this one includes."""
    paid, suppressed = _of(tx, device.pk, kind)
    if tx.rules.device_events_per_hour:
        paid = _paid_after(paid, tx.now, HOUR_MS // tx.rules.device_events_per_hour)
        if paid > tx.now:
            return False
        _store(tx, device.pk, kind, paid)
    elif suppressed:
        _store(tx, device.pk, kind, 0)
    if suppressed > known:
        facts["suppressed"] = suppressed - known
    event_sql.record(tx, device, kind, actor, **facts)
    return True


def _paid_after(paid: int, now: int, each: int) -> int:
    """Return the time up to which the device has paid (the generic cell rate algorithm, ITU-T I.371).

    A time in the future means that the clock was set back, which costs no device anything.
    """
    return paid_until(0 if paid > now else paid, now, each, SAVED_HOURS * HOUR_MS)


def _of(view: View, device_pk: int, kind: str) -> tuple[int, int]:
    row = view.one("SELECT paid_until, suppressed FROM event_budgets WHERE device_pk = ? AND type = ?", device_pk, kind)
    return (0, 0) if row is None else (row["paid_until"], row["suppressed"])


def _store(tx: Tx, device_pk: int, kind: str, paid: int) -> None:
    tx.run(
        """INSERT INTO event_budgets (device_pk, type, paid_until) VALUES (?1, ?2, ?3)
            ON CONFLICT (device_pk, type) DO UPDATE SET paid_until = ?3, suppressed = 0""",
        *(device_pk, kind, paid),
    )
