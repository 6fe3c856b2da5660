"""A registry of an earlier version, with a row in every table."""

import sqlite3
from contextlib import closing
from pathlib import Path

from gateway.store import DATABASE_NAME
from gateway.store.schema import apply, steps
from gateway.store.sqlite.connection import connect, create_private

STEPS = steps()


def some_data(connection: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    """A row in each table that there is, as far as the steps have come; what is in them then."""
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    for table, row in ROWS.items():
        if table in tables:
            columns, marks = ", ".join(row), ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", list(row.values()))  # noqa: S608 - constants
    return {table: rows(connection, table) for table in ROWS if table in tables}


def rows(connection: sqlite3.Connection, table: str) -> list[tuple[object, ...]]:
    """Return what a table holds, in the columns of ``ROWS``."""
    columns = ", ".join(ROWS[table])
    return [tuple(row) for row in connection.execute(f"SELECT {columns} FROM {table}")]  # noqa: S608 - constants


ROWS: dict[str, dict[str, object]] = {
    "meta": {"key": "gateway_id", "value": "gw_1"},
    "projects": {"id": "proj_1", "name": "ward", "created_at": 1},
    "signing_keys": {"kid": "k1", "private_key": bytes(32), "created_at": 1},
    "devices": {
        "pk": 1,
        "id": "dev_1",
        "project_id": "proj_1",
        "serial_number": "SN-1",
        "model": "m",
        "created_at": 1,
        "updated_at": 1,
    },
    "device_counts": {"project_id": "proj_2", "total": 1},
    "device_states": {"project": "other", "state": 0, "device_pk": 1},
    "device_tags": {"project_id": "proj_1", "tag": "pilot", "device_pk": 1},
    "tokens": {
        "device_pk": 1,
        "generation": 1,
        "hash": b"h",
        "broker_entry": "$6$",
        "state": "active",
        "grant_kid": "k1",
        "created_at": 1,
    },
    "api_keys": {
        "id": "key_1",
        "project_id": "proj_1",
        "name": "n",
        "hash": b"h",
        "hint": "sk_live_",
        "scopes": "[]",
        "created_at": 1,
    },
    "health": {"device_pk": 1, "battery_percent": 80.5, "connection": "online"},
    "event_budgets": {"device_pk": 1, "type": "device.online", "paid_until": 1},
    "heartbeats": {"device_pk": 1, "received_at": 1, "sent_at": 1, "battery_percent": 80},
    "history_days": {"device_pk": 1, "day": 9, "first_id": 1},
    "thinned_heartbeats": {
        "device_pk": 1,
        "hour": 9,
        "generation": 1,
        "first_id": 1,
        "heartbeats": 2,
        "first_received_at": 1,
        "received_at": 2,
        "battery_percent": 80.5,
    },
    "refusals": {"at": 1, "source": "s", "code": "c", "message": "m", "payload": "p"},
    "commands": {
        "id": "cmd_1",
        "device_pk": 1,
        "type": "reboot",
        "status": "pending",
        "params": "{}",
        "binding_generation": 1,
        "grant_token": "g",
        "created_at": 1,
    },
    "resets": {
        "command_id": "cmd_1",
        "device_pk": 1,
        "project_id": "proj_1",
        "requested_at": 1,
        "recordings": "wipe",
        "serial_number": "SN-1",
        "model": "m",
        "generation_before": 1,
    },
    "certificates": {
        "id": "cert_1",
        "project_id": "proj_1",
        "seq": 1,
        "command_id": "cmd_1",
        "kind": "first",
        "kid": "k1",
        "created_at": 1,
        "jws": "a.b.c",
        "sha256": "00",
    },
    "end_user_salts": {"project_id": "proj_1", "end_user_id": "eu_1", "salt": bytes(32)},
    "events": {
        "id": "evt_1",
        "project_id": "proj_1",
        "device_pk": 1,
        "type": "device.bound",
        "created_at": 1,
        "data": "{}",
    },
    "webhooks": {
        "id": "wh_1",
        "project_id": "proj_1",
        "url": "https://example.com",
        "events": "[]",
        "enabled": 1,
        "secret": bytes(24),
        "cursor": 0,
        "created_at": 1,
    },
    "webhook_gaps": {"webhook_id": "wh_1", "after_seq": 1, "up_to": 2},
    "deliveries": {
        "id": "dlv_1",
        "webhook_id": "wh_1",
        "event_seq": 1,
        "status": "pending",
        "attempts": 0,
        "created_at": 1,
    },
    "idempotency_use": {"owner": "dev_9", "bytes": 300},
    "idempotency": {
        "caller": "key_1",
        "key_hash": b"k",
        "request_hash": b"r",
        "status": 201,
        "answer": b"a",
        "created_at": 1,
    },
    "bindings": {
        "device_pk": 1,
        "generation": 7,
        "project_id": "proj_1",
        "end_user_id": "eu_7",
        "bound_at": 1,
        "first_event": 1,
    },
    "erasures": {
        "pseudonym": "eu_erased1",
        "project_id": "proj_1",
        "end_user_id": "eu_8",
        "actor": "cli",
        "requested_at": 1,
        "last_event": 1,
        "counts": "{}",
    },
    "broker_accounts": {"name": "integrator", "hash": b"h", "broker_entry": "$6$", "created_at": 1},
    "broker_sessions": {"client_id": "dev_1", "username": "dev_1", "credential": 1, "let_in_at": 1},
    "brokers": {"pk": 2, "id": "brk_b", "added_at": 1},
    "homes": {"device_pk": 1, "broker_pk": 2, "since": 1},
    "broker_facts": {"broker_pk": 2, "key": "events_told", "value": "1"},
    "gateways": {
        "gateway_id": "gw_1",
        "instance": "i",
        "version": "1",
        "host": "h",
        "http": "http://h",
        "broker_id": "default",
        "started_at": 1,
        "seen_at": 1,
    },
    "leases": {"name": "fleet", "gateway_id": "gw_1", "instance": "i", "epoch": 1, "until": 1, "taken_at": 1},
    "jobs": {
        "id": "job_1",
        "project_id": "proj_1",
        "name": "recall",
        "type": "factory_reset",
        "params": "{}",
        "status": "running",
        "created_by": "key_1",
        "created_at": 1,
        "per_minute": 600,
    },
    "job_targets": {"job_id": "job_1", "position": 0, "device_pk": 1, "binding_generation": 7, "outcome": "waiting"},
    "people": {"sub": "ann", "name": "Ann", "created_at": 1, "last_seen_at": 1},
    "sessions": {
        "id": "ses_1",
        "hash": b"h",
        "sub": "ann",
        "project_id": "proj_1",
        "role": "viewer",
        "created_at": 1,
        "last_used_at": 1,
        "checked_at": 1,
        "confirmed_at": 1,
        "expires_at": 1,
    },
    "spent_tokens": {"hash": b"h", "expires_at": 1},
    "outbox": {"kind": "command", "device_pk": 1, "detail": "reboot", "created_at": 1},
}


def older(data_dir: Path, present: int = -1) -> None:
    """A registry of an earlier version, with data."""
    create_private(data_dir / DATABASE_NAME)
    with closing(connect(data_dir / DATABASE_NAME)) as connection:
        apply(connection, stop_before=STEPS[present])
        some_data(connection)
