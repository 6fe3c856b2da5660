"""Schema steps 51 to 60 on PostgreSQL (:mod:`gateway.store.postgres.steps`)."""

from __future__ import annotations

from typing import Final

from gateway.store.migrations.steps_051_to_060 import FILL_STATES, STATE_TRIGGERS
from gateway.store.postgres.steps_041_to_050 import trigger

P051: Final = (
    """CREATE TABLE device_states (
        project text COLLATE "C" NOT NULL, state smallint NOT NULL CHECK (state BETWEEN 0 AND 4),
        device_pk bigint NOT NULL, PRIMARY KEY (project, state, device_pk))""",
    FILL_STATES,
    "DROP INDEX health_low_battery",
    "DROP INDEX health_storage_full",
    *(statement for each in STATE_TRIGGERS for statement in trigger(*each)),
    "ANALYZE device_states",
)
"""The states of devices within a project: see ``m051_device_states``."""
P052: Final = (
    "CREATE INDEX events_by_time ON events (substr(project_id, 26), created_at, seq)",
    "ANALYZE events",
)
P053: Final = ("DROP INDEX events_by_age",)
