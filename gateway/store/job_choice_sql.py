"""SQL that looks up the devices of a new job: by their ids, and how they stand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.store.transaction import View


class NamedDevice(NamedTuple):
    """A device that a job names; ``deleted_at`` is in milliseconds since the epoch, None unless it is deleted."""

    id: str
    pk: int
    binding_generation: int
    deleted_at: int | None


class TargetState(NamedTuple):
    """A device with what decides whether a job can do something to it.

    ``is_open`` is 1 where it has an open command of the job's type. ``connection`` and ``last_seen_by`` are None before
    its first heartbeat.
    """

    pk: int
    id: str
    is_bound: int
    is_open: int
    connection: str | None
    last_seen_by: str | None


def named(view: View, project_id: str, device_ids: Sequence[str]) -> list[NamedDevice]:
    """Return those of these devices that the project has, deleted ones too.

    SQLite would look through all devices of the project, were their index not ruled out.
    """
    return view.records(
        NamedDevice,
        f"""SELECT id, pk, binding_generation, deleted_at FROM devices
            WHERE id IN ({view.dialect.names}) AND {view.dialect.unindexed("project_id")} = ?""",  # noqa: S608 - a constant
        *(json.dumps(list(device_ids)), project_id),
    )


def states(view: View, device_pks: Sequence[int], command_type: str) -> list[TargetState]:
    """Return how these devices stand, for a job with commands of this type."""
    return view.records(
        TargetState,
        f"""SELECT d.pk, d.id, CASE WHEN d.bound_at IS NULL THEN 0 ELSE 1 END AS is_bound,
            CASE WHEN EXISTS (SELECT 1 FROM commands c WHERE c.device_pk = d.pk AND c.type = ?
                AND c.status IN ('pending', 'delivered')) THEN 1 ELSE 0 END AS is_open,
            CASE WHEN h.last_heartbeat_at IS NULL THEN NULL ELSE h.connection END AS connection, h.last_seen_by
            FROM devices d LEFT JOIN health h ON h.device_pk = d.pk WHERE d.pk IN ({view.dialect.numbers})""",  # noqa: S608 - a constant
        *(command_type, json.dumps(list(device_pks))),
    )
