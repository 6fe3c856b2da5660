"""What may happen to a command: queued, acknowledged, cancelled, expired (contract, sections 2 to 4).

At most one command of a type is open per device. A status says what the device has said, never what was sent.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Final

from gateway import credentials, grants, ids, model
from gateway.clock import to_rfc3339
from gateway.errors import BacklogError, ConflictError, NotFoundError
from gateway.model import CommandStatus, CommandType
from gateway.store import Row, Tx, View, devices, events, measures, outbox, tokens
from gateway.store import commands as sql
from gateway.tracing import Kind, Traced, same_trace

RESET: Final = CommandType.FACTORY_RESET
_SECOND_MS: Final = 1000
_LATE: Final = "late_acknowledgement"
_WEIGHT: Final = {"delivered": 1, "failed": 2, "executed": 3}


@dataclass(frozen=True)
class Refusal:
    """Why a message was not taken; nothing was changed by it."""

    code: str
    message: str
    field: str | None = None


def queue(
    tx: Tx,
    device: Row,
    command_type: CommandType,
    *,
    fetched_by: Row | None,
    params: dict[str, Any] | None = None,
    expires_at: int | None = None,
    idempotency_key: str | None = None,
    not_before: int = 0,
) -> str:
    """Queue a signed command that carries the generation of the token that is to fetch it, and mark its topic; its id.

    Without a token it says the device's own generation (contract, section 1).
    """
    unsigned = {
        "id": tx.new_id(ids.COMMAND),
        "type": command_type,
        "params": params or {},
        "binding_generation": device["binding_generation"] if fetched_by is None else fetched_by["generation"],
        "created_at": to_rfc3339(tx.now),
        "expires_at": devices.moment(expires_at),
    }
    kid = grants.ensure_key(tx) if fetched_by is None else fetched_by["grant_kid"]
    grant = grants.sign(tx, kid=kid, device=device, command=unsigned, expires_at=expires_at)
    command = model.CommandPayload.model_validate({**unsigned, "grant_token": grant})
    # Counted as sent while the link is up: a cancel is only stricter by it, and the publisher needs no commit before
    # it sends.
    leaves_now = tx.context.link.is_up and not not_before
    sql.insert(tx, device["pk"], command, expires_at, idempotency_key, leaves_now=leaves_now)
    outbox.mark_command(tx, device["pk"], command_type, not_before=not_before)
    return command.id


def create(tx: Tx, device: Row, body: model.CreateCommand, actor: str) -> Row:
    """Queue a command that expires. A bound device is needed: nobody else would fetch it.

    Raises:
        ConflictError: ``command_pending`` when one of that type is open, ``reset_pending`` while a reset is,
            ``device_not_bound`` without a binding, ``idempotency_mismatch`` when the key came with another request.
    """
    known = _same_request(tx, device, body)
    if known is not None:
        return known
    _may_queue(tx, device, body.type)
    live = tokens.live(tx, device["pk"])
    command_id = queue(
        tx,
        device,
        body.type,
        fetched_by=live[0] if live else None,
        params=body.params,
        expires_at=tx.now + body.ttl_seconds * _SECOND_MS,
        idempotency_key=body.idempotency_key,
    )
    events.record(tx, device, "command.created", actor, command_id=command_id, type=body.type)
    return _row(tx, command_id)


def _same_request(tx: Tx, device: Row, body: model.CreateCommand) -> Row | None:
    known = None if body.idempotency_key is None else sql.by_idempotency_key(tx, device["pk"], body.idempotency_key)
    if known is None:
        return None
    before = (known["type"], json.loads(known["params"]), known["ttl_ms"])
    if before != (body.type, body.params or {}, body.ttl_seconds * _SECOND_MS):
        raise ConflictError(
            "idempotency_mismatch",
            "This idempotency_key came with another command before. Nothing was queued. Use a new key for a new one.",
            details={"command_id": known["id"]},
        )
    return known


def _may_queue(tx: Tx, device: Row, command_type: CommandType) -> None:
    if command_type is RESET:
        raise ConflictError(
            "reset_not_a_command",
            f"A factory reset unbinds the device too. Ask for it with POST /v1/devices/{device['id']}/reset.",
        )
    for open_type, code in ((RESET, "reset_pending"), (command_type, "command_pending")):
        command = sql.open_of_type(tx, device["pk"], open_type)
        if command is not None:
            raise ConflictError(
                code,
                f"A {open_type} command of this device is still open. Wait for its end, or cancel it with "
                f"POST /v1/devices/{device['id']}/commands/{command['id']}/cancel.",
                details={"command_id": command["id"], "status": command["status"]},
            )
    if device["bound_at"] is None:
        raise ConflictError(
            "device_not_bound",
            "The device is not bound, so nobody would fetch a command. Bind it with "
            f"POST /v1/devices/{device['id']}/bind.",
        )


def require(tx: Tx, device: Row, command_id: str) -> Row:
    """The command of this device, or a 404."""
    row = sql.find(tx, device["pk"], command_id)
    if row is None:
        raise NotFoundError(
            f"This device has no command '{command_id[:80]}'. "
            f"GET /v1/devices/{device['id']}/commands lists those it has."
        )
    return row


def cancel(tx: Tx, device: Row, command_id: str, actor: str, *, taken_in: bool = False) -> Row:
    """A command that is still open becomes ``cancelled``; a reset only until the device has said ``delivered``.

    A cancelled reset leaves the device without any token: it has to be bound again. What the device has said of a
    command that was sent may still wait at the broker; ``taken_in`` says that the gateway has read all of that.

    Raises:
        ConflictError: ``reset_pending`` (delivered already) or ``command_final``.
        BacklogError: the command was sent, and not ``taken_in``.
    """
    command = require(tx, device, command_id)
    status = CommandStatus(command["status"])
    if status is CommandStatus.CANCELLED:
        return command
    if status.final:
        raise ConflictError(
            "command_final", f"The command is {status} already and stays so. Queue another one if more is to be done."
        )
    if command["type"] == RESET and status is CommandStatus.DELIVERED:
        raise ConflictError(
            "reset_pending",
            "The device has the reset already and is wiping itself, so it cannot be cancelled. Wait until it is "
            "executed, then bind the device again.",
            details={"command_id": command_id, "delivered_at": devices.moment(command["delivered_at"])},
        )
    if command["sent_at"] is not None and not taken_in:
        raise BacklogError(
            "The device may have obeyed this command already: what it said of it may wait at the broker, and the "
            "gateway has not read all of that yet. Nothing was cancelled. Send the same request again; if that does "
            "not help, look at GET /ready: the gateway has to be connected to the broker.",
            details={"command_id": command_id},
        )
    close(tx, device, command, CommandStatus.CANCELLED, actor, event="command.cancelled")
    if command["type"] == RESET:
        revoke(tx, device, actor)
    return _row(tx, command_id)


def expire(tx: Tx) -> int:
    """Close every open command whose time is over; how many there were.

    After the clock was set back the time of each counts from now: else a command that was queued while the clock was a
    year ahead would stay open for a year. Its device gets it again with the time that counts, signed again: a device
    refuses a command whose time is not that of its grant.
    """
    for command in sql.dated_ahead(tx, tx.now + sql.CLOCKS_DIFFER_MS):
        expires_at = tx.now + command["ttl_ms"]
        device = devices.by_pk(tx, command["device_pk"])
        sql.expire_at(tx, command["id"], expires_at, grants.sign_again(tx, device, command, expires_at))
        outbox.mark_command(tx, command["device_pk"], command["type"])
    rows = sql.expired(tx, tx.now)
    for command in rows:
        device = devices.by_pk(tx, command["device_pk"])
        close(tx, device, command, CommandStatus.EXPIRED, "gateway", event="command.expired")
    return len(rows)


def close(
    tx: Tx,
    device: Row,
    command: Row,
    status: CommandStatus,
    actor: str,
    *,
    event: str,
    result: dict[str, Any] | None = None,
    error: dict[str, Any] | None = None,
) -> None:
    """Make an open command final, say so, and mark its topic to be cleared."""
    sql.set_final(tx, command["id"], status, result=result, error=error)
    outbox.mark_command(tx, device["pk"], command["type"])
    facts = {"result": result, "error": error}
    events.record(
        tx,
        device,
        event,
        actor,
        command_id=command["id"],
        type=command["type"],
        **{key: value for key, value in facts.items() if value is not None},
    )


def revoke(tx: Tx, device: Row, actor: str) -> None:
    """The device's tokens open nothing from now on; live sessions are to be cut."""
    live = tokens.live(tx, device["pk"])  # all of one binding: a bind begins with this
    if live:
        tokens.revoke(tx, device["pk"])
        outbox.mark_credential(tx, device["pk"])
        outbox.mark_topic(tx, device["pk"], outbox.STATUS)
        events.record(tx, device, "token.revoked", actor, binding_generation=live[0]["generation"])


