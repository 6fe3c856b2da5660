"""Factory resets beyond their command: who asked for what, and how it ended (contract, section 7)."""

from __future__ import annotations

import json
from typing import Any

from gateway.core.redaction import redact
from gateway.domain import end_users, grants
from gateway.errors import ConflictError
from gateway.models.commands import CommandPayload
from gateway.models.resets import RecordingsWish, ResetDevice
from gateway.store import Tx, actor_names, reset_sql
from gateway.store.command_sql import CommandRecord
from gateway.store.device_sql import DeviceRecord
from gateway.store.reset_sql import ResetTarget


def params(asked: ResetDevice) -> dict[str, Any]:
    """Return the params of the command. Its grant signs them, so no client of the broker can change them."""
    return {"recordings": asked.recordings or "keep"}


def facts(asked: ResetDevice) -> dict[str, Any]:
    """Return what the event of the request says of it."""
    return {**params(asked), **({} if asked.reason is None else {"reason": asked.reason})}


def recordings_of(command: CommandRecord) -> RecordingsWish:
    """Return what a reset does with recordings. A command of an earlier version does not say it, and keeps them."""
    return "wipe" if json.loads(command.params).get("recordings") == "wipe" else "keep"


def require_same(device_id: str, command: CommandRecord, asked: ResetDevice) -> None:
    """Check that a second request asks for what the open reset does.

    Raises:
        ConflictError: ``reset_pending``: it wants something else done with the recordings.
    """
    known = recordings_of(command)
    if asked.recordings in (None, known):
        return
    does = "wipes the recordings" if known == "wipe" else "keeps the recordings"
    raise ConflictError(
        "reset_pending",
        f"recordings: a factory reset of this device is open, and it {does}. Nothing was changed. Wait until it has "
        "ended and reset the device again; or, until it is delivered, cancel it with "
        f"POST /v1/devices/{device_id}/commands/{command.id}/cancel and ask again.",
        details={
            "field": "recordings",
            "command_id": command.id,
            "status": command.status,
            "recordings": known,
        },
    )


def record_request(
    tx: Tx,
    before: ResetTarget,
    after: DeviceRecord,
    command: CommandPayload,
    asked: ResetDevice,
    actor: str,
) -> None:
    """Store who asked for which reset, and what was known of the device then."""
    device, person = before.device, before.device.end_user_id
    request = reset_sql.ResetRequest(
        command_id=command.id,
        actor=actor,
        actor_name=actor_names.lasting(tx, actor),
        reason=None if asked.reason is None else redact(asked.reason),
        recordings=params(asked)["recordings"],
        end_user=None if person is None else end_users.fingerprint(tx, device.project_id, person, before.salt),
        generation_after=after.binding_generation,
        grant_kid=grants.key_id(command.grant_token),
    )
    reset_sql.insert(tx, device, request)


def record_end(tx: Tx, command: CommandRecord, outcome: str, *, token_revoked: bool) -> None:
    """Store how a reset ended: ``executed``, ``failed``, ``cancelled`` or ``superseded``."""
    reset_sql.set_finished(tx, command.id, outcome, grants.key_id(command.grant_token), token_revoked=token_revoked)
