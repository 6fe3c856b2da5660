"""SQL about the database server itself: its role, and the standbys that follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.store.dialect import POSTGRESQL

if TYPE_CHECKING:
    from gateway.store.transaction import View


class Standby(NamedTuple):
    """A standby of the server. ``lag_ms`` is how far behind it applies what was committed, None when it is idle."""

    name: str
    state: str
    sync_state: str
    lag_ms: int | None


class DatabaseState(NamedTuple):
    """The database: its engine, its version, whether it takes writes, and its standbys."""

    engine: str
    version: str
    role: str
    standbys: list[Standby]


def state(view: View) -> DatabaseState:
    """Return the state of the database. Standbys are those that the database user may see."""
    engine = view.dialect.name
    if engine != POSTGRESQL.name:
        return DatabaseState(engine, view.value("SELECT sqlite_version()"), "primary", [])
    standbys = view.records(
        Standby,
        """SELECT application_name AS name, coalesce(state, 'unknown') AS state,
            coalesce(sync_state, 'unknown') AS sync_state, (extract(epoch FROM replay_lag) * 1000)::bigint AS lag_ms
            FROM pg_stat_replication ORDER BY application_name""",
    )
    role = "standby" if view.value("SELECT pg_is_in_recovery()") else "primary"
    return DatabaseState(engine, view.value("SHOW server_version"), role, standbys)
