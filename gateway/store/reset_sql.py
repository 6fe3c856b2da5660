"""SQL of factory resets: what is kept of each beside its command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core.command_types import CommandType
from gateway.store import command_sql, device_sql
from gateway.store.command_sql import OPEN
from gateway.store.device_sql import DeviceRecord
from gateway.store.key_sql import EPOCH_BASE
from gateway.store.records import columns
from gateway.store.token_sql import FetchingToken

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.store.transaction import Tx, View


class ResetRecord(NamedTuple):
    """A factory reset, with the id of its device. Times are milliseconds since the epoch.

    ``end_user`` is the pseudonym of the person the device was bound to. ``outcome`` is ``executed``, ``failed``,
    ``cancelled`` or ``superseded``; None while the reset is open. Of a reset from before this table the unknown facts
    are None.
    """

    command_id: str
    device_pk: int
    project_id: str
    requested_at: int
    requested_by: str | None
    requested_by_name: str | None
    reason: str | None
    recordings: str
    request_id: str | None
    end_user: str | None
    serial_number: str
    model: str
    firmware_version: str | None
    generation_before: int
    generation_after: int | None
    grant_kid: str | None
    delivered_at: int | None
    finished_at: int | None
    outcome: str | None
    token_revoked_at: int | None
    sessions_closed_at: int | None
    retained_cleared_at: int | None
    device_id: str


class ResetRequest(NamedTuple):
    """What is stored of the request for a reset, beside its device. ``end_user`` is a pseudonym."""

    command_id: str
    actor: str
    actor_name: str | None
    reason: str | None
    recordings: str
    end_user: str | None
    generation_after: int
    grant_kid: str


class ResetTarget(NamedTuple):
    """A device, and what its reset depends on.

    ``token`` is its newest good token. ``seq`` is that of the next factory reset. ``salt`` is that of the person the
    device is bound to, if there is one.
    """

    device: DeviceRecord
    has_open_commands: bool
    token: FetchingToken | None
    seq: int
    salt: bytes | None


RESETS: Final = f"""SELECT {columns(ResetRecord, "r", device_id="d.id")}
    FROM resets r JOIN devices d ON d.pk = r.device_pk"""  # noqa: S608 - our own columns


_NOT_MARKED: Final = """NOT EXISTS (SELECT 1 FROM outbox o WHERE o.device_pk = resets.device_pk AND o.kind = '{}'
    AND o.detail IN ('', 'factory_reset') AND o.broker_pk <> ?)"""


def target(view: View, project_id: str, device_id: str) -> ResetTarget | None:
    """Return what a reset of this device depends on, by one statement; None if the project has no such device."""
    row = view.one(
        f"""SELECT {device_sql.COLUMNS}, EXISTS (SELECT 1 FROM commands c WHERE c.device_pk = d.pk AND {OPEN}),
            t.generation, t.grant_kid, {command_sql.next_seq_of(view.dialect, "d.pk")},
            (SELECT s.salt FROM end_user_salts s WHERE s.project_id = d.project_id AND s.end_user_id = d.end_user_id)
            {device_sql.FROM} LEFT JOIN tokens t ON t.id =
                (SELECT max(id) FROM tokens WHERE device_pk = d.pk AND state <> 'revoked')
            WHERE d.id = ? AND d.project_id = ? AND d.deleted_at IS NULL""",  # noqa: S608 - constants
        *(CommandType.FACTORY_RESET, EPOCH_BASE, device_id, project_id),
    )
    if row is None:
        return None
    *device, has_open_commands, generation, grant_kid, seq, salt = row
    return ResetTarget(
        DeviceRecord._make(device),
        bool(has_open_commands),
        None if generation is None else FetchingToken(generation, grant_kid),
        seq,
        None if salt is None else bytes(salt),
    )


def find(view: View, command_id: str) -> ResetRecord | None:
    """Return the reset with this command."""
    return view.record(ResetRecord, f"{RESETS} WHERE r.command_id = ?", command_id)


def insert(tx: Tx, before: DeviceRecord, asked: ResetRequest) -> None:
    """Insert a reset that was just asked for. ``before`` is the device as it was then."""
    tx.run(
        """INSERT INTO resets (command_id, device_pk, project_id, requested_at, requested_by, requested_by_name, reason,
            recordings, request_id, end_user, serial_number, model, firmware_version, generation_before,
            generation_after, grant_kid) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        *(asked.command_id, before.pk, before.project_id, tx.now, asked.actor, asked.actor_name, asked.reason),
        *(asked.recordings, tx.request_id, asked.end_user, before.serial_number, before.model, before.firmware_version),
        *(before.binding_generation, asked.generation_after, asked.grant_kid),
    )


def set_delivered(tx: Tx, command_id: str) -> None:
    """Record that the device has reported the reset as delivered."""
    tx.run("UPDATE resets SET delivered_at = ? WHERE command_id = ?", tx.now, command_id)


def set_sessions_closed(tx: Tx, device_pks: Iterable[int]) -> None:
    """Record that each broker has closed the sessions of devices whose resets have ended.

    A device of which another broker has yet to follow is left out.
    """
    tx.run_many(
        f"""UPDATE resets SET sessions_closed_at = ? WHERE device_pk = ? AND token_revoked_at IS NOT NULL
            AND sessions_closed_at IS NULL AND {_NOT_MARKED.format("credential")}""",  # noqa: S608 - constants
        [(tx.now, device_pk, tx.context.broker) for device_pk in device_pks],
    )


def set_retained_cleared(tx: Tx, device_ids: Iterable[str]) -> None:
    """Record that each broker has cleared the retained commands of resets that have ended.

    A device of which another broker has yet to follow is left out.
    """
    tx.run_many(
        f"""UPDATE resets SET retained_cleared_at = ? WHERE device_pk = (SELECT pk FROM devices WHERE id = ?)
            AND finished_at IS NOT NULL AND retained_cleared_at IS NULL AND {_NOT_MARKED.format("command")}""",  # noqa: S608 - constants
        [(tx.now, device_id, tx.context.broker) for device_id in device_ids],
    )


def set_finished(tx: Tx, command_id: str, outcome: str, grant_kid: str, *, token_revoked: bool) -> None:
    """Record how the reset ended, which key signed its last grant, and whether the token is revoked by that."""
    tx.run(
        "UPDATE resets SET finished_at = ?, outcome = ?, grant_kid = ?, token_revoked_at = ? WHERE command_id = ?",
        *(tx.now, outcome, grant_kid, tx.now if token_revoked else None, command_id),
    )