def acknowledge(tx: Tx, device: Row, command_type: str | None, ack: model.Ack) -> Row | Refusal:
    """Take a device's word on one of its commands, if it is the device's word (contract, sections 3 and 4).

    ``command_type`` is the one that the topic names, ``None`` where the path names the command itself. A command
    that is final stays as it is; the late word is audited. What was heard already changes nothing and makes no noise:
    firmware goes on telling of its wipe, since only the gateway's own answer proves that it was heard.
    """
    command = sql.find(tx, device["pk"], ack.command_id)
    if command is None:
        return Refusal(
            "unknown_command", "This device has no such command. Acknowledge the id that came with it.", "command_id"
        )
    refusal = _wrong_type(command, command_type) or _unproven(tx, device, command, ack)
    if refusal is not None:
        return refusal
    if _is_known(command, ack.status):
        return command
    _trace(tx, device, command, ack)
    if CommandStatus(command["status"]).final:
        _late(tx, device, command, ack)
    elif ack.status == "delivered":
        _delivered(tx, device, command)
    elif ack.status == "executed":
        _executed(tx, device, command, ack)
    else:
        _failed(tx, device, command, ack)
    return _row(tx, ack.command_id)


def is_news(view: View, device: Row, command_type: str, ack: model.Ack) -> bool:
    """Whether :func:`acknowledge` would change something by this, if it were asked."""
    command = sql.find(view, device["pk"], ack.command_id)
    if command is None or _wrong_type(command, command_type) is not None or _is_known(command, ack.status):
        return False
    return _unproven(view, device, command, ack) is None


