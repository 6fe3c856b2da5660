"""Schema steps 41 to 50 on PostgreSQL (:mod:`gateway.store.postgres.steps`)."""

from __future__ import annotations

from typing import Final

_OF_DEVICE: Final = """UPDATE device_counts SET total = total {0} 1, bound = bound {0} (NEW.bound_at IS NOT NULL)::int,
    seen = seen {0} (SELECT count(*) FROM health WHERE device_pk = NEW.pk),
    online = online {0} (SELECT count(*) FROM health WHERE device_pk = NEW.pk AND connection = 'online'),
    low_battery = low_battery {0} (SELECT count(*) FROM health WHERE device_pk = NEW.pk AND low_battery = 1),
    storage_full = storage_full {0} (SELECT count(*) FROM health WHERE device_pk = NEW.pk AND storage_full = 1),
    pending_resets = pending_resets {0} (SELECT count(*) FROM commands WHERE device_pk = NEW.pk
        AND type = 'factory_reset' AND status IN ('pending', 'delivered')) WHERE project_id = NEW.project_id"""
_LIVING: Final = "(SELECT project_id FROM devices WHERE pk = NEW.device_pk AND deleted_at IS NULL)"

_IS_COUNTED: Final = """OLD.connection <> NEW.connection OR OLD.low_battery <> NEW.low_battery
    OR OLD.storage_full <> NEW.storage_full"""


def trigger(name: str, fires: str, when: str, statement: str) -> tuple[str, str]:
    """Return the statements for a trigger of each row and its function, which have the same name."""
    return (
        f"""CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN {statement}; RETURN NULL; END $$""",
        f"CREATE TRIGGER {name} AFTER {fires} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION {name}()",
    )


