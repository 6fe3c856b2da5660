"""SQL about the database server itself, and the standbys that follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.store.dialect import POSTGRESQL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.store.transaction import View


UNKNOWN: Final = "unknown"
"""What the database user may not see: it needs the role ``pg_monitor`` for that."""
_WAITED_FOR: Final = ("sync", "quorum", UNKNOWN)


class Standby(NamedTuple):
    """A standby of the server.

    ``lag_ms`` is how far behind it applies what was committed, as it said last; None when it is idle.
    ``behind_bytes`` is how much of the log it has yet to apply. It grows while the standby says nothing.
    """

    name: str
    state: str
    sync_state: str
    lag_ms: int | None
    behind_bytes: int | None


class DatabaseState(NamedTuple):
    """The database: its engine, its version, and its standbys. It takes writes: connections are made to no other.

    ``waits_for`` names the standbys for which a commit waits; empty: for none.
    """

    engine: str
    version: str
    waits_for: str
    standbys: list[Standby]

    @property
    def is_stuck(self) -> bool:
        """Return whether commits wait for a standby, and no standby is there that could confirm them."""
        return bool(self.waits_for) and not any(each.sync_state in _WAITED_FOR for each in self.standbys)

    @property
    def behind_bytes(self) -> int | None:
        """Return how much the last standby has yet to apply; None when the user may see it of no standby."""
        return self._largest(each.behind_bytes for each in self._seen)

    @property
    def lag_ms(self) -> int | None:
        """Return how late the last standby applies what was committed; None when the user may see it of no standby."""
        return self._largest(each.lag_ms for each in self._seen)

    @property
    def _seen(self) -> list[Standby]:
        return [each for each in self.standbys if each.sync_state != UNKNOWN]

    def _largest(self, values: Iterable[int | None]) -> int | None:
        if self.standbys and not self._seen:
            return None
        return max((each or 0 for each in values), default=0)


def state(view: View) -> DatabaseState:
    """Return the state of the database. Standbys are those that the database user may see."""
    engine = view.dialect.name
    if engine != POSTGRESQL.name:
        return DatabaseState(engine, view.value("SELECT sqlite_version()"), "", [])
    standbys = view.records(
        Standby,
        f"""SELECT application_name AS name, coalesce(state, '{UNKNOWN}') AS state,
            coalesce(sync_state, '{UNKNOWN}') AS sync_state,
            (extract(epoch FROM replay_lag) * 1000)::bigint AS lag_ms,
            pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint AS behind_bytes
            FROM pg_stat_replication ORDER BY application_name""",  # noqa: S608 - our own words
    )
    waits_for: str = view.value("SHOW synchronous_standby_names")
    return DatabaseState(engine, view.value("SHOW server_version"), waits_for, standbys)
