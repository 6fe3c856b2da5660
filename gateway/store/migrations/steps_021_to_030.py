"""Schema steps 21 to 30: webhook secrets, broker sessions, MQTT passwords, event budgets, projects of accounts."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from gateway.core.serial_numbers import normalised
from gateway.store.migrations.step import execute_each, step

if TYPE_CHECKING:
    from sqlite_utils import Database


@step
def m021_webhook_rotation(db: Database) -> None:
    """Store the previous secret of a rotated webhook, and until when it signs too."""
    execute_each(
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
    execute_each(
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

    execute_each(db, "ALTER TABLE signing_keys ADD COLUMN public_key TEXT NOT NULL DEFAULT ''")
    for kid, private_key in db.execute("SELECT kid, private_key FROM signing_keys").fetchall():
        public = Ed25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()
        text = base64.urlsafe_b64encode(public).rstrip(b"=").decode()
        db.execute("UPDATE signing_keys SET public_key = ? WHERE kid = ?", [text, kid])


@step
def m024_mqtt_passwords(db: Database) -> None:
    """Store the hash of each token's MQTT password; an older token has none, and is itself its MQTT password."""
    execute_each(
        db,
        "ALTER TABLE tokens ADD COLUMN mqtt_hash BLOB",
        """CREATE INDEX tokens_without_mqtt_password ON tokens (device_pk)
            WHERE mqtt_hash IS NULL AND state <> 'revoked'""",
    )


@step
def m025_event_budgets(db: Database) -> None:
    """Store how many events of a type each device has caused lately, and how many were suppressed."""
    execute_each(
        db,
        """CREATE TABLE event_budgets (
            device_pk INTEGER NOT NULL REFERENCES devices (pk) ON DELETE CASCADE, type TEXT NOT NULL,
            paid_until INTEGER NOT NULL, suppressed INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (device_pk, type)) STRICT, WITHOUT ROWID""",
    )


@step
def m026_command_seq(db: Database) -> None:
    """Number commands by type and device; older ones were signed without a number."""
    execute_each(
        db,
        "ALTER TABLE commands ADD COLUMN seq INTEGER",
        "CREATE UNIQUE INDEX commands_by_seq ON commands (device_pk, type, seq) WHERE seq IS NOT NULL",
    )


@step
def m027_projects_of_accounts(db: Database) -> None:
    """Give accounts a project; older ones still read all projects."""
    execute_each(db, "ALTER TABLE broker_accounts ADD COLUMN project_id TEXT REFERENCES projects (id)")


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
    execute_each(
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


@step
def m030_leaked_keys(db: Database) -> None:
    """Store which signing keys are known to others: such a key announces no new one to a device."""
    execute_each(db, "ALTER TABLE signing_keys ADD COLUMN leaked_at INTEGER")