def _is_known(command: Row, said: str) -> bool:
    """Whether this tells no more of the command than what the device has said before."""
    status = CommandStatus(command["status"])
    if not status.final:
        return said == status
    return not _is_news(said, status, json.loads(command["result"] or "{}").get(_LATE))


def _trace(tx: Tx, device: Row, command: Row, ack: model.Ack) -> None:
    """The acknowledgement belongs to the trace of the command: below the device's own part of that, if it tells one."""
    known = command["traceparent"]
    if known is not None:
        facts = {
            "messaging__system": "mqtt",
            "gateway__device_id": device["id"],
            "gateway__command_id": command["id"],
            "gateway__status": ack.status,
        }
        parent = tx.traceparent if tx.traceparent is not None and same_trace(tx.traceparent, known) else known
        tx.traced.append(
            Traced(f"process commands/{command['type']}/ack", parent, time.time_ns(), Kind.CONSUMER, facts)
        )


def _wrong_type(command: Row, command_type: str | None) -> Refusal | None:
    if command_type in (None, command["type"]):
        return None
    return Refusal(
        "wrong_type",
        f"This command is a {command['type']}: acknowledge it on commands/{command['type']}/ack.",
        "command_id",
    )


def _unproven(view: View, device: Row, command: Row, ack: model.Ack) -> Refusal | None:
    if ack.receipt is None:
        if command["type"] == RESET and ack.status == "executed":
            return Refusal(
                "receipt_missing",
                "An executed factory reset needs a receipt: base64url(HMAC-SHA256(SHA-256(token), "
                "'command_id|executed|binding_generation')).",
                "receipt",
            )
        return None
    # Whoever refuses a stale command holds a newer token than the command was meant for, and signs with that.
    generation = command["binding_generation"]
    for key in tokens.receipt_keys(view, device["pk"], generation, or_newer=ack.status == "failed"):
        if credentials.receipt_is_good(ack.receipt, key, command["id"], ack.status, generation):
            return None
    return Refusal(
        "receipt_invalid",
        "The receipt is not this device's. Make it as base64url(HMAC-SHA256(SHA-256(token), "
        "'command_id|status|binding_generation')), with the device's own token and the generation in the command.",
        "receipt",
    )


