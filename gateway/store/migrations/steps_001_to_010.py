"""Schema steps 1 to 10: the first tables, webhooks, idempotency keys, integrators, the history of heartbeats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.store.migrations.step import execute_each, step

if TYPE_CHECKING:
    from sqlite_utils import Database


@step
def m001_registry(db: Database) -> None:
    """Create projects, keys, devices and the tokens of their bindings."""
    execute_each(
        db,
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
        """CREATE TABLE projects (
            id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_at INTEGER NOT NULL) STRICT""",
        """CREATE TABLE signing_keys (
            kid TEXT PRIMARY KEY, private_key BLOB NOT NULL, created_at INTEGER NOT NULL, retired_at INTEGER) STRICT""",
        """CREATE TABLE api_keys (
            id TEXT PRIMARY KEY, project_id TEXT NOT NULL REFERENCES projects (id), name TEXT NOT NULL,
            hash BLOB NOT NULL UNIQUE, hint TEXT NOT NULL, scopes TEXT NOT NULL, created_at INTEGER NOT NULL,
            expires_at INTEGER, revoked_at INTEGER, last_used_at INTEGER) STRICT""",
        """CREATE TABLE devices (
            pk INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, project_id TEXT NOT NULL REFERENCES projects (id),
            serial_number TEXT NOT NULL, model TEXT NOT NULL, name TEXT, firmware_version TEXT, metadata TEXT,
            settings TEXT NOT NULL DEFAULT '{}', end_user_id TEXT, binding_generation INTEGER NOT NULL DEFAULT 0,
            bound_at INTEGER, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, deleted_at INTEGER,
            UNIQUE (project_id, serial_number)) STRICT""",
        "CREATE INDEX devices_by_project ON devices (project_id, pk)",
        """CREATE TABLE tokens (
            id INTEGER PRIMARY KEY, device_pk INTEGER NOT NULL REFERENCES devices (pk), generation INTEGER NOT NULL,
            hash BLOB NOT NULL UNIQUE, broker_entry TEXT NOT NULL, state TEXT NOT NULL
                CHECK (state IN ('active', 'reset_only', 'revoked')),
            grant_kid TEXT NOT NULL REFERENCES signing_keys (kid), created_at INTEGER NOT NULL, first_used_at INTEGER,
            revoked_at INTEGER) STRICT""",
        "CREATE INDEX tokens_by_device ON tokens (device_pk, state)",
    )


@step
def m002_health(db: Database) -> None:
    """Create the newest state of a device, its history, and refused messages."""
    execute_each(
        db,
        """CREATE TABLE health (
            device_pk INTEGER PRIMARY KEY REFERENCES devices (pk), battery_percent ANY, storage_used_mb ANY,
            storage_total_mb ANY, signal_strength_dbm ANY, recording_state TEXT, device_name TEXT,
            pending_recordings INTEGER, flags INTEGER, low_battery INTEGER NOT NULL DEFAULT 0,
            storage_full INTEGER NOT NULL DEFAULT 0, last_heartbeat_at INTEGER, last_seen_by TEXT,
            connection TEXT NOT NULL DEFAULT 'offline' CHECK (connection IN ('online', 'offline')),
            offline_due_at INTEGER) STRICT""",
        "CREATE INDEX health_due ON health (offline_due_at) WHERE connection = 'online'",
        """CREATE TABLE heartbeats (
            id INTEGER PRIMARY KEY, device_pk INTEGER NOT NULL REFERENCES devices (pk), received_at INTEGER NOT NULL,
            sent_at INTEGER, battery_percent ANY, storage_used_mb ANY, storage_total_mb ANY, signal_strength_dbm ANY,
            firmware_version TEXT, device_state TEXT, pending_recordings INTEGER, flags INTEGER, radio TEXT) STRICT""",
        "CREATE INDEX heartbeats_by_device ON heartbeats (device_pk, received_at)",
        """CREATE UNIQUE INDEX heartbeats_once ON heartbeats (device_pk, sent_at) WHERE sent_at IS NOT NULL""",
        """CREATE TABLE refusals (
            id INTEGER PRIMARY KEY, at INTEGER NOT NULL, device_id TEXT, source TEXT NOT NULL, code TEXT NOT NULL,
            message TEXT NOT NULL, field TEXT, payload TEXT NOT NULL) STRICT""",
    )


@step
def m003_commands(db: Database) -> None:
    """Create commands, the audit trail and the outbox."""
    execute_each(
        db,
        """CREATE TABLE commands (
            id TEXT PRIMARY KEY, device_pk INTEGER NOT NULL REFERENCES devices (pk), type TEXT NOT NULL,
            status TEXT NOT NULL CHECK
                (status IN ('pending', 'delivered', 'executed', 'failed', 'expired', 'cancelled')),
            params TEXT NOT NULL, binding_generation INTEGER NOT NULL, grant_token TEXT NOT NULL, result TEXT,
            error TEXT, idempotency_key TEXT, created_at INTEGER NOT NULL, expires_at INTEGER, delivered_at INTEGER,
            executed_at INTEGER, final_at INTEGER) STRICT""",
        """CREATE UNIQUE INDEX commands_one_open ON commands (device_pk, type)
            WHERE status IN ('pending', 'delivered')""",
        "CREATE INDEX commands_by_device ON commands (device_pk, id)",
        """CREATE INDEX commands_due ON commands (expires_at)
            WHERE status IN ('pending', 'delivered') AND expires_at IS NOT NULL""",
        "CREATE INDEX commands_final ON commands (final_at) WHERE final_at IS NOT NULL",
        """CREATE TABLE events (
            seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, project_id TEXT NOT NULL,
            device_pk INTEGER REFERENCES devices (pk), type TEXT NOT NULL, created_at INTEGER NOT NULL,
            data TEXT NOT NULL) STRICT""",
        "CREATE INDEX events_by_device ON events (device_pk, seq)",
        "CREATE INDEX events_by_project ON events (project_id, seq)",
        """CREATE TABLE outbox (
            seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL CHECK (kind IN ('command', 'credential')),
            device_pk INTEGER NOT NULL REFERENCES devices (pk), detail TEXT NOT NULL, created_at INTEGER NOT NULL,
            UNIQUE (kind, device_pk, detail)) STRICT""",
    )


@step
def m004_pace_and_topics(db: Database) -> None:
    """Let the outbox hold other retained topics, and rows that wait for their turn; index devices by project."""
    execute_each(
        db,
        """CREATE TABLE outbox_new (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            kind TEXT NOT NULL CHECK (kind IN ('command', 'credential', 'topic')),
            device_pk INTEGER NOT NULL REFERENCES devices (pk), detail TEXT NOT NULL, created_at INTEGER NOT NULL,
            not_before INTEGER NOT NULL DEFAULT 0, UNIQUE (kind, device_pk, detail)) STRICT""",
        """INSERT INTO outbox_new (seq, kind, device_pk, detail, created_at)
            SELECT seq, kind, device_pk, detail, created_at FROM outbox""",
        "DROP TABLE outbox",
        "ALTER TABLE outbox_new RENAME TO outbox",
        "CREATE INDEX outbox_due ON outbox (kind, not_before, seq)",
        "CREATE INDEX outbox_by_device ON outbox (device_pk)",
        "CREATE INDEX devices_live ON devices (project_id) WHERE deleted_at IS NULL",
        "CREATE INDEX devices_deleted ON devices (deleted_at) WHERE deleted_at IS NOT NULL",
    )


@step
def m005_webhooks(db: Database) -> None:
    """Create webhooks and their deliveries; index the audit trail by type."""
    execute_each(
        db,
        """CREATE TABLE webhooks (
            id TEXT PRIMARY KEY, project_id TEXT NOT NULL REFERENCES projects (id), url TEXT NOT NULL,
            events TEXT NOT NULL, description TEXT, enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
            secret BLOB NOT NULL, cursor INTEGER NOT NULL, created_at INTEGER NOT NULL) STRICT""",
        "CREATE INDEX webhooks_by_project ON webhooks (project_id, id)",
        """CREATE TABLE deliveries (
            id TEXT PRIMARY KEY, webhook_id TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
            event_seq INTEGER NOT NULL REFERENCES events (seq) ON DELETE CASCADE,
            status TEXT NOT NULL CHECK (status IN ('pending', 'delivered', 'failed')), attempts INTEGER NOT NULL,
            response_status INTEGER, error TEXT, next_attempt_at INTEGER, last_attempt_at INTEGER,
            created_at INTEGER NOT NULL, UNIQUE (webhook_id, event_seq)) STRICT""",
        "CREATE INDEX deliveries_by_event ON deliveries (event_seq)",
        """CREATE INDEX deliveries_due ON deliveries (webhook_id, next_attempt_at) WHERE status = 'pending'""",
        "CREATE INDEX events_by_type ON events (project_id, type, seq)",
    )


@step
def m006_idempotency(db: Database) -> None:
    """Create answers kept under an ``Idempotency-Key``, and the previous secret of a rotated key."""
    execute_each(
        db,
        """CREATE TABLE idempotency (
            seq INTEGER PRIMARY KEY, caller TEXT NOT NULL, key_hash BLOB NOT NULL, request_hash BLOB NOT NULL,
            status INTEGER NOT NULL, answer BLOB NOT NULL, created_at INTEGER NOT NULL,
            UNIQUE (caller, key_hash)) STRICT""",
        "ALTER TABLE api_keys ADD COLUMN previous_hash BLOB",
        "ALTER TABLE api_keys ADD COLUMN previous_expires_at INTEGER",
        "ALTER TABLE api_keys ADD COLUMN rotated_at INTEGER",
        "CREATE UNIQUE INDEX api_keys_previous ON api_keys (previous_hash) WHERE previous_hash IS NOT NULL",
    )


@step
def m007_signing_key_use(db: Database) -> None:
    """Index which bindings rely on a signing key: every read of the public keys asks that."""
    execute_each(db, "CREATE INDEX tokens_by_signing_key ON tokens (grant_kid) WHERE state <> 'revoked'")


@step
def m008_integrators(db: Database) -> None:
    """Let the outbox hold what integrators see of a device; create accounts at the broker."""
    execute_each(
        db,
        """CREATE TABLE outbox_new (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            kind TEXT NOT NULL CHECK (kind IN ('command', 'credential', 'topic', 'shown')),
            device_pk INTEGER NOT NULL REFERENCES devices (pk), detail TEXT NOT NULL, created_at INTEGER NOT NULL,
            not_before INTEGER NOT NULL DEFAULT 0, UNIQUE (kind, device_pk, detail)) STRICT""",
        """INSERT INTO outbox_new (seq, kind, device_pk, detail, created_at, not_before)
            SELECT seq, kind, device_pk, detail, created_at, not_before FROM outbox""",
        "DROP TABLE outbox",
        "ALTER TABLE outbox_new RENAME TO outbox",
        "CREATE INDEX outbox_due ON outbox (kind, not_before, seq)",
        "CREATE INDEX outbox_by_device ON outbox (device_pk)",
        """CREATE TABLE broker_accounts (
            name TEXT PRIMARY KEY, hash BLOB NOT NULL, broker_entry TEXT NOT NULL, created_at INTEGER NOT NULL,
            revoked_at INTEGER) STRICT""",
    )


@step
def m009_history_chain(db: Database) -> None:
    """Make the history of a device a chain of its heartbeats, in place of an index over all."""
    execute_each(
        db,
        "ALTER TABLE heartbeats ADD COLUMN previous INTEGER",
        "ALTER TABLE health ADD COLUMN history_id INTEGER",
        "ALTER TABLE health ADD COLUMN history_day INTEGER",
        """CREATE TABLE history_days (
            device_pk INTEGER NOT NULL, day INTEGER NOT NULL, first_id INTEGER NOT NULL,
            PRIMARY KEY (device_pk, day)) STRICT, WITHOUT ROWID""",
        """UPDATE heartbeats SET previous = chain.previous FROM
            (SELECT id, lag(id) OVER (PARTITION BY device_pk ORDER BY id) AS previous FROM heartbeats) AS chain
            WHERE chain.id = heartbeats.id""",
        """INSERT INTO history_days (device_pk, day, first_id)
            SELECT device_pk, received_at / 86400000, min(id) FROM heartbeats GROUP BY 1, 2""",
        """UPDATE health SET history_id = newest.id, history_day = newest.received_at / 86400000 FROM
            (SELECT device_pk, max(id) AS id, received_at FROM heartbeats GROUP BY device_pk) AS newest
            WHERE newest.device_pk = health.device_pk""",
        "DROP INDEX heartbeats_by_device",
        "DROP INDEX heartbeats_once",
        "CREATE UNIQUE INDEX heartbeats_once ON heartbeats (sent_at, device_pk) WHERE sent_at IS NOT NULL",
    )


@step
def m010_traces(db: Database) -> None:
    """Store where the trace of a command continues, until it is acknowledged."""
    execute_each(db, "ALTER TABLE commands ADD COLUMN traceparent TEXT")
