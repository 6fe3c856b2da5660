"""The newest that is known of a device, while its heartbeats are taken: what they change, and what of that is news.

It is read once and written once, however many heartbeats of the device one transaction holds.
"""

from __future__ import annotations

from typing import Any, Final

from gateway import model
from gateway.model import Radio
from gateway.store import Row, Tx, events
from gateway.store import health as sql
from gateway.store.history import End

_SHOWN: Final = frozenset(
    {"battery_percent", "storage_used_mb", "storage_total_mb", "signal_strength_dbm", "recording_state"}
)
_SPREAD_MS: Final = 7_919  # a prime, so that neighbours lie far apart
_SAID: Final = tuple((name, "device_state" if name == "recording_state" else name) for name in sql.NEWEST)


class Newest:
    """One device."""

    def __init__(self, tx: Tx, row: Row) -> None:
        self._tx = tx
        self._row = row
        self._last_heartbeat_at: int | None
        connection, self._last_heartbeat_at, self._firmware, low, full, self._threshold = sql.judged(row)
        self._online = connection == "online"
        self.pk: int = row["pk"]
        self.news = False
        """Whether integrators are to be shown the device again."""
        self._radio: Radio | None = None
        self._low_battery, self._storage_full = bool(low), bool(full)
        self._said: dict[str, Any] = dict(zip(sql.NEWEST, sql.newest(row), strict=True))

    def present(self, radio: Radio | None) -> None:
        """It was heard, whatever it said."""
        if not self._online:
            events.record(self._tx, self._row, "device.online", self._row["id"], last_seen_by=radio)
        self.news = self.news or not self._online or self._due_again()
        self._online, self._last_heartbeat_at, self._radio = True, self._tx.now, radio or self._radio

    def _due_again(self) -> bool:
        """Whether this is the first heartbeat in a while: ``last_heartbeat_at`` alone is no news, but must not get old.

        A while begins at another moment for each device, so that a fleet does not tell all at once.
        """
        last, refresh_ms = self._last_heartbeat_at, self._tx.rules.state_refresh_ms
        if last is None or not refresh_ms:
            return True
        if last == self._tx.now:
            return False
        offset = self.pk * _SPREAD_MS % refresh_ms
        return (last + offset) // refresh_ms != (self._tx.now + offset) // refresh_ms

    def says(self, heartbeat: model.Heartbeat) -> None:
        """Take over what it says; what it leaves out stays as it was."""
        before = self._said
        for name, field in _SAID:
            value = getattr(heartbeat, field)
            if value is not None:
                self.news = self.news or (name in _SHOWN and value != before[name])
                before[name] = value
        self._judge(heartbeat)
        if heartbeat.firmware_version is not None and heartbeat.firmware_version != self._firmware:
            self._runs(heartbeat.firmware_version)

    def _judge(self, heartbeat: model.Heartbeat) -> None:
        """A battery or a storage is judged by all that is known of it.

        Or one that is told now by its percentage, now by its flag would seem to recover in between.
        """
        state, flags = self._said["recording_state"], self._said["flags"] or 0
        low = model.low_battery(state, flags, self._said["battery_percent"], self._threshold)
        full = model.storage_full(state, flags)
        if low and not self._low_battery:
            events.record(
                self._tx, self._row, "device.low_battery", self._row["id"], battery_percent=heartbeat.battery_percent
            )
        if full and not self._storage_full:
            events.record(
                self._tx, self._row, "device.storage_full", self._row["id"], storage_used_mb=heartbeat.storage_used_mb
            )
        self._low_battery, self._storage_full = low, full

    def _runs(self, firmware: str) -> None:
        sql.store_firmware(self._tx, self.pk, firmware)
        events.record(self._tx, self._row, "device.updated", self._row["id"], firmware_version=firmware)
        self._firmware = firmware

    def state(self, history: End | None) -> sql.Newest:
        """What to store of it; ``history`` is the new end of its chain, if that has grown."""
        end = history or End(self._row["history_id"], self._row["history_day"])
        return sql.Newest(self.pk, self._radio, self._low_battery, self._storage_full, end, self._said.values())
