"""Schema steps 31 to 40 on PostgreSQL (:mod:`gateway.store.postgres.steps`)."""

from __future__ import annotations

from typing import Final

P031: Final = (
    """CREATE TABLE resets (
        command_id text COLLATE "C" PRIMARY KEY REFERENCES commands (id),
        device_pk bigint NOT NULL REFERENCES devices (pk),
        project_id text COLLATE "C" NOT NULL REFERENCES projects (id), requested_at bigint NOT NULL,
        requested_by text COLLATE "C", reason text COLLATE "C",
        recordings text COLLATE "C" NOT NULL CHECK (recordings IN ('keep', 'wipe')), request_id text COLLATE "C",
        end_user text COLLATE "C", serial_number text COLLATE "C" NOT NULL, model text COLLATE "C" NOT NULL,
        firmware_version text COLLATE "C", generation_before bigint NOT NULL, generation_after bigint,
        grant_kid text COLLATE "C", delivered_at bigint, finished_at bigint, outcome text COLLATE "C"
            CHECK (outcome IN ('executed', 'failed', 'cancelled', 'superseded')),
        token_revoked_at bigint, sessions_closed_at bigint, retained_cleared_at bigint)""",
    "CREATE INDEX resets_by_project ON resets (project_id, requested_at, command_id)",
    "CREATE INDEX resets_by_finish ON resets (project_id, finished_at, command_id, outcome)",
    "CREATE INDEX resets_by_device ON resets (device_pk, command_id)",
    "CREATE INDEX resets_by_outcome ON resets (project_id, outcome, requested_at, command_id)",
    """CREATE TABLE certificates (
        id text COLLATE "C" PRIMARY KEY, project_id text COLLATE "C" NOT NULL REFERENCES projects (id),
        seq bigint NOT NULL, command_id text COLLATE "C" NOT NULL REFERENCES resets (command_id),
        kind text COLLATE "C" NOT NULL CHECK (kind IN ('first', 'addendum')),
        kid text COLLATE "C" NOT NULL REFERENCES signing_keys (kid), created_at bigint NOT NULL,
        jws text COLLATE "C" NOT NULL, sha256 text COLLATE "C" NOT NULL, UNIQUE (project_id, seq))""",
    "CREATE UNIQUE INDEX certificates_first ON certificates (command_id) WHERE kind = 'first'",
    "CREATE INDEX certificates_by_reset ON certificates (command_id, seq)",
    "CREATE INDEX certificates_by_key ON certificates (kid)",
    """CREATE TABLE end_user_salts (
        project_id text COLLATE "C" NOT NULL REFERENCES projects (id), end_user_id text COLLATE "C" NOT NULL,
        salt bytea NOT NULL, PRIMARY KEY (project_id, end_user_id))""",
    """INSERT INTO resets (command_id, device_pk, project_id, requested_at, requested_by, recordings,
            serial_number, model, generation_before, delivered_at, finished_at, outcome)
        SELECT c.id, c.device_pk, d.project_id, c.created_at,
            (SELECT e.data::json ->> 'actor' FROM events e WHERE e.device_pk = c.device_pk
                AND e.type = 'reset.requested' AND e.data::json ->> 'command_id' = c.id LIMIT 1),
            'keep', d.serial_number, d.model, c.binding_generation, c.delivered_at, c.final_at,
            CASE WHEN c.status IN ('pending', 'delivered') THEN NULL
                WHEN c.status = 'cancelled' AND EXISTS (SELECT 1 FROM events e WHERE e.device_pk = c.device_pk
                    AND e.type = 'reset.superseded' AND e.data::json ->> 'command_id' = c.id) THEN 'superseded'
                WHEN c.status = 'expired' THEN 'cancelled' ELSE c.status END
        FROM commands c JOIN devices d ON d.pk = c.device_pk WHERE c.type = 'factory_reset'""",
)
P032: Final = (
    """CREATE TABLE bindings (
        device_pk bigint NOT NULL REFERENCES devices (pk), generation bigint NOT NULL,
        project_id text COLLATE "C" NOT NULL, end_user_id text COLLATE "C" NOT NULL, bound_at bigint NOT NULL,
        unbound_at bigint, first_event bigint NOT NULL, last_event bigint, after_heartbeat bigint,
        last_heartbeat bigint, PRIMARY KEY (device_pk, generation))""",
    """INSERT INTO bindings (device_pk, generation, project_id, end_user_id, bound_at, unbound_at, first_event,
            last_event)
        WITH told AS (SELECT device_pk, project_id, type, seq, created_at,
                data::json #>> '{end_user_id}' AS end_user_id,
                CAST(data::json #>> '{binding_generation}' AS bigint) AS generation,
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
        pseudonym text COLLATE "C" PRIMARY KEY, project_id text COLLATE "C" NOT NULL,
        end_user_id text COLLATE "C" NOT NULL, actor text COLLATE "C" NOT NULL, requested_at bigint NOT NULL,
        last_event bigint NOT NULL, counts text COLLATE "C" NOT NULL, UNIQUE (project_id, end_user_id))""",
    'ALTER TABLE idempotency ADD COLUMN end_user_id text COLLATE "C"',
    "CREATE INDEX idempotency_by_end_user ON idempotency (end_user_id) WHERE end_user_id IS NOT NULL",
)
P033: Final = (
    """CREATE TABLE gateways (
        gateway_id text COLLATE "C" PRIMARY KEY, instance text COLLATE "C" NOT NULL,
        version text COLLATE "C" NOT NULL, host text COLLATE "C" NOT NULL, http text COLLATE "C" NOT NULL,
        broker_id text COLLATE "C" NOT NULL, started_at bigint NOT NULL, seen_at bigint NOT NULL)
        WITH (fillfactor = 50)""",
    """CREATE TABLE leases (
        name text COLLATE "C" PRIMARY KEY, gateway_id text COLLATE "C" NOT NULL,
        instance text COLLATE "C" NOT NULL, epoch bigint NOT NULL, until bigint NOT NULL,
        taken_at bigint NOT NULL) WITH (fillfactor = 50)""",
)
P034: Final = (
    "ALTER TABLE devices ADD COLUMN tags text COLLATE \"C\" NOT NULL DEFAULT ''",
    """CREATE TABLE device_tags (
        project_id text COLLATE "C" NOT NULL REFERENCES projects (id), tag text COLLATE "C" NOT NULL,
        device_pk bigint NOT NULL REFERENCES devices (pk), PRIMARY KEY (project_id, tag, device_pk))""",
    "DROP INDEX devices_by_text",
    """CREATE INDEX devices_by_text ON devices USING gin (id gin_trgm_ops, serial_number gin_trgm_ops,
        name gin_trgm_ops, end_user_id gin_trgm_ops, tags gin_trgm_ops)""",
)
P035: Final = (
    """CREATE TABLE jobs (
        id text COLLATE "C" PRIMARY KEY, project_id text COLLATE "C" NOT NULL REFERENCES projects (id),
        name text COLLATE "C" NOT NULL, reason text COLLATE "C", type text COLLATE "C" NOT NULL,
        params text COLLATE "C" NOT NULL, ttl_seconds bigint,
        status text COLLATE "C" NOT NULL CHECK (status IN
            ('preparing', 'scheduled', 'running', 'paused', 'completed', 'aborted', 'cancelled')),
        created_by text COLLATE "C" NOT NULL, created_at bigint NOT NULL, start_at bigint, started_at bigint,
        paused_at bigint, finished_at bigint, aborted_because text COLLATE "C",
        per_minute bigint NOT NULL, ramp_from bigint, ramp_double_ms bigint, failed_percent bigint, min_done bigint,
        total bigint NOT NULL DEFAULT 0, queued bigint NOT NULL DEFAULT 0, delivered bigint NOT NULL DEFAULT 0,
        executed bigint NOT NULL DEFAULT 0, failed bigint NOT NULL DEFAULT 0, cancelled bigint NOT NULL DEFAULT 0,
        skipped bigint NOT NULL DEFAULT 0, held_until bigint NOT NULL DEFAULT 0, paced_at bigint NOT NULL DEFAULT 0,
        active_ms bigint NOT NULL DEFAULT 0, credit bigint NOT NULL DEFAULT 0, cancelled_by text COLLATE "C",
        taking_back bigint NOT NULL DEFAULT 0 CHECK (taking_back IN (0, 1))) WITH (fillfactor = 50)""",
    "CREATE INDEX jobs_by_project ON jobs (project_id, id)",
    "CREATE INDEX jobs_by_status ON jobs (status, project_id, id)",
    "CREATE INDEX jobs_taken_back ON jobs (id) WHERE taking_back = 1",
    """CREATE TABLE job_targets (
        job_id text COLLATE "C" NOT NULL REFERENCES jobs (id), position bigint NOT NULL,
        device_pk bigint REFERENCES devices (pk), unknown_id text COLLATE "C", binding_generation bigint,
        outcome text COLLATE "C" NOT NULL CHECK (outcome IN
            ('waiting', 'queued', 'delivered', 'executed', 'failed', 'cancelled', 'skipped')),
        reason text COLLATE "C", command_id text COLLATE "C", changed_at bigint, PRIMARY KEY (job_id, position))""",
    "CREATE INDEX job_targets_by_outcome ON job_targets (job_id, outcome, position)",
    "CREATE UNIQUE INDEX job_targets_by_command ON job_targets (command_id) WHERE command_id IS NOT NULL",
)
P036: Final = (
    """CREATE TABLE people (
        sub text COLLATE "C" PRIMARY KEY, name text COLLATE "C" NOT NULL, created_at bigint NOT NULL,
        last_seen_at bigint NOT NULL)""",
    """CREATE TABLE sessions (
        id text COLLATE "C" PRIMARY KEY, hash bytea NOT NULL UNIQUE,
        sub text COLLATE "C" NOT NULL REFERENCES people (sub),
        project_id text COLLATE "C" NOT NULL REFERENCES projects (id), role text COLLATE "C" NOT NULL,
        sid text COLLATE "C", created_at bigint NOT NULL, last_used_at bigint NOT NULL, checked_at bigint NOT NULL,
        confirmed_at bigint NOT NULL, expires_at bigint NOT NULL, ended_at bigint,
        ended_because text COLLATE "C", sealed bytea) WITH (fillfactor = 70)""",
    "CREATE INDEX sessions_by_person ON sessions (sub)",
    "CREATE INDEX sessions_by_sid ON sessions (sid) WHERE sid IS NOT NULL",
    "CREATE TABLE spent_tokens (hash bytea PRIMARY KEY, expires_at bigint NOT NULL)",
)
P037: Final = (
    'ALTER TABLE events ADD COLUMN actor text COLLATE "C"',
    # Of an actor with many events the planner would expect some among the newest, and look for them there one by one.
    "ALTER TABLE events ALTER COLUMN actor SET STATISTICS 0",
    """UPDATE events SET actor = told.actor FROM (SELECT e.seq, substring(e.data FROM '"actor": "([^"]*)"') AS actor,
            d.id AS device_id FROM events e LEFT JOIN devices d ON d.pk = e.device_pk) AS told
        WHERE told.seq = events.seq AND told.actor IS DISTINCT FROM told.device_id""",
    "CREATE INDEX events_by_actor ON events (project_id, actor, seq, type, created_at) WHERE actor IS NOT NULL",
    'ALTER TABLE resets ADD COLUMN requested_by_name text COLLATE "C"',
    """UPDATE resets SET requested_by_name = k.name FROM api_keys k
        WHERE k.id = resets.requested_by AND k.project_id = resets.project_id
            AND k.name NOT LIKE '%eu!_%' ESCAPE '!'""",
    'ALTER TABLE jobs ADD COLUMN created_by_name text COLLATE "C"',
    """UPDATE jobs SET created_by_name = k.name FROM api_keys k
        WHERE k.id = jobs.created_by AND k.project_id = jobs.project_id AND k.name NOT LIKE '%eu!_%' ESCAPE '!'""",
)
P038: Final = (
    """CREATE TABLE thinned_heartbeats (
        device_pk bigint NOT NULL REFERENCES devices (pk), hour bigint NOT NULL, generation bigint NOT NULL,
        first_id bigint NOT NULL, heartbeats bigint NOT NULL, first_received_at bigint NOT NULL,
        received_at bigint NOT NULL, sent_at bigint, battery_percent numeric, battery_percent_first numeric,
        battery_percent_min numeric, battery_percent_max numeric, storage_used_mb numeric,
        storage_used_mb_first numeric, storage_used_mb_min numeric, storage_used_mb_max numeric,
        storage_total_mb numeric, signal_strength_dbm numeric, signal_strength_dbm_min numeric,
        signal_strength_dbm_max numeric, firmware_version text COLLATE "C", device_state text COLLATE "C",
        pending_recordings bigint, pending_recordings_max bigint, flags bigint, radio text COLLATE "C",
        PRIMARY KEY (device_pk, hour, generation))""",
    "CREATE INDEX thinned_heartbeats_by_age ON thinned_heartbeats (hour)",
)
_OF_BROKER: Final = (
    "('events_told', 'peer_statuses', 'backlog_taken_in', 'epoch_announced', 'mirror_state', 'mirror_project_state', "
    "'mirror_discovery', 'mosquitto_swept')"
)
P039: Final = (
    """CREATE TABLE brokers (
        pk bigint PRIMARY KEY, id text COLLATE "C" NOT NULL UNIQUE, added_at bigint, compared_at bigint,
        away_since bigint, left_out_at bigint,
        connected bigint NOT NULL DEFAULT 0 CHECK (connected IN (0, 1)),
        knows_tokens bigint NOT NULL DEFAULT 1 CHECK (knows_tokens IN (0, 1)))""",
    """INSERT INTO brokers (pk, id, added_at) SELECT 1,
        coalesce((SELECT substr(name, 8) FROM leases WHERE name LIKE 'broker:%' ORDER BY taken_at DESC LIMIT 1),
            'default'), (SELECT max(taken_at) FROM leases WHERE name LIKE 'broker:%')""",
    """CREATE TABLE broker_facts (
        broker_pk bigint NOT NULL REFERENCES brokers (pk), key text COLLATE "C" NOT NULL,
        value text COLLATE "C" NOT NULL, PRIMARY KEY (broker_pk, key))""",
    f"INSERT INTO broker_facts (broker_pk, key, value) SELECT 1, key, value FROM meta WHERE key IN {_OF_BROKER}",  # noqa: S608 - constants
    f"DELETE FROM meta WHERE key IN {_OF_BROKER}",  # noqa: S608 - constants
    """INSERT INTO broker_facts (broker_pk, key, value) SELECT 1, 'sessions_cut:' || name,
        CAST(created_at AS text) FROM broker_accounts WHERE old_sessions_cut = 1""",
    "ALTER TABLE broker_accounts DROP COLUMN old_sessions_cut",
    "ALTER TABLE outbox ADD COLUMN broker_pk bigint NOT NULL DEFAULT 1",
    "ALTER TABLE outbox DROP CONSTRAINT outbox_kind_device_pk_detail_key",
    "ALTER TABLE outbox ADD UNIQUE (device_pk, kind, detail, broker_pk)",
    "DROP INDEX outbox_due",
    "DROP INDEX outbox_by_device",
    "CREATE INDEX outbox_due ON outbox (broker_pk, kind, not_before, seq)",
    "ALTER TABLE broker_sessions RENAME TO broker_sessions_old",
    "ALTER INDEX broker_sessions_pkey RENAME TO broker_sessions_old_pkey",
    "DROP INDEX broker_sessions_by_user",
    """CREATE TABLE broker_sessions (
        broker_pk bigint NOT NULL DEFAULT 1, client_id text COLLATE "C" NOT NULL, username text COLLATE "C" NOT NULL,
        credential bigint NOT NULL, let_in_at bigint NOT NULL, PRIMARY KEY (broker_pk, client_id))""",
    """INSERT INTO broker_sessions (broker_pk, client_id, username, credential, let_in_at)
        SELECT 1, client_id, username, credential, let_in_at FROM broker_sessions_old""",
    "DROP TABLE broker_sessions_old",
    "CREATE INDEX broker_sessions_by_user ON broker_sessions (username, broker_pk, let_in_at)",
    "ALTER TABLE health ADD COLUMN broker_pk bigint NOT NULL DEFAULT 1",
    "DROP INDEX health_due",
    "CREATE INDEX health_due ON health (offline_due_at, broker_pk) WHERE connection = 'online'",
)
