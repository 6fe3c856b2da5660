"""Cache of device state between the writer's transactions, valid while nothing else writes the registry.

A heartbeat is judged by what the registry knows of its device, and most of that was written by the heartbeat before.
Reading it again costs as much as storing it, so it stays in memory between transactions. Two counters of SQLite show
whether anything else was written meanwhile, by this connection (``total_changes``) or by another process (``PRAGMA
data_version``). Then all of it is forgotten. A roll-back calls :meth:`DeviceCache.forget`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable


MOST: Final = 16_384
"""Maximum number of cached devices: about 12 MB."""


_NOTHING: Final = frozenset[str]()
_RESET_ONLY: Final = "reset_only"


class DeviceState:
    """The state of a device that a heartbeat is judged by and changes."""

    __slots__ = (
        "firmware", "history_day", "history_id", "id", "last_heartbeat_at", "links", "low_battery", "news", "online",
        "owed", "pk", "radio", "row", "said", "storage_full", "tells", "threshold", "token_state",
    )  # fmt: skip

    def __init__(self, row: sqlite3.Row) -> None:
        self.row = row
        (self.id, self.pk, _, _, bound_at, self.firmware, self.token_state, self.history_id, self.history_day, links,
         connection, self.last_heartbeat_at, low, full, owed, self.threshold, *said) = row  # fmt: skip
        self.online = connection == "online"
        self.tells = bound_at is not None and self.token_state != _RESET_ONLY
        """Whether its reports are stored. Of a device that belongs to no user only its presence is."""
        self.low_battery, self.storage_full = bool(low), bool(full)
        self.owed: frozenset[str] = frozenset(owed.split(",")) if owed else _NOTHING
        """Types of events of which the last was suppressed."""
        self.said: tuple[Any, ...] = tuple(said)
        """A value for each of :data:`gateway.store.health_sql.NEWEST`, in order."""
        self.links: str | None = links
        """``connection_type`` as the device reported it last, its members joined by commas."""
        self.radio: str | None = None
        """The link of its messages since this was read."""
        self.news = False
        """Whether the state must be mirrored to integrators again."""


class DeviceCache:
    """The devices of recent heartbeats, by id; used inside a transaction, between :meth:`open` and :meth:`close`."""

    def __init__(self) -> None:
        self.senders: dict[str, DeviceState] = {}
        self._stamp: tuple[int, int] | None = None

    def open(self, connection: sqlite3.Connection) -> None:
        """Begin in a transaction: forget all if anything else was written since :meth:`close`.

        An error before the next :meth:`close` also makes it forget, so that nothing half done stays.
        """
        if self._stamp != _stamp(connection) or len(self.senders) > MOST:
            self.senders.clear()
        self._stamp = None

    def close(self, connection: sqlite3.Connection) -> None:
        """End: what it holds is what is written by now."""
        self._stamp = _stamp(connection)

    def learn(self, senders: Iterable[DeviceState]) -> None:
        """Add these, just read."""
        self.senders.update((sender.id, sender) for sender in senders)

    def forget(self) -> None:
        """Forget all: it was changed by other code, or undone."""
        self._stamp = None
        self.senders.clear()


def _stamp(connection: sqlite3.Connection) -> tuple[int, int]:
    return connection.total_changes, connection.execute("PRAGMA data_version").fetchone()[0]
