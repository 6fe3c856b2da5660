"""Commands: how they are queued, cancelled and expired (contract, sections 2 to 4).

At most one command of a type is open per device. A status says what the device has reported, never what was sent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from gateway.core import ids
from gateway.core.clock import SECOND_MS, to_rfc3339
from gateway.core.command_types import CommandType
from gateway.domain import certificates, grants, jobs, resets
from gateway.errors import BacklogError, ConflictError, NotFoundError
from gateway.models.commands import CommandPayload, CreateCommand
from gateway.models.states import CommandStatus
from gateway.store import Tx, command_sql, device_sql, event_sql, outbox_sql, token_sql
from gateway.store.command_sql import CommandRecord
from gateway.store.device_sql import DeviceRecord
from gateway.store.records import DeviceKey
from gateway.store.token_sql import FetchingToken

RESET: Final = CommandType.FACTORY_RESET
SET_GRANT_KEY: Final = CommandType.SET_GRANT_KEY
SUPERSEDED: Final = "reset.superseded"
EXPIRED_AT_ONCE: Final = 500
"""Commands that one transaction closes, or gives another expiry. Each is independent of the others."""
READ_AT_ONCE: Final = 200
"""Open resets that are read at a time when all are signed again: about half a megabyte."""


@dataclass(frozen=True)
class Refusal:
    """Why a message was refused. It changed nothing."""

    code: str
    message: str
    field: str | None = None


def queue(  # noqa: PLR0913 - most are passed by name
    tx: Tx,
    device: DeviceRecord,
    command_type: CommandType,
    *,
    fetched_by: FetchingToken | None,
    params: dict[str, Any] | None = None,
    expires_at: int | None = None,
    idempotency_key: str | None = None,
    not_before: int = 0,
    seq: int | None = None,
) -> CommandPayload:
    """Queue a signed command with the generation of the token that will fetch it; mark its topic; return it.

    Without a token it has the device's own generation (contract, section 1). ``seq`` is its number if that is known.
    """
    unsigned = {
        "id": tx.new_id(ids.COMMAND),
        "type": command_type,
        "params": params or {},
        "binding_generation": device.binding_generation if fetched_by is None else fetched_by.generation,
        "created_at": to_rfc3339(tx.now),
        "expires_at": device_sql.moment(expires_at),
    }
    kid = grants.ensure_key(tx) if fetched_by is None else fetched_by.grant_kid
    if seq is None:
        seq = command_sql.next_seq(tx, device.pk, command_type)
    grant = grants.sign(tx, kid=kid, device=device, command=unsigned, seq=seq, expires_at=expires_at)
    command = CommandPayload.model_validate({**unsigned, "grant_token": grant})
    # It counts as sent while the connection is up. A cancel is only stricter by that, and the publisher needs no commit
    # before it sends.
    leaves_now = tx.context.link.is_up and not not_before
    command_sql.insert(tx, device.pk, command, seq, expires_at, idempotency_key, leaves_now=leaves_now)
    outbox_sql.mark_command(tx, device.pk, command_type, not_before=not_before)
    return command


def create(tx: Tx, device: DeviceRecord, body: CreateCommand, actor: str) -> CommandRecord:
    """Queue a command that expires. The device must be bound, or nothing would fetch it.

    Raises:
        ConflictError: ``command_pending`` when one of that type is open, ``reset_pending`` while a reset is,
            ``device_not_bound`` without a binding, ``idempotency_mismatch`` when the key came with another request.
            ``reserved_command``: the gateway alone sends this type.
    """
    known = _same_request(tx, device, body)
    if known is not None:
        return known
    _may_queue(tx, device, body.type)
    command = queue(
        tx,
        device,
        body.type,
        fetched_by=token_sql.fetching(tx, device.pk),
        params=body.params,
        expires_at=tx.now + body.ttl_seconds * SECOND_MS,
        idempotency_key=body.idempotency_key,
    )
    event_sql.record(tx, device, "command.created", actor, command_id=command.id, type=body.type)
    return _row(tx, command.id)


def _same_request(tx: Tx, device: DeviceRecord, body: CreateCommand) -> CommandRecord | None:
    known = (
        None if body.idempotency_key is None else command_sql.by_idempotency_key(tx, device.pk, body.idempotency_key)
    )
    if known is None:
        return None
    before = (known.type, json.loads(known.params), known.ttl_ms)
    if before != (body.type, body.params or {}, body.ttl_seconds * SECOND_MS):
        raise ConflictError(
            "idempotency_mismatch",
            "This idempotency_key came with another command before. Nothing was queued. Use a new key for a new one.",
            details={"command_id": known.id},
        )
    return known


def _may_queue(tx: Tx, device: DeviceRecord, command_type: CommandType) -> None:
    if command_type is RESET:
        raise ConflictError(
            "reset_not_a_command",
            f"A factory reset unbinds the device too. Ask for it with POST /v1/devices/{device.id}/reset.",
        )
    if command_type is SET_GRANT_KEY:
        raise ConflictError(
            "reserved_command",
            "type: only the gateway itself sends set_grant_key. To give bound devices the signing key in use, run "
            "'gateway signing-keys deliver' at the gateway.",
            details={"field": "type"},
        )
    for open_type, code in ((RESET, "reset_pending"), (command_type, "command_pending")):
        command = command_sql.open_of_type(tx, device.pk, open_type)
        if command is not None:
            raise ConflictError(
                code,
                f"A {open_type} command of this device is still open. Wait for its end, or cancel it with "
                f"POST /v1/devices/{device.id}/commands/{command.id}/cancel.",
                details={"command_id": command.id, "status": command.status},
            )
    if device.bound_at is None:
        raise ConflictError(
            "device_not_bound",
            "The device is not bound, so nobody would fetch a command. Bind it with "
            f"POST /v1/devices/{device.id}/bind.",
        )


def require(tx: Tx, device: DeviceRecord, command_id: str) -> CommandRecord:
    """Return the command of this device.

    Raises:
        NotFoundError: it has no such command.
    """
    row = command_sql.find(tx, device.pk, command_id)
    if row is None:
        raise NotFoundError(
            f"This device has no command '{command_id[:80]}'. GET /v1/devices/{device.id}/commands lists those it has."
        )
    return row


def cancel(tx: Tx, device: DeviceRecord, command_id: str, actor: str, *, taken_in: bool = False) -> CommandRecord:
    """Cancel an open command; a reset only until the device has reported ``delivered``. Return the command.

    A cancelled reset leaves the device without any token: it must be bound again. The device's report on a command that
    was sent may still wait at the broker. ``taken_in`` says that the gateway has read all of that.

    Raises:
        ConflictError: ``reset_pending`` (delivered already) or ``command_final``.
        BacklogError: the command was sent, and not ``taken_in``.
    """
    command = require(tx, device, command_id)
    status = CommandStatus(command.status)
    if status is CommandStatus.CANCELLED:
        return command
    if status.final:
        raise ConflictError(
            "command_final", f"The command is {status} already and stays so. Queue another one if more is to be done."
        )
    if command.type == RESET and status is CommandStatus.DELIVERED:
        raise ConflictError(
            "reset_pending",
            "The device has the reset already and is wiping itself, so it cannot be cancelled. Wait until it is "
            "executed, then bind the device again.",
            details={"command_id": command_id, "delivered_at": device_sql.moment(command.delivered_at)},
        )
    if command.sent_at is not None and not taken_in:
        raise BacklogError(
            "The device may have obeyed this command already: what it said of it may wait at the broker, and the "
            "gateway has not read all of that yet. Nothing was cancelled. Send the same request again; if that does "
            "not help, look at GET /ready: the gateway has to be connected to the broker.",
            details={"command_id": command_id},
        )
    close(tx, device, command, CommandStatus.CANCELLED, actor, event="command.cancelled")
    return _row(tx, command_id)


def expire(tx: Tx) -> int:
    """Close open commands that have expired, up to EXPIRED_AT_ONCE; return how many there were.

    After the clock was set back, the lifetime of a command counts from now. Otherwise a command that was queued while
    the clock was a year ahead would stay open for a year. The device gets it again with the new time and a new grant:
    it refuses a command whose time is not that of its grant.
    """
    for command, ttl_ms in command_sql.dated_ahead(tx, tx.now + command_sql.CLOCKS_DIFFER_MS, EXPIRED_AT_ONCE):
        expires_at = tx.now + ttl_ms
        device = device_sql.by_pk(tx, command.device_pk)
        grant = grants.sign_again(tx, device, command, seq=command.seq, expires_at=expires_at)
        command_sql.expire_at(tx, command.id, expires_at, grant)
        outbox_sql.mark_command(tx, command.device_pk, command.type)
    rows = command_sql.expired(tx, tx.now, EXPIRED_AT_ONCE)
    for command in rows:
        device = device_sql.by_pk(tx, command.device_pk)
        close(tx, device, command, CommandStatus.EXPIRED, "gateway", event="command.expired")
    return len(rows)


def renew_grants(tx: Tx) -> int:
    """Sign open commands again that an older version signed without ``par`` and ``seq``; return how many there were.

    Devices that check both would always refuse them. The command keeps its id. One whose params cannot be signed is
    cancelled.
    """
    rows = command_sql.without_seq(tx)
    for command in rows:
        _sign_with_next_seq(tx, command)
    return len(rows)


def raise_open_resets(tx: Tx) -> None:
    """Sign open resets again, with a ``seq`` above every one that was issued before a restore.

    The lost registry may have sent later resets, which devices remember. Other open commands keep their ``seq``. One
    that the device has already skipped must not be executed after all.
    """
    after = 0
    while resets := command_sql.open_resets_after(tx, after, READ_AT_ONCE):
        for command in resets:
            _sign_with_next_seq(tx, command)
        after = resets[-1].device_pk


def _sign_with_next_seq(tx: Tx, command: CommandRecord) -> None:
    device = device_sql.by_pk(tx, command.device_pk)
    seq = command_sql.next_seq(tx, device.pk, command.type)
    try:
        grant = grants.sign_again(tx, device, command, seq=seq, expires_at=command.expires_at)
    except ValueError:
        close(tx, device, command, CommandStatus.CANCELLED, "gateway", event="command.cancelled")
        return
    command_sql.set_grant(tx, command.id, seq, grant)
    outbox_sql.mark_command(tx, device.pk, command.type)


def close(
    tx: Tx,
    device: DeviceKey,
    command: CommandRecord,
    status: CommandStatus,
    actor: str,
    *,
    event: str,
    result: dict[str, Any] | None = None,
    error: dict[str, Any] | None = None,
    **facts: str,
) -> None:
    """Make an open command final, write the event, and mark its topic to be cleared.

    The end of a reset revokes the token, unless the device said ``failed``, and writes the certificate. ``facts`` go
    into the events too.
    """
    command_sql.set_final(tx, command.id, status, result=result, error=error)
    outbox_sql.mark_command(tx, device.pk, command.type)
    certificate_id = tx.new_id(ids.CERTIFICATE) if command.type == RESET else None
    said = {"result": result, "error": error, "certificate_id": certificate_id}
    event_sql.record(
        tx,
        device,
        event,
        actor,
        command_id=command.id,
        type=command.type,
        **{key: value for key, value in said.items() if value is not None},
        **facts,
    )
    if certificate_id is not None:  # each path that ends a reset comes by here
        ends_token = status is not CommandStatus.FAILED  # then the token fetches the next reset (contract, section 4)
        if ends_token:
            revoke(tx, device, actor, **facts)
        resets.record_end(tx, command, "superseded" if event == SUPERSEDED else status, token_revoked=ends_token)
        certificates.write_first(tx, certificate_id, command.id, result)
    jobs.follow(tx, command.id, status, reason=_why_failed(status, error))


def _why_failed(status: CommandStatus, error: dict[str, Any] | None) -> str | None:
    """Return the reason that a job shows of a command that was not executed."""
    if status is CommandStatus.EXPIRED:
        return str(status)
    return None if error is None else str(error["code"])


def revoke(tx: Tx, device: DeviceKey, actor: str, **facts: str) -> None:
    """Revoke the device's tokens, and mark live sessions to be cut. ``facts`` go into the event."""
    live = token_sql.live(tx, device.pk)  # all of one binding: a bind begins with this
    if live:
        token_sql.revoke(tx, device.pk)
        outbox_sql.mark_credential(tx, device.pk)
        outbox_sql.mark_topic(tx, device.pk, outbox_sql.STATUS)
        event_sql.record(tx, device, "token.revoked", actor, binding_generation=live[0].generation, **facts)


def _row(tx: Tx, command_id: str) -> CommandRecord:
    row = command_sql.by_id(tx, command_id)
    if row is None:
        raise LookupError(f"no command {command_id}")
    return row
