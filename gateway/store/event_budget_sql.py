"""SQL of event budgets: how many events of a type one device may cause.

Each event goes into the audit trail and to every webhook and MQTT integrator. A device whose state flaps with every
heartbeat must not cause one each time. Suppressed events are counted, and the next event of the type says how many
there were. Events of a reset, a binding or a command are never suppressed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.core.clock import HOUR_MS
from gateway.core.limits import paid_until
from gateway.store import event_sql, measurements
from gateway.store.row_statement import INTEGER, TEXT, Insertion

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.store.event_sql import NewEvent
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
_BUDGETS: Final = Insertion(
    "event_budgets",
    {"device_pk": INTEGER, "type": TEXT, "paid_until": INTEGER, "suppressed": INTEGER},
    conflict="""ON CONFLICT (device_pk, type) DO UPDATE SET paid_until = excluded.paid_until,
        suppressed = excluded.suppressed""",
)


class _Budget(NamedTuple):
    """What a device has paid for events of a type (milliseconds), and how many were suppressed since the last."""

    paid: int = 0
    suppressed: int = 0


class Budgets:
    """Budgets of some devices within one transaction, and the events that they pay.

    What concerns many devices takes a few statements: :meth:`store` writes all of it. Until then the registry is as it
    was, and no other code may record events of these devices.
    """

    def __init__(self, tx: Tx, device_pks: Iterable[int] = ()) -> None:
        self._tx = tx
        self._expected: Iterable[int] = device_pks
        self._read: set[int] = set()
        self._known: dict[tuple[int, str], _Budget] = {}
        self._changed: dict[tuple[int, str], _Budget] = {}
        self._events: list[NewEvent] = []

    @property
    def has_changed(self) -> bool:
        """Return whether :meth:`store` has anything to write."""
        return bool(self._changed or self._events)

    def expect(self, device_pks: Iterable[int]) -> None:
        """Read the budgets of these devices together, once one of them is asked for."""
        self._expected = {*self._expected, *device_pks}

    def record(self, device: DeviceKey, kind: str, actor: str, **facts: Any) -> bool:
        """Record an event that this device caused; return False when its budget is used up: it was suppressed."""
        if self._recorded(device, kind, actor, facts, known=0):
            return True
        self.suppress(device.pk, kind)
        return False

    def make_up(self, device: DeviceKey, kind: str, actor: str, **facts: Any) -> bool:
        """Record a suppressed condition that still holds, once the budget has room; return whether it was."""
        return self._recorded(device, kind, actor, facts, known=1)

    def suppress(self, device_pk: int, kind: str) -> None:
        """Count an event that is not recorded."""
        self._tx.measure(measurements.EVENT_SUPPRESSED, kind)
        paid, suppressed = self._of(device_pk, kind)
        self._set(device_pk, kind, _Budget(paid, suppressed + 1))

    def store(self) -> None:
        """Write what has changed, and the events in their order."""
        if not self.has_changed:
            return
        self._tx.run_rows(_BUDGETS, [(*key, *budget) for key, budget in self._changed.items()])
        event_sql.insert(self._tx, self._events)
        self._changed.clear()
        self._events.clear()

    def _recorded(self, device: DeviceKey, kind: str, actor: str, facts: dict[str, Any], *, known: int) -> bool:
        """Record if the budget allows it. ``known`` is the number of suppressed events that this one includes."""
        tx, (paid, suppressed) = self._tx, self._of(device.pk, kind)
        if tx.rules.device_events_per_hour:
            paid = _paid_after(paid, tx.now, HOUR_MS // tx.rules.device_events_per_hour)
            if paid > tx.now:
                return False
            self._set(device.pk, kind, _Budget(paid))
        elif suppressed:
            self._set(device.pk, kind, _Budget())
        if suppressed > known:
            facts["suppressed"] = suppressed - known
        self._events.append(event_sql.of_device(tx, device, kind, actor, **facts))
        return True

    def _of(self, device_pk: int, kind: str) -> _Budget:
        if device_pk not in self._read:
            wanted = {*self._expected, device_pk} - self._read  # most batches ask for none
            self._known |= _stored(self._tx, wanted)
            self._expected = ()
            self._read |= wanted
        return self._known.get((device_pk, kind), _Budget())

    def _set(self, device_pk: int, kind: str, budget: _Budget) -> None:
        self._known[device_pk, kind] = self._changed[device_pk, kind] = budget


def record(tx: Tx, device: DeviceKey, kind: str, actor: str, **facts: Any) -> bool:
    """Record an event that this device caused; return False when its budget is used up and the event was suppressed."""
    budgets = Budgets(tx)
    told = budgets.record(device, kind, actor, **facts)
    budgets.store()
    return told


def make_up(tx: Tx, device: DeviceKey, kind: str, actor: str, **facts: Any) -> bool:
    """Record a suppressed condition that still holds, once the budget has room; return whether it was."""
    budgets = Budgets(tx)
    told = budgets.make_up(device, kind, actor, **facts)
    budgets.store()
    return told


def suppress(tx: Tx, device_pk: int, kind: str) -> None:
    """Count an event that is not recorded."""
    budgets = Budgets(tx)
    budgets.suppress(device_pk, kind)
    budgets.store()


def owes(view: View, device_pk: int, kind: str) -> bool:
    """Return whether the last event of this type was suppressed."""
    return _stored(view, {device_pk}).get((device_pk, kind), _Budget()).suppressed > 0


def _stored(view: View, device_pks: set[int]) -> dict[tuple[int, str], _Budget]:
    rows = view.all(
        f"""SELECT device_pk, type, paid_until, suppressed FROM event_budgets
            WHERE device_pk IN ({view.dialect.numbers})""",  # noqa: S608 - a constant
        json.dumps(list(device_pks)),
    )
    return {(device_pk, kind): _Budget(paid, suppressed) for device_pk, kind, paid, suppressed in rows}


def _paid_after(paid: int, now: int, each: int) -> int:
    """Return the time up to which the device has paid (the generic cell rate algorithm, ITU-T I.371).

    A time in the future means that the clock was set back, which costs no device anything.
    """
    return paid_until(0 if paid > now else paid, now, each, SAVED_HOURS * HOUR_MS)