def _delivered(tx: Tx, device: Row, command: Row) -> None:
    sql.set_delivered(tx, command["id"])
    if command["type"] == RESET:
        _took(tx, "delivered", since=command["created_at"])
    event = "reset.delivered" if command["type"] == RESET else "command.delivered"
    events.record(tx, device, event, device["id"], command_id=command["id"], type=command["type"])


def _executed(tx: Tx, device: Row, command: Row, ack: model.Ack) -> None:
    event = "reset.completed" if command["type"] == RESET else "command.executed"
    close(tx, device, command, CommandStatus.EXECUTED, device["id"], event=event, result=_own_words(ack))
    if command["type"] == RESET:
        _took(tx, "executed", since=command["delivered_at"] or command["created_at"])
        _took(tx, "completed", since=command["created_at"])
        revoke(tx, device, device["id"])


def _took(tx: Tx, stage: str, *, since: int) -> None:
    tx.measure(measures.RESET, stage, max(0, tx.now - since) / _SECOND_MS)


def _failed(tx: Tx, device: Row, command: Row, ack: model.Ack) -> None:
    error = ack.error or model.AckError(code="unspecified", message="The device gave no reason.")
    event = "reset.failed" if command["type"] == RESET else "command.failed"
    close(
        tx,
        device,
        command,
        CommandStatus.FAILED,
        device["id"],
        event=event,
        result=_own_words(ack),
        error=error.model_dump(),
    )


def _late(tx: Tx, device: Row, command: Row, ack: model.Ack) -> None:
    result = json.loads(command["result"] or "{}")
    word = ack.model_dump(exclude_none=True, exclude={"receipt", "command_id"})
    sql.set_result(tx, command["id"], {**result, _LATE: word})
    events.record(
        tx,
        device,
        "acknowledgement.late",
        device["id"],
        command_id=command["id"],
        type=command["type"],
        status=command["status"],
        acknowledged=ack.status,
    )


def _is_news(said: str, status: str, late: dict[str, Any] | None) -> bool:
    """Whether a late word tells more than what was heard: what was done outweighs what failed, that what was delivered.

    So one command gathers a handful of late words at most, however often a device repeats or contradicts itself.
    """
    if said == status or (said == "delivered" and status in _WEIGHT):
        return False
    return late is None or _WEIGHT[said] > _WEIGHT[late["status"]]


def _own_words(ack: model.Ack) -> dict[str, Any] | None:
    # The name under which late words are kept is the gateway's own.
    return None if ack.result is None else {name: value for name, value in ack.result.items() if name != _LATE}


def _row(tx: Tx, command_id: str) -> Row:
    row = sql.by_id(tx, command_id)
    if row is None:
        raise LookupError(f"no command {command_id}")
    return row
