"""Schema steps 31 to 40: evidence of resets, the data of end users, leases, tags, jobs, sign-in and brokers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.store.migrations.step import execute_each, step

if TYPE_CHECKING:
    from sqlite_utils import Database


@step
def m031_resets(db: Database) -> None:
    """Create resets, their certificates, and the salts of pseudonyms.

    Earlier resets are carried over with what is still known of them. Their certificates were never written, so they
    have none; one that is still open gets one when it ends.
    """
    execute_each(
        db,
        """CREATE TABLE resets (
            command_id TEXT PRIMARY KEY REFERENCES commands (id), device_pk INTEGER NOT NULL REFERENCES devices (pk),
            project_id TEXT NOT NULL REFERENCES projects (id), requested_at INTEGER NOT NULL, requested_by TEXT,
            reason TEXT, recordings TEXT NOT NULL CHECK (recordings IN ('keep', 'wipe')), request_id TEXT,
            end_user TEXT, serial_number TEXT NOT NULL, model TEXT NOT NULL, firmware_version TEXT,
            generation_before INTEGER NOT NULL, generation_after INTEGER, grant_kid TEXT, delivered_at INTEGER,
            finished_at INTEGER, outcome TEXT CHECK (outcome IN ('executed', 'failed', 'cancelled', 'superseded')),
            token_revoked_at INTEGER, sessions_closed_at INTEGER, retained_cleared_at INTEGER) STRICT""",
        "CREATE INDEX resets_by_project ON resets (project_id, requested_at, command_id)",
        "CREATE INDEX resets_by_finish ON resets (project_id, finished_at, command_id, outcome)",
        "CREATE INDEX resets_by_device ON resets (device_pk, command_id)",
        "CREATE INDEX resets_by_outcome ON resets (project_id, outcome, requested_at, command_id)",
        """CREATE TABLE certificates (
            id TEXT PRIMARY KEY, project_id TEXT NOT NULL REFERENCES projects (id), seq INTEGER NOT NULL,
            command_id TEXT NOT NULL REFERENCES resets (command_id),
            kind TEXT NOT NULL CHECK (kind IN ('first', 'addendum')),
            kid TEXT NOT NULL REFERENCES signing_keys (kid), created_at INTEGER NOT NULL, jws TEXT NOT NULL,
            sha256 TEXT NOT NULL, UNIQUE (project_id, seq)) STRICT""",
        "CREATE UNIQUE INDEX certificates_first ON certificates (command_id) WHERE kind = 'first'",
        "CREATE INDEX certificates_by_reset ON certificates (command_id, seq)",
        "CREATE INDEX certificates_by_key ON certificates (kid)",
        """CREATE TABLE end_user_salts (
            project_id TEXT NOT NULL REFERENCES projects (id), end_user_id TEXT NOT NULL, salt BLOB NOT NULL,
            PRIMARY KEY (project_id, end_user_id)) STRICT, WITHOUT ROWID""",
        """INSERT INTO resets (command_id, device_pk, project_id, requested_at, requested_by, recordings,
                serial_number, model, generation_before, delivered_at, finished_at, outcome)
            SELECT c.id, c.device_pk, d.project_id, c.created_at,
                (SELECT json_extract(e.data, '$.actor') FROM events e WHERE e.device_pk = c.device_pk
                    AND e.type = 'reset.requested' AND json_extract(e.data, '$.command_id') = c.id LIMIT 1),
                'keep', d.serial_number, d.model, c.binding_generation, c.delivered_at, c.final_at,
                CASE WHEN c.status IN ('pending', 'delivered') THEN NULL
                    WHEN c.status = 'cancelled' AND EXISTS (SELECT 1 FROM events e WHERE e.device_pk = c.device_pk
                        AND e.type = 'reset.superseded' AND json_extract(e.data, '$.command_id') = c.id)
                        THEN 'superseded'
                    WHEN c.status = 'expired' THEN 'cancelled' ELSE c.status END
            FROM commands c JOIN devices d ON d.pk = c.device_pk WHERE c.type = 'factory_reset'""",
    )


@step
def m032_bindings(db: Database) -> None:
    """Store who had which device when, who is being erased, and whom a kept answer names.

    The events that are still there tell of earlier bindings. Where the event of a bind is gone, the binding begins with
    the oldest event of its device. ``after_heartbeat`` stays null: what belongs to such a binding goes by time.
    """
    execute_each(
        db,
        """CREATE TABLE bindings (
            device_pk INTEGER NOT NULL REFERENCES devices (pk), generation INTEGER NOT NULL, project_id TEXT NOT NULL,
            end_user_id TEXT NOT NULL, bound_at INTEGER NOT NULL, unbound_at INTEGER, first_event INTEGER NOT NULL,
            last_event INTEGER, after_heartbeat INTEGER, last_heartbeat INTEGER,
            PRIMARY KEY (device_pk, generation)) STRICT, WITHOUT ROWID""",
        """INSERT INTO bindings (device_pk, generation, project_id, end_user_id, bound_at, unbound_at, first_event,
                last_event)
            WITH told AS (SELECT device_pk, project_id, type, seq, created_at,
                    json_extract(data, '$.end_user_id') AS end_user_id,
                    json_extract(data, '$.binding_generation') AS generation,
                    lag(type) OVER of_device AS before, lead(created_at) OVER of_device AS next_at,
                    lead(seq) OVER of_device AS next_seq
                FROM events WHERE type IN ('device.bound', 'device.unbound') AND device_pk IS NOT NULL
                WINDOW of_device AS (PARTITION BY device_pk ORDER BY seq))
            SELECT device_pk, generation, project_id, end_user_id, created_at, next_at, seq, next_seq FROM told
                WHERE type = 'device.bound' AND end_user_id IS NOT NULL AND generation IS NOT NULL
            UNION ALL
            SELECT device_pk, generation - 1, project_id, end_user_id,
                    (SELECT min(e.created_at) FROM events e WHERE e.device_pk = told.device_pk), created_at,
                    (SELECT min(e.seq) FROM events e WHERE e.device_pk = told.device_pk), seq
                FROM told WHERE type = 'device.unbound' AND before IS NULL AND end_user_id IS NOT NULL
                AND generation IS NOT NULL
            ON CONFLICT DO NOTHING""",
        """INSERT INTO bindings (device_pk, generation, project_id, end_user_id, bound_at, first_event)
            SELECT d.pk, d.binding_generation, d.project_id, d.end_user_id, d.bound_at,
                coalesce((SELECT min(e.seq) FROM events e WHERE e.device_pk = d.pk), 0)
            FROM devices d WHERE d.bound_at IS NOT NULL AND d.end_user_id IS NOT NULL AND NOT EXISTS
                (SELECT 1 FROM bindings b WHERE b.device_pk = d.pk AND b.unbound_at IS NULL)
            ON CONFLICT DO NOTHING""",
        "CREATE INDEX bindings_by_end_user ON bindings (project_id, end_user_id)",
        "CREATE INDEX bindings_ended ON bindings (unbound_at) WHERE unbound_at IS NOT NULL",
        """CREATE TABLE erasures (
            pseudonym TEXT PRIMARY KEY, project_id TEXT NOT NULL, end_user_id TEXT NOT NULL, actor TEXT NOT NULL,
            requested_at INTEGER NOT NULL, last_event INTEGER NOT NULL, counts TEXT NOT NULL,
            UNIQUE (project_id, end_user_id)) STRICT""",
        "ALTER TABLE idempotency ADD COLUMN end_user_id TEXT",
        "CREATE INDEX idempotency_by_end_user ON idempotency (end_user_id) WHERE end_user_id IS NOT NULL",
    )


@step
def m033_leases(db: Database) -> None:
    """Create leases, and the gateways that run on this registry."""
    execute_each(
        db,
        """CREATE TABLE gateways (
            gateway_id TEXT PRIMARY KEY, instance TEXT NOT NULL, version TEXT NOT NULL, host TEXT NOT NULL,
            http TEXT NOT NULL, broker_id TEXT NOT NULL, started_at INTEGER NOT NULL,
            seen_at INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
        """CREATE TABLE leases (
            name TEXT PRIMARY KEY, gateway_id TEXT NOT NULL, instance TEXT NOT NULL, epoch INTEGER NOT NULL,
            until INTEGER NOT NULL, taken_at INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
    )


@step
def m034_device_tags(db: Database) -> None:
    """Create tags of devices with an index of them, and add them to the index of texts."""
    execute_each(
        db,
        "ALTER TABLE devices ADD COLUMN tags TEXT NOT NULL DEFAULT ''",
        """CREATE TABLE device_tags (
            project_id TEXT NOT NULL REFERENCES projects (id), tag TEXT NOT NULL,
            device_pk INTEGER NOT NULL REFERENCES devices (pk),
            PRIMARY KEY (project_id, tag, device_pk)) STRICT, WITHOUT ROWID""",
        "DROP TABLE device_search",
        """CREATE VIRTUAL TABLE device_search USING fts5(id, serial_number, name, tags, content='devices',
            content_rowid='pk', tokenize='trigram', detail='none', columnsize=0)""",
        "INSERT INTO device_search (device_search) VALUES ('rebuild')",
    )


@step
def m035_jobs(db: Database) -> None:
    """Create jobs and their targets.

    The counts of a job are in its row, so a list of jobs reads no target. ``credit`` is what its pace has earned, in
    turns of a device times 60,000. A target without ``device_pk`` is an id that the project does not know.
    """
    execute_each(
        db,
        """CREATE TABLE jobs (
            id TEXT PRIMARY KEY, project_id TEXT NOT NULL REFERENCES projects (id), name TEXT NOT NULL, reason TEXT,
            type TEXT NOT NULL, params TEXT NOT NULL, ttl_seconds INTEGER,
            status TEXT NOT NULL CHECK (status IN
                ('preparing', 'scheduled', 'running', 'paused', 'completed', 'aborted', 'cancelled')),
            created_by TEXT NOT NULL, created_at INTEGER NOT NULL, start_at INTEGER, started_at INTEGER,
            paused_at INTEGER, finished_at INTEGER, aborted_because TEXT,
            per_minute INTEGER NOT NULL, ramp_from INTEGER, ramp_double_ms INTEGER,
            failed_percent INTEGER, min_done INTEGER,
            total INTEGER NOT NULL DEFAULT 0, queued INTEGER NOT NULL DEFAULT 0,
            delivered INTEGER NOT NULL DEFAULT 0, executed INTEGER NOT NULL DEFAULT 0,
            failed INTEGER NOT NULL DEFAULT 0, cancelled INTEGER NOT NULL DEFAULT 0,
            skipped INTEGER NOT NULL DEFAULT 0,
            held_until INTEGER NOT NULL DEFAULT 0, paced_at INTEGER NOT NULL DEFAULT 0,
            active_ms INTEGER NOT NULL DEFAULT 0, credit INTEGER NOT NULL DEFAULT 0,
            cancelled_by TEXT, taking_back INTEGER NOT NULL DEFAULT 0 CHECK (taking_back IN (0, 1))) STRICT""",
        "CREATE INDEX jobs_by_project ON jobs (project_id, id)",
        "CREATE INDEX jobs_by_status ON jobs (status, project_id, id)",
        "CREATE INDEX jobs_taken_back ON jobs (id) WHERE taking_back = 1",
        """CREATE TABLE job_targets (
            job_id TEXT NOT NULL REFERENCES jobs (id), position INTEGER NOT NULL,
            device_pk INTEGER REFERENCES devices (pk), unknown_id TEXT, binding_generation INTEGER,
            outcome TEXT NOT NULL CHECK (outcome IN
                ('waiting', 'queued', 'delivered', 'executed', 'failed', 'cancelled', 'skipped')),
            reason TEXT, command_id TEXT, changed_at INTEGER, PRIMARY KEY (job_id, position)) STRICT, WITHOUT ROWID""",
        "CREATE INDEX job_targets_by_outcome ON job_targets (job_id, outcome, position)",
        "CREATE UNIQUE INDEX job_targets_by_command ON job_targets (command_id) WHERE command_id IS NOT NULL",
    )


@step
def m036_people(db: Database) -> None:
    """Create the people who sign in, their sessions, and values that the provider may use once."""
    execute_each(
        db,
        """CREATE TABLE people (
            sub TEXT PRIMARY KEY, name TEXT NOT NULL, created_at INTEGER NOT NULL, last_seen_at INTEGER NOT NULL)
            STRICT, WITHOUT ROWID""",
        """CREATE TABLE sessions (
            id TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, sub TEXT NOT NULL REFERENCES people (sub),
            project_id TEXT NOT NULL REFERENCES projects (id), role TEXT NOT NULL, sid TEXT,
            created_at INTEGER NOT NULL, last_used_at INTEGER NOT NULL, checked_at INTEGER NOT NULL,
            confirmed_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, ended_at INTEGER, ended_because TEXT,
            sealed BLOB) STRICT""",
        "CREATE INDEX sessions_by_person ON sessions (sub)",
        "CREATE INDEX sessions_by_sid ON sessions (sid) WHERE sid IS NOT NULL",
        """CREATE TABLE spent_tokens (
            hash BLOB PRIMARY KEY, expires_at INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
    )


@step
def m037_event_actor(db: Database) -> None:
    """Store who acted beside each event, and the names of who asked for resets and jobs.

    An index finds the events of an actor. Null is the device to which it happened: most events are those,
    and the index leaves them out. Names of earlier resets and jobs are those that their keys have now.
    """
    execute_each(
        db,
        "ALTER TABLE events ADD COLUMN actor TEXT",
        """UPDATE events SET actor = json_extract(data, '$.actor') WHERE json_valid(data) AND (device_pk IS NULL
            OR json_extract(data, '$.actor') <> (SELECT d.id FROM devices d WHERE d.pk = device_pk))""",
        """CREATE INDEX events_by_actor ON events (project_id, actor, seq, type, created_at)
            WHERE actor IS NOT NULL""",
        "ALTER TABLE resets ADD COLUMN requested_by_name TEXT",
        """UPDATE resets SET requested_by_name = (SELECT k.name FROM api_keys k
            WHERE k.id = requested_by AND k.project_id = resets.project_id
                AND k.name NOT LIKE '%eu!_%' ESCAPE '!')""",
        "ALTER TABLE jobs ADD COLUMN created_by_name TEXT",
        """UPDATE jobs SET created_by_name = (SELECT k.name FROM api_keys k
            WHERE k.id = created_by AND k.project_id = jobs.project_id
                AND k.name NOT LIKE '%eu!_%' ESCAPE '!')""",
    )


@step
def m038_thinned_heartbeats(db: Database) -> None:
    """Create the table of hours that old heartbeats are thinned to."""
    execute_each(
        db,
        """CREATE TABLE thinned_heartbeats (
            device_pk INTEGER NOT NULL REFERENCES devices (pk), hour INTEGER NOT NULL, generation INTEGER NOT NULL,
            first_id INTEGER NOT NULL, heartbeats INTEGER NOT NULL, first_received_at INTEGER NOT NULL,
            received_at INTEGER NOT NULL, sent_at INTEGER, battery_percent ANY, battery_percent_first ANY,
            battery_percent_min ANY, battery_percent_max ANY, storage_used_mb ANY, storage_used_mb_first ANY,
            storage_used_mb_min ANY, storage_used_mb_max ANY, storage_total_mb ANY, signal_strength_dbm ANY,
            signal_strength_dbm_min ANY, signal_strength_dbm_max ANY, firmware_version TEXT, device_state TEXT,
            pending_recordings INTEGER, pending_recordings_max INTEGER, flags INTEGER, radio TEXT,
            PRIMARY KEY (device_pk, hour, generation)) STRICT, WITHOUT ROWID""",
        "CREATE INDEX thinned_heartbeats_by_age ON thinned_heartbeats (hour)",
    )


@step
def m039_brokers(db: Database) -> None:
    """Create the brokers of a registry, and let the outbox, sessions and presence name one of them.

    What was there belongs to the first broker. It has the id that its owner used last. ``added_at`` is null until a
    gateway registers for it: the first one may give it another id.
    """
    execute_each(
        db,
        """CREATE TABLE brokers (
            pk INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, added_at INTEGER, compared_at INTEGER,
            away_since INTEGER, left_out_at INTEGER,
            connected INTEGER NOT NULL DEFAULT 0 CHECK (connected IN (0, 1)),
            knows_tokens INTEGER NOT NULL DEFAULT 1 CHECK (knows_tokens IN (0, 1))) STRICT""",
        """INSERT INTO brokers (pk, id, added_at) SELECT 1,
            coalesce((SELECT substr(name, 8) FROM leases WHERE name LIKE 'broker:%' ORDER BY taken_at DESC LIMIT 1),
                'default'), (SELECT max(taken_at) FROM leases WHERE name LIKE 'broker:%')""",
        """CREATE TABLE broker_facts (
            broker_pk INTEGER NOT NULL REFERENCES brokers (pk), key TEXT NOT NULL, value TEXT NOT NULL,
            PRIMARY KEY (broker_pk, key)) STRICT, WITHOUT ROWID""",
        f"INSERT INTO broker_facts (broker_pk, key, value) SELECT 1, key, value FROM meta WHERE key IN {_OF_BROKER}",  # noqa: S608 - constants
        f"DELETE FROM meta WHERE key IN {_OF_BROKER}",  # noqa: S608 - constants
        """INSERT INTO broker_facts (broker_pk, key, value) SELECT 1, 'sessions_cut:' || name,
            CAST(created_at AS TEXT) FROM broker_accounts WHERE old_sessions_cut = 1""",
        "ALTER TABLE broker_accounts DROP COLUMN old_sessions_cut",
        """CREATE TABLE outbox_new (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            kind TEXT NOT NULL CHECK (kind IN ('command', 'credential', 'topic', 'mirror')),
            device_pk INTEGER NOT NULL REFERENCES devices (pk), detail TEXT NOT NULL, created_at INTEGER NOT NULL,
            not_before INTEGER NOT NULL DEFAULT 0, broker_pk INTEGER NOT NULL DEFAULT 1,
            UNIQUE (device_pk, kind, detail, broker_pk)) STRICT""",
        """INSERT INTO outbox_new (seq, kind, device_pk, detail, created_at, not_before)
            SELECT seq, kind, device_pk, detail, created_at, not_before FROM outbox""",
        "DROP TABLE outbox",
        "ALTER TABLE outbox_new RENAME TO outbox",
        "CREATE INDEX outbox_due ON outbox (broker_pk, kind, not_before, seq)",
        """CREATE TABLE broker_sessions_new (
            broker_pk INTEGER NOT NULL DEFAULT 1, client_id TEXT NOT NULL, username TEXT NOT NULL,
            credential INTEGER NOT NULL, let_in_at INTEGER NOT NULL, PRIMARY KEY (broker_pk, client_id))
            STRICT, WITHOUT ROWID""",
        """INSERT INTO broker_sessions_new (broker_pk, client_id, username, credential, let_in_at)
            SELECT 1, client_id, username, credential, let_in_at FROM broker_sessions""",
        "DROP TABLE broker_sessions",
        "ALTER TABLE broker_sessions_new RENAME TO broker_sessions",
        "CREATE INDEX broker_sessions_by_user ON broker_sessions (username, broker_pk, let_in_at)",
        "ALTER TABLE health ADD COLUMN broker_pk INTEGER NOT NULL DEFAULT 1",
        "DROP INDEX health_due",
        "CREATE INDEX health_due ON health (offline_due_at, broker_pk) WHERE connection = 'online'",
    )


_OF_BROKER: Final = (
    "('events_told', 'peer_statuses', 'backlog_taken_in', 'epoch_announced', 'mirror_state', 'mirror_project_state', "
    "'mirror_discovery', 'mosquitto_swept')"
)
"""Facts of the registry that are facts of its broker."""