P042: Final = (
    """CREATE TABLE device_counts (
        project_id text COLLATE "C" PRIMARY KEY, total bigint NOT NULL DEFAULT 0, bound bigint NOT NULL DEFAULT 0,
        seen bigint NOT NULL DEFAULT 0, online bigint NOT NULL DEFAULT 0, low_battery bigint NOT NULL DEFAULT 0,
        storage_full bigint NOT NULL DEFAULT 0, pending_resets bigint NOT NULL DEFAULT 0) WITH (fillfactor = 10)""",
    """INSERT INTO device_counts (project_id, total, bound, seen, online, low_battery, storage_full, pending_resets)
        SELECT p.id, count(d.pk), count(d.bound_at), count(h.device_pk),
            count(*) FILTER (WHERE h.connection = 'online'), count(*) FILTER (WHERE h.low_battery = 1),
            count(*) FILTER (WHERE h.storage_full = 1),
            (SELECT count(*) FROM commands c CROSS JOIN devices e WHERE c.type = 'factory_reset'
                AND c.status IN ('pending', 'delivered') AND e.pk = c.device_pk AND e.project_id = p.id
                AND e.deleted_at IS NULL)
        FROM projects p LEFT JOIN devices d ON d.project_id = p.id AND d.deleted_at IS NULL
        LEFT JOIN health h ON h.device_pk = d.pk GROUP BY p.id""",
    *trigger("count_project", "INSERT ON projects", "true", "INSERT INTO device_counts (project_id) VALUES (NEW.id)"),
    *trigger(
        "count_device",
        "INSERT ON devices",
        "NEW.deleted_at IS NULL",
        """UPDATE device_counts SET total = total + 1, bound = bound + (NEW.bound_at IS NOT NULL)::int
            WHERE project_id = NEW.project_id""",
    ),
    *trigger(
        "count_binding",
        "UPDATE OF bound_at ON devices",
        "OLD.deleted_at IS NULL AND (OLD.bound_at IS NULL) <> (NEW.bound_at IS NULL)",
        """UPDATE device_counts SET bound = bound + (NEW.bound_at IS NOT NULL)::int - (OLD.bound_at IS NOT NULL)::int
            WHERE project_id = NEW.project_id""",
    ),
    *trigger(
        "count_deletion",
        "UPDATE OF deleted_at ON devices",
        "OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL",
        _OF_DEVICE.format("-"),
    ),
    *trigger(
        "count_restoration",
        "UPDATE OF deleted_at ON devices",
        "OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS NULL",
        _OF_DEVICE.format("+"),
    ),
    *trigger(
        "count_first_health",
        "INSERT ON health",
        "true",
        f"""UPDATE device_counts SET seen = seen + 1, online = online + (NEW.connection = 'online')::int,
            low_battery = low_battery + (NEW.low_battery = 1)::int,
            storage_full = storage_full + (NEW.storage_full = 1)::int WHERE project_id = {_LIVING}""",  # noqa: S608 - constants
    ),
    *trigger(
        "count_health",
        "UPDATE OF connection, low_battery, storage_full ON health",
        _IS_COUNTED,
        f"""UPDATE device_counts SET
            online = online + (NEW.connection = 'online')::int - (OLD.connection = 'online')::int,
            low_battery = low_battery + (NEW.low_battery = 1)::int - (OLD.low_battery = 1)::int,
            storage_full = storage_full + (NEW.storage_full = 1)::int - (OLD.storage_full = 1)::int
            WHERE project_id = {_LIVING}""",  # noqa: S608 - constants
    ),
    *trigger(
        "count_reset",
        "INSERT ON commands",
        "NEW.type = 'factory_reset' AND NEW.status IN ('pending', 'delivered')",
        f"UPDATE device_counts SET pending_resets = pending_resets + 1 WHERE project_id = {_LIVING}",  # noqa: S608 - constants
    ),
    *trigger(
        "count_end_of_reset",
        "UPDATE OF status ON commands",
        """NEW.type = 'factory_reset'
            AND (OLD.status IN ('pending', 'delivered')) <> (NEW.status IN ('pending', 'delivered'))""",
        f"""UPDATE device_counts SET pending_resets = pending_resets + (NEW.status IN ('pending', 'delivered'))::int
            - (OLD.status IN ('pending', 'delivered'))::int WHERE project_id = {_LIVING}""",  # noqa: S608 - constants
    ),
)
P043: Final = (
    *(
        f"DROP INDEX {name}"
        for name in (
            *("devices_by_end_user", "devices_by_model", "devices_bound", "devices_unbound"),
            *("health_low_battery", "health_storage_full"),
        )
    ),
    "CREATE INDEX devices_by_end_user ON devices (project_id, end_user_id, pk) WHERE end_user_id IS NOT NULL",
    "CREATE INDEX devices_by_model ON devices (project_id, model, pk) WHERE deleted_at IS NULL",
    "CREATE INDEX devices_bound ON devices (project_id, pk) WHERE bound_at IS NOT NULL",
    "CREATE INDEX devices_unbound ON devices (project_id, pk) WHERE bound_at IS NULL AND deleted_at IS NULL",
    "CREATE INDEX health_low_battery ON health (device_pk) WHERE low_battery = 1",
    "CREATE INDEX health_storage_full ON health (device_pk) WHERE storage_full = 1",
)
"""Each filter gives its devices in the order of the list, as SQLite's indexes do, which end in the row number."""
P044: Final = (
    """CREATE TABLE homes (
        device_pk bigint PRIMARY KEY REFERENCES devices (pk), broker_pk bigint NOT NULL REFERENCES brokers (pk),
        since bigint NOT NULL)""",
    "CREATE INDEX homes_by_broker ON homes (broker_pk, device_pk)",
    'ALTER TABLE brokers ADD COLUMN host text COLLATE "C"',
    "ALTER TABLE brokers ADD COLUMN port bigint",
    "ALTER TABLE brokers ADD COLUMN tls bigint CHECK (tls IN (0, 1))",
    "ALTER TABLE brokers ADD COLUMN draining bigint NOT NULL DEFAULT 0 CHECK (draining IN (0, 1))",
    "ALTER TABLE brokers ADD COLUMN devices bigint NOT NULL DEFAULT 0",
)
P045: Final = (
    "ALTER TABLE health ADD COLUMN history_sent_at bigint",
    "ALTER TABLE heartbeats ALTER COLUMN id DROP IDENTITY",
    "ALTER TABLE heartbeats RENAME TO heartbeats_0",
    "CREATE SEQUENCE heartbeats_id_seq",
    "SELECT setval('heartbeats_id_seq', coalesce(max(id), 0) / 1000 + 1) FROM heartbeats_0",
    "ALTER INDEX heartbeats_pkey RENAME TO heartbeats_0_pkey",
    "ALTER INDEX heartbeats_once RENAME TO heartbeats_0_once",
    "CREATE TABLE heartbeats (LIKE heartbeats_0, PRIMARY KEY (id)) PARTITION BY RANGE (id)",
    """ALTER TABLE heartbeats ADD CONSTRAINT heartbeats_device_pk_fkey
        FOREIGN KEY (device_pk) REFERENCES devices (pk)""",
    "ALTER TABLE heartbeats ATTACH PARTITION heartbeats_0 FOR VALUES FROM (0) TO (100000000000)",
    """UPDATE health SET history_sent_at = newest.sent_at
        FROM (SELECT device_pk, max(sent_at) AS sent_at FROM heartbeats GROUP BY device_pk) AS newest
        WHERE newest.device_pk = health.device_pk""",
)
"""The heartbeats that are there become the first partition. They are read, and neither copied nor indexed again. A
unique index of a partitioned table must have its key, so each partition has a ``heartbeats_…_once`` for itself.
``history_sent_at`` tells whether a heartbeat may be in another partition."""
P047: Final = ("ALTER TABLE brokers ADD COLUMN forgiven_at bigint, ADD COLUMN forgiven_ms bigint NOT NULL DEFAULT 0",)
_PROJECT: Final = "(substr(project_id, 26))"
P048: Final = (
    *(
        f"DROP INDEX {name}"
        for name in (
            *("devices_by_project", "devices_live", "devices_by_updated", "devices_by_name", "devices_by_end_user"),
            *("devices_by_model", "devices_bound", "devices_unbound", "bindings_by_end_user", "tokens_by_signing_key"),
        )
    ),
    f"CREATE INDEX devices_live ON devices ({_PROJECT}, pk) WHERE deleted_at IS NULL",
    f"CREATE INDEX devices_by_updated ON devices ({_PROJECT}, updated_at, pk) WHERE deleted_at IS NULL",
    f"CREATE INDEX devices_by_name ON devices ({_PROJECT}, lower(coalesce(name, '')), pk) WHERE deleted_at IS NULL",
    f"CREATE INDEX devices_by_end_user ON devices ({_PROJECT}, end_user_id, pk) WHERE end_user_id IS NOT NULL",
    f"CREATE INDEX devices_by_model ON devices ({_PROJECT}, model, pk) WHERE deleted_at IS NULL",
    f"CREATE INDEX devices_bound ON devices ({_PROJECT}, pk) WHERE bound_at IS NOT NULL",
    f"CREATE INDEX devices_unbound ON devices ({_PROJECT}, pk) WHERE bound_at IS NULL AND deleted_at IS NULL",
    f"CREATE INDEX bindings_by_end_user ON bindings ({_PROJECT}, end_user_id)",
    "CREATE INDEX tokens_by_signing_key ON tokens ((substr(grant_kid, 1, 8))) WHERE state <> 'revoked'",
    f"CREATE STATISTICS devices_of_projects (dependencies) ON project_id, {_PROJECT} FROM devices",
    "ANALYZE devices, bindings, tokens",
)
"""The statistics tell the planner that a device with the short form of a project's id has the whole id, too."""
P049: Final = (
    "DROP INDEX tokens_by_device",
    "CREATE INDEX tokens_by_device ON tokens (device_pk)",
    "DROP TRIGGER count_health ON health",
    """ALTER TABLE health ALTER COLUMN flags TYPE smallint, ALTER COLUMN low_battery TYPE smallint,
        ALTER COLUMN storage_full TYPE smallint, ALTER COLUMN at_broker TYPE smallint,
        ALTER COLUMN broker_pk TYPE integer, ALTER COLUMN history_day TYPE integer""",
    f"""CREATE TRIGGER count_health AFTER UPDATE OF connection, low_battery, storage_full ON health
        FOR EACH ROW WHEN ({_IS_COUNTED}) EXECUTE FUNCTION count_health()""",
    "ANALYZE health",
)
"""Each heartbeat writes a whole row of ``health``, to the table and to the log: narrow columns are less of both."""
P050: Final = (
    "ALTER TABLE tokens DROP CONSTRAINT tokens_hash_key",
    "ANALYZE tokens",
    "ALTER TABLE tokens ADD EXCLUDE USING hash (hash WITH =)",
)
"""A token is looked up by its whole hash. Such an index holds 4 bytes of it in place of 32, and still refuses a second
one: 38 bytes a token in place of 77. It is built for as many rows as ANALYZE has found."""
