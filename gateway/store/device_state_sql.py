"""Index of devices by their state, within a project: ``device_states``.

Each device that is not deleted has a row for its presence, and one for each condition of its health. The primary key
gives the devices of a state in the order of their registration. Triggers of both engines keep the rows in the
transaction of each change (schema step 51). So code that writes a device or its health has nothing to do for them.

The project is its short form (:mod:`gateway.store.short_ids`). So a row may be of another project.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from gateway.store import short_ids
from gateway.store.migrations.steps_051_to_060 import FILL_STATES, STATES

if TYPE_CHECKING:
    from gateway.models.devices import ListDevices
    from gateway.store.transaction import Tx, View


class State(enum.IntEnum):
    """States of devices, as the column ``state`` has them. One of the first three is the presence of a device."""

    UNSEEN = 0
    SILENT = 1
    ONLINE = 2
    LOW_BATTERY = 3
    STORAGE_FULL = 4


PRESENCE: Final = frozenset({State.UNSEEN, State.SILENT, State.ONLINE})
IN_STATE: Final = f"s.project = {short_ids.short('project_id', '?')} AND s.state = ?"
"""The row ``s`` is of a state and a project; the values are the id of the project and the state."""
_CONDITIONS: Final = {"low_battery": State.LOW_BATTERY, "storage_full": State.STORAGE_FULL}
_WITH_CONNECTION: Final = {
    None: PRESENCE,
    "online": frozenset({State.ONLINE}),
    "offline": frozenset({State.SILENT, State.UNSEEN}),
}
_SEEN: Final = {None: PRESENCE, False: frozenset({State.UNSEEN}), True: frozenset({State.SILENT, State.ONLINE})}


def presence(query: ListDevices) -> frozenset[State]:
    """Return the states of presence that pass the filters; each listed device has one of them."""
    passing = _WITH_CONNECTION[query.connection] & _SEEN[query.seen]
    return passing - {State.UNSEEN} if query.condition in _CONDITIONS else passing


def filters(query: ListDevices) -> list[frozenset[State]]:
    """Return sets of states; a listed device has a state of each."""
    condition = _CONDITIONS.get(query.condition or "")
    found = [] if condition is None else [frozenset({condition})]
    if query.connection is not None or query.seen is not None:
        found.append(presence(query))
    return found


def only(query: ListDevices) -> State | None:
    """Return a state that every listed device has, that of a condition if there is one; None without any."""
    return next((state for states in filters(query) if len(states) == 1 for state in states), None)


def some(view: View, project_id: str, states: frozenset[State], most: int) -> list[int]:
    """Return row numbers of devices with one of these states, at most ``most``."""
    found: list[int] = []
    for state in sorted(states):
        if len(found) < most:
            rows = view.all(
                f"SELECT s.device_pk FROM device_states s WHERE {IN_STATE} ORDER BY s.device_pk LIMIT ?",  # noqa: S608 - constants
                *(project_id, state, most - len(found)),
            )
            found += [row[0] for row in rows]
    return found


def rebuild(tx: Tx) -> None:
    """Store the states of all devices again."""
    tx.run("DELETE FROM device_states")
    tx.run(FILL_STATES)


def differing(view: View) -> list[str]:
    """Return the projects whose rows are not the states of their devices, in order. It reads every device."""
    stored = {row[0]: row[1] for row in view.all("SELECT project, count(*) FROM device_states GROUP BY project")}
    right = {
        row[0]: (row[1], row[2])
        for row in view.all(
            f"""SELECT r.project, count(*), count(s.device_pk) FROM ({STATES}) r LEFT JOIN device_states s
                ON s.project = r.project AND s.state = r.state AND s.device_pk = r.device_pk GROUP BY r.project"""  # noqa: S608 - constants
        )
    }
    wrong = {
        short
        for short in stored.keys() | right.keys()
        if right.get(short, (0, 0)) != (stored.get(short, 0), stored.get(short, 0))
    }
    named = view.all(f"SELECT id, {short_ids.short('project_id', 'id')} FROM projects ORDER BY id")  # noqa: S608 - the same
    return [row[0] for row in named if row[1] in wrong]
