"""History of heartbeats of a large registry, on either engine: rows and marks as the gateway writes them.

The devices send in turn. All heartbeats were received on the day before, so PostgreSQL has them in one partition, and
the next heartbeat begins another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench.bulk import Progress, disk_bytes, insert
from bench.load import FIRST_SENT_AT
from gateway.core.clock import DAY_MS, from_datetime
from gateway.store import Context, Tx, View, transact

if TYPE_CHECKING:
    from gateway.store.engine import DatabaseConnection

_BATCH: Final = 2_000
_TOGETHER: Final = 500 * _BATCH
"""Rows of a transaction."""
_SAID: Final = (50, 512, 8192, -61, "1.4.2+bench", "idle", 3, 8, "wifi")
_HEARTBEATS: Final = (
    *("id", "previous", "device_pk", "received_at", "sent_at"),
    *("battery_percent", "storage_used_mb", "storage_total_mb", "signal_strength_dbm", "firmware_version"),
    *("device_state", "pending_recordings", "flags", "radio"),
)
_DAYS: Final = ("device_pk", "day", "first_id")
MARKS: Final = ("history_id", "history_day", "history_sent_at")
"""Columns of ``health``. SQLite has no use for the last one."""


@dataclass(frozen=True)
class History:
    """Numbers and times of the heartbeats: ``each`` of so many devices. ``now``: milliseconds since the epoch."""

    devices: int
    each: int
    now: int

    @property
    def rows(self) -> int:
        """Return how many heartbeats there are. Their numbers are 1 to this."""
        return self.devices * self.each

    @property
    def day(self) -> int:
        """Return the day on which all were received."""
        return self.now // DAY_MS - 1

    def sent_at(self, number: int) -> int:
        """Return when a heartbeat was sent, before those of :mod:`bench.load`."""
        return from_datetime(FIRST_SENT_AT) - self.rows + number - 1

    def marks(self, turn: int) -> tuple[int, int, int] | tuple[None, None, None]:
        """Return :data:`MARKS` of the device with this turn, counted from 0."""
        if not self.each:
            return None, None, None
        last = self.rows - self.devices + turn + 1
        return last, self.day, self.sent_at(last)

    def row(self, number: int, device_pk: int) -> tuple[object, ...]:
        """Return the row of a heartbeat."""
        previous = number - self.devices if number > self.devices else None
        received_at = self.day * DAY_MS + number * DAY_MS // (self.rows + 1)
        return (number, previous, device_pk, received_at, self.sent_at(number), *_SAID)


def fill(connection: DatabaseConnection, history: History, device_pks: Sequence[int], progress: Progress) -> int:
    """Add the rows of the heartbeats, whose devices have their marks already; return the bytes that they take on disk.

    The mark of each device and day is added afterwards. Here it stands for a few heartbeats, on a real day for many.
    """
    before = disk_bytes(View(connection))
    for first in range(1, history.rows + 1, _TOGETHER):
        numbers = range(first, min(first + _TOGETHER, history.rows + 1))
        transact(connection, Context(), lambda tx: _write(tx, history, device_pks, numbers))  # noqa: B023 - called here
        progress("heartbeats", numbers[-1], history.rows)
    grown = disk_bytes(View(connection)) - before
    if history.rows:
        transact(connection, Context(), lambda tx: _finish(tx, history, device_pks))
    return grown


def _write(tx: Tx, history: History, device_pks: Sequence[int], numbers: range) -> None:
    tx.connection.take_time()
    for first in range(numbers.start, numbers.stop, _BATCH):
        some = range(first, min(first + _BATCH, numbers.stop))
        insert(tx, "heartbeats", _HEARTBEATS, [history.row(i, device_pks[(i - 1) % history.devices]) for i in some])


def _finish(tx: Tx, history: History, device_pks: Sequence[int]) -> None:
    tx.connection.take_time()
    days = [(pk, history.day, number) for number, pk in enumerate(device_pks, 1)]
    for first in range(0, len(days), _BATCH):
        insert(tx, "history_days", _DAYS, days[first : first + _BATCH])
    if tx.dialect.partitioned:
        tx.run("SELECT setval('heartbeats_id_seq', ?)", history.rows // 1_000 + 1)
