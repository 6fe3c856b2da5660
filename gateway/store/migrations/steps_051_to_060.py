"""Schema steps 51 to 60: the index of devices by their state, and that of events by their time.

The statements are one text for both engines: ``gateway/store/postgres/steps_051_to_060.py`` takes them from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.store.migrations.step import execute_each, step

if TYPE_CHECKING:
    from sqlite_utils import Database

_ADD: Final = "INSERT INTO device_states (project, state, device_pk)"
_HEARD: Final = "CASE {}.connection WHEN 'online' THEN 2 ELSE 1 END"
_PRESENCE: Final = f"CASE WHEN h.device_pk IS NULL THEN 0 ELSE {_HEARD.format('h')} END"
STATES: Final = f"""SELECT substr(d.project_id, 26) AS project, s.state, d.pk AS device_pk
    FROM devices d LEFT JOIN health h ON h.device_pk = d.pk
    CROSS JOIN (SELECT 0 AS state UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4) s
    WHERE d.deleted_at IS NULL AND (s.state = {_PRESENCE} OR (s.state = 3 AND h.low_battery = 1)
        OR (s.state = 4 AND h.storage_full = 1))"""  # noqa: S608 - constants
_ADD_LIVING: Final = f"""{_ADD} SELECT substr(d.project_id, 26), s.state, d.pk FROM devices d CROSS JOIN ({{}}) s
    WHERE d.pk = NEW.device_pk AND d.deleted_at IS NULL ON CONFLICT DO NOTHING"""  # noqa: S608 - constants

_PROJECT: Final = "(SELECT substr(project_id, 26) FROM devices WHERE pk = NEW.device_pk)"
_HEARD_FIRST: Final = f"""SELECT {_HEARD.format("NEW")} AS state UNION ALL SELECT 3 WHERE NEW.low_battery = 1
    UNION ALL SELECT 4 WHERE NEW.storage_full = 1"""
_BEGUN: Final = f"""SELECT {_HEARD.format("NEW")} AS state WHERE NEW.connection <> OLD.connection
    UNION ALL SELECT 3 WHERE NEW.low_battery > OLD.low_battery
    UNION ALL SELECT 4 WHERE NEW.storage_full > OLD.storage_full"""
_ENDED: Final = f"""CASE WHEN NEW.connection <> OLD.connection THEN {_HEARD.format("OLD")} END,
    CASE WHEN NEW.low_battery < OLD.low_battery THEN 3 END, CASE WHEN NEW.storage_full < OLD.storage_full THEN 4 END"""

FILL_STATES: Final = f"{_ADD} {STATES} ORDER BY 1, 2, 3"
STATE_TRIGGERS: Final = (
    (
        "state_of_device",
        "INSERT ON devices",
        "NEW.deleted_at IS NULL",
        f"{_ADD} VALUES (substr(NEW.project_id, 26), 0, NEW.pk) ON CONFLICT DO NOTHING",
    ),
    (
        "state_of_deleted",
        "UPDATE OF deleted_at ON devices",
        "OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL",
        """DELETE FROM device_states WHERE project = substr(NEW.project_id, 26) AND state IN (0, 1, 2, 3, 4)
            AND device_pk = NEW.pk""",
    ),
    (
        "state_of_restored",
        "UPDATE OF deleted_at ON devices",
        "OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS NULL",
        f"{_ADD} {STATES} AND d.pk = NEW.pk ON CONFLICT DO NOTHING",
    ),
    (
        "state_of_first_health",
        "INSERT ON health",
        "NEW.device_pk IS NOT NULL",
        f"""DELETE FROM device_states WHERE project = {_PROJECT} AND state = 0 AND device_pk = NEW.device_pk;
            {_ADD_LIVING.format(_HEARD_FIRST)}""",  # noqa: S608 - constants
    ),
    (
        "state_of_health",
        "UPDATE OF connection, low_battery, storage_full ON health",
        """OLD.connection <> NEW.connection OR OLD.low_battery <> NEW.low_battery
            OR OLD.storage_full <> NEW.storage_full""",
        f"""DELETE FROM device_states WHERE project = {_PROJECT} AND state IN ({_ENDED}) AND device_pk = NEW.device_pk;
            {_ADD_LIVING.format(_BEGUN)}""",  # noqa: S608 - constants
    ),
)
"""Name, event, condition and statements of the triggers. They mend a row that was wrong, and never fail for it."""


@step
def m051_device_states(db: Database) -> None:
    """Create the index of devices by state, within a project, and the triggers that keep it.

    0: never heard, 1: heard and offline, 2: online; one of these for each device. 3: low on battery, 4: storage full.
    A deleted device has no row. The indexes of ``health`` for two of these states held the devices of all projects.
    """
    execute_each(
        db,
        """CREATE TABLE device_states (
            project TEXT NOT NULL, state INTEGER NOT NULL CHECK (state BETWEEN 0 AND 4), device_pk INTEGER NOT NULL,
            PRIMARY KEY (project, state, device_pk)) STRICT, WITHOUT ROWID""",
        FILL_STATES,
        "DROP INDEX health_low_battery",
        "DROP INDEX health_storage_full",
        *(
            f"CREATE TRIGGER {name} AFTER {event} WHEN {condition} BEGIN {statements}; END"
            for name, event, condition, statements in STATE_TRIGGERS
        ),
    )


@step
def m052_events_by_time(db: Database) -> None:
    """Index the events of a project by their time, so that a period is found without a walk through newer ones."""
    db.execute("CREATE INDEX events_by_time ON events (substr(project_id, 26), created_at)")


@step
def m053_one_index_of_times(db: Database) -> None:
    """Drop the index of all events by age: those that are deleted are found by project and time."""
    db.execute("DROP INDEX events_by_age")
