"""Schema as named migrations: each is applied once, and recorded in the same transaction.

A migration that has landed is never edited; a later change is a new one. ``docs/store.md`` describes the tables. Times
are milliseconds since the epoch, documents are JSON text.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from gateway.core.serial_numbers import normalised

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from sqlite_utils import Database

_SET: Final = "gateway"
_STEPS: Final[list[Callable[[Database], None]]] = []


def step(function: Callable[[Database], None]) -> Callable[[Database], None]:
    """Register the next migration, which has the name of the function."""
    _STEPS.append(function)
    return function


def steps() -> list[str]:
    """Return the names of all steps, in order."""
    return [each.__name__ for each in _STEPS]


def migrate(connection: sqlite3.Connection) -> list[str]:
    """Apply the missing steps, in order; return their names."""
    wanting = missing(connection)
    if wanting:
        apply(connection)
    return wanting


def missing(connection: sqlite3.Connection) -> list[str]:
    """Return the names of the missing steps, in order."""
    applied = _applied(connection)
    return [name for name in steps() if name not in applied]


def newest_applied(connection: sqlite3.Connection) -> str | None:
    """Return the last applied step, or None for an empty database."""
    return max(_applied(connection), default=None)


def apply(connection: sqlite3.Connection, stop_before: str | None = None) -> None:
    """Apply missing steps, all of them or up to one, each in a transaction that also records it."""
    from sqlite_utils import Database  # noqa: PLC0415 - 2 MB, which only the first start of a version needs
    from sqlite_utils.migrations import Migrations  # noqa: PLC0415 - the same

    migrations = Migrations(_SET)
    for each in _STEPS:
        migrations()(each)
    migrations.apply(Database(connection), stop_before=stop_before)


def from_a_newer_gateway(connection: sqlite3.Connection) -> str | None:
    """Return the last applied step that this program does not know, or None."""
    return max(_applied(connection) - set(steps()), default=None)


class SchemaWatch:
    """Notices that another program has migrated the registry."""

    def __init__(self) -> None:
        self._known: int | None = None

    def newer(self, connection: sqlite3.Connection, data_version: int) -> str | None:
        """Return the step that this program does not know, if one was applied by now.

        While ``data_version`` (the pragma) stays the same, no other connection has committed anything.
        """
        if data_version == self._known:
            return None
        found = from_a_newer_gateway(connection)
        if found is None:
            self._known = data_version
        return found


def _applied(connection: sqlite3.Connection) -> set[str]:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone():
        return set()
    rows = connection.execute("SELECT name FROM _sqlite_migrations WHERE migration_set = ?", (_SET,))
    return {row[0] for row in rows}


@step
def m001_registry(db: Database) -> None:
    """Create projects, keys, devices and the tokens of their bindings."""
    _each(
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
    _each(
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
    _each(
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
    _each(
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
    _each(
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
    _each(
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
    _each(db, "CREATE INDEX tokens_by_signing_key ON tokens (grant_kid) WHERE state <> 'revoked'")


@step
def m008_integrators(db: Database) -> None:
    """Let the outbox hold what integrators see of a device; create accounts at the broker."""
    _each(
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
    _each(
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
    _each(db, "ALTER TABLE commands ADD COLUMN traceparent TEXT")


@step
def m011_device_orders(db: Database) -> None:
    """Create indexes for the orders of the list of devices; that by serial number is its constraint's."""
    _each(
        db,
        "CREATE INDEX devices_by_updated ON devices (project_id, updated_at) WHERE deleted_at IS NULL",
        """CREATE INDEX devices_by_name ON devices (project_id, lower(coalesce(name, ''))) WHERE deleted_at IS NULL""",
    )


@step
def m012_links_in_use(db: Database) -> None:
    """Store the links that a device reports, as it lists them."""
    _each(db, "ALTER TABLE health ADD COLUMN connection_type TEXT")


