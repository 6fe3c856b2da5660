"""Schema steps 11 to 20: orders and search of devices, gaps of webhooks, deadlines of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.store.migrations.step import execute_each, step

if TYPE_CHECKING:
    from sqlite_utils import Database


@step
def m011_device_orders(db: Database) -> None:
    """Create indexes for the orders of the list of devices; that by serial number is its constraint's."""
    execute_each(
        db,
        "CREATE INDEX devices_by_updated ON devices (project_id, updated_at) WHERE deleted_at IS NULL",
        """CREATE INDEX devices_by_name ON devices (project_id, lower(coalesce(name, ''))) WHERE deleted_at IS NULL""",
    )


@step
def m012_links_in_use(db: Database) -> None:
    """Store the links that a device reports, as it lists them."""
    execute_each(db, "ALTER TABLE health ADD COLUMN connection_type TEXT")


@step
def m013_webhook_gaps(db: Database) -> None:
    """Create the gaps of webhooks and replays of deliveries; index what is pruned by its age."""
    execute_each(
        db,
        """CREATE TABLE webhook_gaps (
            webhook_id TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE, after_seq INTEGER NOT NULL,
            up_to INTEGER, PRIMARY KEY (webhook_id, after_seq)) STRICT, WITHOUT ROWID""",
        "INSERT INTO webhook_gaps (webhook_id, after_seq) SELECT id, cursor FROM webhooks WHERE NOT enabled",
        "ALTER TABLE deliveries ADD COLUMN replays INTEGER NOT NULL DEFAULT 0",
        """CREATE INDEX deliveries_untried ON deliveries (webhook_id, event_seq)
            WHERE status = 'pending' AND attempts = 0""",
        "CREATE INDEX deliveries_ended ON deliveries (last_attempt_at) WHERE status <> 'pending'",
        "CREATE INDEX events_by_age ON events (created_at)",
        "CREATE INDEX idempotency_by_age ON idempotency (created_at)",
    )


@step
def m014_command_ttl(db: Database) -> None:
    """Store how long a command may be open, so that a clock that was set back keeps none open for longer."""
    execute_each(
        db,
        "ALTER TABLE commands ADD COLUMN ttl_ms INTEGER",
        "UPDATE commands SET ttl_ms = expires_at - created_at WHERE expires_at IS NOT NULL",
        """CREATE INDEX commands_dated ON commands (expires_at - ttl_ms)
            WHERE status IN ('pending', 'delivered') AND expires_at IS NOT NULL""",
    )


@step
def m015_commands_sent(db: Database) -> None:
    """Store when a command may first have reached its device; that of open commands is unknown."""
    execute_each(
        db,
        "ALTER TABLE commands ADD COLUMN sent_at INTEGER",
        "UPDATE commands SET sent_at = created_at WHERE status IN ('pending', 'delivered')",
    )


@step
def m016_device_search(db: Database) -> None:
    """Index the text of devices by pieces of three characters (see ``device_search``), and rare filters."""
    execute_each(
        db,
        """CREATE VIRTUAL TABLE device_search USING fts5(id, serial_number, name, end_user_id, content='devices',
            content_rowid='pk', tokenize='trigram', detail='none', columnsize=0)""",
        "INSERT INTO device_search (device_search) VALUES ('rebuild')",
        "CREATE INDEX devices_by_end_user ON devices (project_id, end_user_id) WHERE end_user_id IS NOT NULL",
        "CREATE INDEX devices_by_model ON devices (project_id, model) WHERE deleted_at IS NULL",
        "CREATE INDEX devices_bound ON devices (project_id) WHERE bound_at IS NOT NULL",
        "CREATE INDEX devices_unbound ON devices (project_id) WHERE bound_at IS NULL AND deleted_at IS NULL",
        "CREATE INDEX health_low_battery ON health (low_battery) WHERE low_battery = 1",
        "CREATE INDEX health_storage_full ON health (storage_full) WHERE storage_full = 1",
    )


@step
def m017_old_sessions_of_accounts(db: Database) -> None:
    """Store whether sessions of an earlier password of an account were cut."""
    execute_each(db, "ALTER TABLE broker_accounts ADD COLUMN old_sessions_cut INTEGER NOT NULL DEFAULT 0")


@step
def m018_devices_at_broker(db: Database) -> None:
    """Store whether a device's last message came over MQTT: only then a retained ``offline`` counts."""
    execute_each(db, "ALTER TABLE health ADD COLUMN at_broker INTEGER NOT NULL DEFAULT 0")


@step
def m019_search_of_end_users(db: Database) -> None:
    """Take end users out of the text index; they have a separate index, so a reset need not write the text index."""
    execute_each(
        db,
        "DROP TABLE device_search",
        """CREATE VIRTUAL TABLE device_search USING fts5(id, serial_number, name, content='devices', content_rowid='pk',
            tokenize='trigram', detail='none', columnsize=0)""",
        "INSERT INTO device_search (device_search) VALUES ('rebuild')",
    )


@step
def m020_bytes_of_idempotency(db: Database) -> None:
    """Store the bytes of kept answers per API key and device, with an index of their oldest."""
    execute_each(
        db,
        "ALTER TABLE idempotency ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
        """UPDATE idempotency SET owner = CASE WHEN instr(caller, '/') = 0 THEN caller
            ELSE substr(caller, 1, instr(caller, '/') - 1) END""",
        "CREATE INDEX idempotency_by_owner ON idempotency (owner, seq)",
        """CREATE TABLE idempotency_use (owner TEXT PRIMARY KEY, bytes INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
        """INSERT INTO idempotency_use (owner, bytes)
            SELECT owner, sum(length(answer) + 256) FROM idempotency GROUP BY owner""",
    )
