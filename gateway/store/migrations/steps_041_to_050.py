"""Schema steps 41 to 50: kept counts of devices, the index of end users, home brokers, smaller indexes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.store.migrations.step import execute_each, step

if TYPE_CHECKING:
    from sqlite_utils import Database

_OPEN_RESETS: Final = """(SELECT count(*) FROM commands WHERE device_pk = NEW.pk AND type = 'factory_reset'
    AND status IN ('pending', 'delivered'))"""
_OF_DEVICE: Final = f"""UPDATE device_counts SET total = total {{0}} 1, bound = bound {{0}} (NEW.bound_at IS NOT NULL),
    seen = seen {{0}} (SELECT count(*) FROM health WHERE device_pk = NEW.pk),
    online = online {{0}} (SELECT count(*) FROM health WHERE device_pk = NEW.pk AND connection = 'online'),
    low_battery = low_battery {{0}} (SELECT count(*) FROM health WHERE device_pk = NEW.pk AND low_battery = 1),
    storage_full = storage_full {{0}} (SELECT count(*) FROM health WHERE device_pk = NEW.pk AND storage_full = 1),
    pending_resets = pending_resets {{0}} {_OPEN_RESETS} WHERE project_id = NEW.project_id"""  # noqa: S608 - constants
"""Counts of a whole device: those of a device that is deleted go, those of a restored one come back."""
_LIVING: Final = "(SELECT project_id FROM devices WHERE pk = NEW.device_pk AND deleted_at IS NULL)"


@step
def m042_device_counts(db: Database) -> None:
    """Create the counts of each project's devices, and the triggers that keep them.

    A trigger fires only where a counted value changes, so most heartbeats write no count. No trigger is needed for
    deleted rows: devices, their health and their commands stay.
    """
    execute_each(
        db,
        """CREATE TABLE device_counts (
            project_id TEXT PRIMARY KEY, total INTEGER NOT NULL DEFAULT 0, bound INTEGER NOT NULL DEFAULT 0,
            seen INTEGER NOT NULL DEFAULT 0, online INTEGER NOT NULL DEFAULT 0,
            low_battery INTEGER NOT NULL DEFAULT 0, storage_full INTEGER NOT NULL DEFAULT 0,
            pending_resets INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID""",
        """INSERT INTO device_counts (project_id, total, bound, seen, online, low_battery, storage_full, pending_resets)
            SELECT p.id, count(d.pk), count(d.bound_at), count(h.device_pk),
                count(*) FILTER (WHERE h.connection = 'online'), count(*) FILTER (WHERE h.low_battery = 1),
                count(*) FILTER (WHERE h.storage_full = 1),
                (SELECT count(*) FROM commands c CROSS JOIN devices e WHERE c.type = 'factory_reset'
                    AND c.status IN ('pending', 'delivered') AND e.pk = c.device_pk AND e.project_id = p.id
                    AND e.deleted_at IS NULL)
            FROM projects p LEFT JOIN devices d ON d.project_id = p.id AND d.deleted_at IS NULL
            LEFT JOIN health h ON h.device_pk = d.pk GROUP BY p.id""",
        """CREATE TRIGGER count_project AFTER INSERT ON projects BEGIN
            INSERT INTO device_counts (project_id) VALUES (NEW.id); END""",
        """CREATE TRIGGER count_device AFTER INSERT ON devices WHEN NEW.deleted_at IS NULL BEGIN
            UPDATE device_counts SET total = total + 1, bound = bound + (NEW.bound_at IS NOT NULL)
                WHERE project_id = NEW.project_id; END""",
        """CREATE TRIGGER count_binding AFTER UPDATE OF bound_at ON devices WHEN OLD.deleted_at IS NULL
            AND (OLD.bound_at IS NULL) <> (NEW.bound_at IS NULL) BEGIN
            UPDATE device_counts SET bound = bound + (NEW.bound_at IS NOT NULL) - (OLD.bound_at IS NOT NULL)
                WHERE project_id = NEW.project_id; END""",
        f"""CREATE TRIGGER count_deletion AFTER UPDATE OF deleted_at ON devices WHEN OLD.deleted_at IS NULL
            AND NEW.deleted_at IS NOT NULL BEGIN {_OF_DEVICE.format("-")}; END""",
        f"""CREATE TRIGGER count_restoration AFTER UPDATE OF deleted_at ON devices WHEN OLD.deleted_at IS NOT NULL
            AND NEW.deleted_at IS NULL BEGIN {_OF_DEVICE.format("+")}; END""",
        f"""CREATE TRIGGER count_first_health AFTER INSERT ON health BEGIN
            UPDATE device_counts SET seen = seen + 1, online = online + (NEW.connection = 'online'),
                low_battery = low_battery + (NEW.low_battery = 1), storage_full = storage_full + (NEW.storage_full = 1)
                WHERE project_id = {_LIVING}; END""",  # noqa: S608 - constants
        f"""CREATE TRIGGER count_health AFTER UPDATE OF connection, low_battery, storage_full ON health
            WHEN OLD.connection <> NEW.connection OR OLD.low_battery <> NEW.low_battery
                OR OLD.storage_full <> NEW.storage_full BEGIN
            UPDATE device_counts SET online = online + (NEW.connection = 'online') - (OLD.connection = 'online'),
                low_battery = low_battery + (NEW.low_battery = 1) - (OLD.low_battery = 1),
                storage_full = storage_full + (NEW.storage_full = 1) - (OLD.storage_full = 1)
                WHERE project_id = {_LIVING}; END""",  # noqa: S608 - constants
        f"""CREATE TRIGGER count_reset AFTER INSERT ON commands
            WHEN NEW.type = 'factory_reset' AND NEW.status IN ('pending', 'delivered') BEGIN
            UPDATE device_counts SET pending_resets = pending_resets + 1 WHERE project_id = {_LIVING}; END""",  # noqa: S608 - constants
        f"""CREATE TRIGGER count_end_of_reset AFTER UPDATE OF status ON commands WHEN NEW.type = 'factory_reset'
            AND (OLD.status IN ('pending', 'delivered')) <> (NEW.status IN ('pending', 'delivered')) BEGIN
            UPDATE device_counts SET pending_resets = pending_resets + (NEW.status IN ('pending', 'delivered'))
                - (OLD.status IN ('pending', 'delivered')) WHERE project_id = {_LIVING}; END""",  # noqa: S608 - constants
    )


@step
def m043_search_of_end_users(db: Database) -> None:
    """Index end users by pieces of three characters, in a table that only bindings write."""
    execute_each(
        db,
        """CREATE VIRTUAL TABLE device_search_end_users USING fts5(end_user_id, content='devices', content_rowid='pk',
            tokenize='trigram', detail='none', columnsize=0)""",
        "INSERT INTO device_search_end_users (device_search_end_users) VALUES ('rebuild')",
    )


@step
def m044_homes(db: Database) -> None:
    """Create the home brokers of devices, and store with each broker its address for devices.

    A device without a row has no home: every broker serves it. ``brokers.devices`` is the number of rows of a broker.
    """
    execute_each(
        db,
        """CREATE TABLE homes (
            device_pk INTEGER PRIMARY KEY REFERENCES devices (pk), broker_pk INTEGER NOT NULL REFERENCES brokers (pk),
            since INTEGER NOT NULL) STRICT""",
        "CREATE INDEX homes_by_broker ON homes (broker_pk, device_pk)",
        "ALTER TABLE brokers ADD COLUMN host TEXT",
        "ALTER TABLE brokers ADD COLUMN port INTEGER",
        "ALTER TABLE brokers ADD COLUMN tls INTEGER CHECK (tls IN (0, 1))",
        "ALTER TABLE brokers ADD COLUMN draining INTEGER NOT NULL DEFAULT 0 CHECK (draining IN (0, 1))",
        "ALTER TABLE brokers ADD COLUMN devices INTEGER NOT NULL DEFAULT 0",
    )


@step
def m045_newest_sent_heartbeat(db: Database) -> None:
    """Add the time of sending that PostgreSQL recognises a repeated heartbeat by. SQLite has an index for that."""
    db.execute("ALTER TABLE health ADD COLUMN history_sent_at INTEGER")


@step
def m047_forgiven_silence(db: Database) -> None:
    """Keep, for each broker, the time without a connection that counts for no device, instead of moving deadlines."""
    execute_each(
        db,
        "ALTER TABLE brokers ADD COLUMN forgiven_at INTEGER",
        "ALTER TABLE brokers ADD COLUMN forgiven_ms INTEGER NOT NULL DEFAULT 0",
    )


@step
def m048_short_ids_in_indexes(db: Database) -> None:
    """Replace the ids of projects and signing keys in indexes by a few of their characters.

    No index is left for all devices of a project, deleted ones included: they are read by their serial numbers.
    """
    project, kid = "substr(project_id, 26)", "substr(grant_kid, 1, 8)"
    execute_each(
        db,
        *(
            f"DROP INDEX {name}"
            for name in (
                *("devices_by_project", "devices_live", "devices_by_updated", "devices_by_name", "devices_by_end_user"),
                *("devices_by_model", "devices_bound", "devices_unbound", "bindings_by_end_user"),
                "tokens_by_signing_key",
            )
        ),
        f"CREATE INDEX devices_live ON devices ({project}) WHERE deleted_at IS NULL",
        f"CREATE INDEX devices_by_updated ON devices ({project}, updated_at) WHERE deleted_at IS NULL",
        f"CREATE INDEX devices_by_name ON devices ({project}, lower(coalesce(name, ''))) WHERE deleted_at IS NULL",
        f"CREATE INDEX devices_by_end_user ON devices ({project}, end_user_id) WHERE end_user_id IS NOT NULL",
        f"CREATE INDEX devices_by_model ON devices ({project}, model) WHERE deleted_at IS NULL",
        f"CREATE INDEX devices_bound ON devices ({project}) WHERE bound_at IS NOT NULL",
        f"CREATE INDEX devices_unbound ON devices ({project}) WHERE bound_at IS NULL AND deleted_at IS NULL",
        f"CREATE INDEX bindings_by_end_user ON bindings ({project}, end_user_id)",
        f"CREATE INDEX tokens_by_signing_key ON tokens ({kid}) WHERE state <> 'revoked'",
    )


@step
def m049_index_of_tokens(db: Database) -> None:
    """Index tokens by their device alone. A device has a few, and a change of state writes no index."""
    execute_each(
        db,
        "DROP INDEX tokens_by_device",
        "CREATE INDEX tokens_by_device ON tokens (device_pk)",
    )