@step
def m013_webhook_gaps(db: Database) -> None:
    """Create the gaps of webhooks and replays of deliveries; index what is pruned by its age."""
    _each(
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
    _each(
        db,
        "ALTER TABLE commands ADD COLUMN ttl_ms INTEGER",
        "UPDATE commands SET ttl_ms = expires_at - created_at WHERE expires_at IS NOT NULL",
        """CREATE INDEX commands_dated ON commands (expires_at - ttl_ms)
            WHERE status IN ('pending', 'delivered') AND expires_at IS NOT NULL""",
    )


@step
def m015_commands_sent(db: Database) -> None:
    """Store when a command may first have reached its device; that of open commands is unknown."""
    _each(
        db,
        "ALTER TABLE commands ADD COLUMN sent_at INTEGER",
        "UPDATE commands SET sent_at = created_at WHERE status IN ('pending', 'delivered')",
    )


@step
def m016_device_search(db: Database) -> None:
    """Index the text of devices by pieces of three characters (see ``device_search``), and rare filters."""
    _each(
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
    _each(db, "ALTER TABLE broker_accounts ADD COLUMN old_sessions_cut INTEGER NOT NULL DEFAULT 0")


@step
def m018_devices_at_broker(db: Database) -> None:
    """Store whether a device's last message came over MQTT: only then a retained ``offline`` counts."""
    _each(db, "ALTER TABLE health ADD COLUMN at_broker INTEGER NOT NULL DEFAULT 0")


@step
def m019_search_of_end_users(db: Database) -> None:
    """Take end users out of the text index; they have a separate index, so a reset need not write the text index."""
    _each(
        db,
        "DROP TABLE device_search",
        """CREATE VIRTUAL TABLE device_search USING fts5(id, serial_number, name, content='devices', content_rowid='pk',
            tokenize='trigram', detail='none', columnsize=0)""",
        "INSERT INTO device_search (device_search) VALUES ('rebuild')",
    )


@step
def m020_bytes_of_idempotency(db: Database) -> None:
    """Store the bytes of kept answers per API key and device, with an index of their oldest."""
    _each(
        db,
        "ALTER TABLE idempotency ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
        """UPDATE idempotency SET owner = CASE WHEN instr(caller, '/') = 0 THEN caller
            ELSE substr(caller, 1, instr(caller, '/') - 1) END""",
        "CREATE INDEX idempotency_by_owner ON idempotency (owner, seq)",
        """CREATE TABLE idempotency_use (owner TEXT PRIMARY KEY, bytes INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
        """INSERT INTO idempotency_use (owner, bytes)
            SELECT owner, sum(length(answer) + 256) FROM idempotency GROUP BY owner""",
    )


@step
def m021_webhook_rotation(db: Database) -> None:
    """Store the previous secret of a rotated webhook, and until when it signs too."""
    _each(
        db,
        "ALTER TABLE webhooks ADD COLUMN previous_secret BLOB",
        "ALTER TABLE webhooks ADD COLUMN previous_expires_at INTEGER",
        "ALTER TABLE webhooks ADD COLUMN rotated_at INTEGER",
    )


@step
def m022_broker_sessions(db: Database) -> None:
    """Store the last credential of each client id, at a broker that authenticates through the gateway.

    A device that was never bound before can only have a session of its present binding.
    """
    _each(
        db,
        """CREATE TABLE broker_sessions (client_id TEXT PRIMARY KEY, username TEXT NOT NULL,
            credential INTEGER NOT NULL, let_in_at INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
        "CREATE INDEX broker_sessions_by_user ON broker_sessions (username, let_in_at)",
        """INSERT INTO broker_sessions (client_id, username, credential, let_in_at)
            SELECT d.id, d.id, max(t.id), max(t.first_used_at) FROM tokens t JOIN devices d ON d.pk = t.device_pk
            WHERE t.state <> 'revoked' AND t.first_used_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM tokens o
                WHERE o.device_pk = t.device_pk AND o.generation < t.generation AND o.first_used_at IS NOT NULL)
            GROUP BY d.pk""",
    )


@step
def m023_public_keys(db: Database) -> None:
    """Store the public half of each signing key, so that its readers need no private one."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - for this alone

    _each(db, "ALTER TABLE signing_keys ADD COLUMN public_key TEXT NOT NULL DEFAULT ''")
    for kid, private_key in db.execute("SELECT kid, private_key FROM signing_keys").fetchall():
        public = Ed25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()
        text = base64.urlsafe_b64encode(public).rstrip(b"=").decode()
        db.execute("UPDATE signing_keys SET public_key = ? WHERE kid = ?", [text, kid])


@step
def m024_mqtt_passwords(db: Database) -> None:
    """Store the hash of each token's MQTT password; an older token has none, and is itself its MQTT password."""
    _each(
        db,
        "ALTER TABLE tokens ADD COLUMN mqtt_hash BLOB",
        """CREATE INDEX tokens_without_mqtt_password ON tokens (device_pk)
            WHERE mqtt_hash IS NULL AND state <> 'revoked'""",
    )


@step
def m025_event_budgets(db: Database) -> None:
    """Store how many events of a type each device has caused lately, and how many were suppressed."""
    _each(
        db,
        """CREATE TABLE event_budgets (
            device_pk INTEGER NOT NULL REFERENCES devices (pk) ON DELETE CASCADE, type TEXT NOT NULL,
            paid_until INTEGER NOT NULL, suppressed INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (device_pk, type)) STRICT, WITHOUT ROWID""",
    )


@step
def m026_command_seq(db: Database) -> None:
    """Number commands by type and device; older ones were signed without a number."""
    _each(
        db,
        "ALTER TABLE commands ADD COLUMN seq INTEGER",
        "CREATE UNIQUE INDEX commands_by_seq ON commands (device_pk, type, seq) WHERE seq IS NOT NULL",
    )


@step
def m027_projects_of_accounts(db: Database) -> None:
    """Give accounts a project; older ones still read all projects."""
    _each(db, "ALTER TABLE broker_accounts ADD COLUMN project_id TEXT REFERENCES projects (id)")


@step
def m028_serial_numbers(db: Database) -> None:
    """Normalise serial numbers. Where that makes two devices equal, both keep their own spelling."""
    rows = db.execute("SELECT pk, project_id, serial_number FROM devices").fetchall()
    taken = {(project_id, serial_number) for _, project_id, serial_number in rows}
    changed = False
    for pk, project_id, serial_number in rows:
        kept = normalised(serial_number)
        if kept and (project_id, kept) not in taken:
            taken.add((project_id, kept))
            db.execute("UPDATE devices SET serial_number = ? WHERE pk = ?", [kept, pk])
            changed = True
    if changed:
        db.execute("INSERT INTO device_search (device_search) VALUES ('rebuild')")


@step
def m029_mirror(db: Database) -> None:
    """Rename the outbox kind ``shown`` to ``mirror``: what integrators see of a device, retained."""
    _each(
        db,
        """CREATE TABLE outbox_new (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            kind TEXT NOT NULL CHECK (kind IN ('command', 'credential', 'topic', 'mirror')),
            device_pk INTEGER NOT NULL REFERENCES devices (pk), detail TEXT NOT NULL, created_at INTEGER NOT NULL,
            not_before INTEGER NOT NULL DEFAULT 0, UNIQUE (kind, device_pk, detail)) STRICT""",
        """INSERT INTO outbox_new (seq, kind, device_pk, detail, created_at, not_before)
            SELECT seq, CASE kind WHEN 'shown' THEN 'mirror' ELSE kind END, device_pk, detail, created_at, not_before
            FROM outbox""",
        "DROP TABLE outbox",
        "ALTER TABLE outbox_new RENAME TO outbox",
        "CREATE INDEX outbox_due ON outbox (kind, not_before, seq)",
        "CREATE INDEX outbox_by_device ON outbox (device_pk)",
        """UPDATE meta SET key = replace(key, 'shown_', 'mirror_')
            WHERE key IN ('shown_state', 'shown_project_state', 'shown_discovery')""",
    )


def _each(db: Database, *statements: str) -> None:
    for statement in statements:
        db.execute(statement)
