"""Cache of device state between the writer's transactions, valid while nothing else writes the registry.

A heartbeat is judged by what the registry knows of its device, and most of that was written by the heartbeat before.
Reading it again costs as much as storing it, so on SQLite it stays in memory between transactions. Two counters show
whether anything else was written meanwhile, by this connection (``total_changes``) or by another process (``PRAGMA
data_version``). Then all of it is forgotten. PostgreSQL has no such counters, so there each batch reads its devices. A
roll-back calls :meth:`DeviceCache.forget`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.store.engine import DatabaseConnection


MOST: Final = 16_384
"""Maximum number of cached devices: about 12 MB."""


_NOTHING: Final = frozenset[str]()
_RESET_ONLY: Final = "reset_only"


class SenderRecord(NamedTuple):
    """What the registry knows of the device that sent a message; times are milliseconds since the epoch.

    ``token_state`` is None without a good token. ``owed`` lists event types of which the last was suppressed, joined by
    commas. From ``battery_percent`` on the fields are those that the device reported last.
    """

    id: str
    pk: int
    project_id: str
    binding_generation: int
    bound_at: int | None
    firmware_version: str | None
    token_state: str | None
    history_id: int | None
    history_day: int | None
    history_sent_at: int | None
    connection_type: str | None
    connection: str
    last_heartbeat_at: int | None
    low_battery: int
    storage_full: int
    owed: str | None
    low_battery_threshold: int | float
    battery_percent: int | float | None
    storage_used_mb: int | float | None
    storage_total_mb: int | float | None
    signal_strength_dbm: int | float | None
    recording_state: str | None
    device_name: str | None
    pending_recordings: int | None
    flags: int | None


class CachedDevice:
    """The state of a device that a heartbeat is judged by and changes."""

    __slots__ = (
        "firmware", "history_day", "history_id", "history_sent_at", "id", "last_heartbeat_at", "links", "low_battery",
        "news", "online", "owed", "pk", "project_id", "radio", "said", "storage_full", "stored", "tells", "threshold",
        "token_state",
    )  # fmt: skip

    def __init__(self, sender: SenderRecord) -> None:
        (self.id, self.pk, self.project_id, _, bound_at, self.firmware, self.token_state, self.history_id,
         self.history_day, self.history_sent_at, links, connection, self.last_heartbeat_at, low, full, owed,
         self.threshold, *said) = sender  # fmt: skip
        self.online = connection == "online"
        self.tells = bound_at is not None and self.token_state != _RESET_ONLY
        """Whether its reports are stored. Of a device that belongs to no user only its presence is."""
        self.low_battery, self.storage_full = bool(low), bool(full)
        self.stored = self.counted
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

    @property
    def counted(self) -> tuple[bool, bool, bool]:
        """Return what kept counts depend on. ``stored`` is what the registry holds of it."""
        return self.online, self.low_battery, self.storage_full

    @property
    def is_steady(self) -> bool:
        """Return whether its row in ``health`` stays, and no count of devices changes."""
        return self.online and self.stored == self.counted


class DeviceCache:
    """The devices of recent heartbeats, by id; used inside a transaction, between :meth:`open` and :meth:`close`."""

    def __init__(self) -> None:
        self.senders: dict[str, CachedDevice] = {}
        self._stamp: tuple[int, int] | None = None

    def open(self, connection: DatabaseConnection) -> None:
        """Begin in a transaction: forget all if anything else was written since :meth:`close`.

        An error before the next :meth:`close` also makes it forget, so that nothing half done stays.
        """
        stamp = connection.stamp()
        if stamp is None or self._stamp != stamp or len(self.senders) > MOST:
            self.senders.clear()
        self._stamp = None

    def close(self, connection: DatabaseConnection) -> None:
        """End: what it holds is what is written by now."""
        self._stamp = connection.stamp()

    def learn(self, senders: Iterable[CachedDevice]) -> None:
        """Add these, just read."""
        self.senders.update((sender.id, sender) for sender in senders)

    def forget(self) -> None:
        """Forget all: it was changed by other code, or undone."""
        self._stamp = None
        self.senders.clear()
