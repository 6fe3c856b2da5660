"""Acknowledgements of commands, and the check that they come from the device (contract, sections 3 and 4)."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from gateway.core import credentials
from gateway.core.clock import SECOND_MS
from gateway.domain import certificates, grant_keys, jobs
from gateway.domain.commands import RESET, SET_GRANT_KEY, Refusal, close
from gateway.models.commands import Ack, AckError
from gateway.models.resets import ResetReport
from gateway.models.states import CommandStatus
from gateway.models.validation import invalid
from gateway.runtime.tracing import Kind, Traced, same_trace
from gateway.store import Tx, View, command_sql, event_sql, measurements, reset_sql, token_sql
from gateway.store.command_sql import CommandRecord
from gateway.store.records import DeviceKey

_LATE: Final = "late_acknowledgement"
_WEIGHT: Final = {"delivered": 1, "failed": 2, "executed": 3}
_RELAY: Final = "relay"


@dataclass(frozen=True)
class AcknowledgementSource:
    """Who delivered an acknowledgement: the device itself, or an API key that relays it."""

    actor: str
    via: str | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """Return the facts of an event besides its actor."""
        return {} if self.via is None else {"via": self.via}


def relayed_by(key_id: str) -> AcknowledgementSource:
    """Return the source of an acknowledgement that this API key relays."""
    return AcknowledgementSource(key_id, _RELAY)


def acknowledge(
    tx: Tx, device: DeviceKey, command_type: str | None, ack: Ack, sender: AcknowledgementSource | None = None
) -> CommandRecord | Refusal:
    """Apply a device's acknowledgement to one of its commands, if the device made it (contract, sections 3 and 4).

    ``command_type`` is the one that the topic names, None where the path names the command itself. ``sender`` is the
    device unless it is given. A final command stays as it is; the late acknowledgement is audited. A repetition changes
    nothing and writes no event: firmware repeats the report of its wipe until the gateway's own answer confirms it.
    """
    sender = sender or AcknowledgementSource(device.id)
    command = command_sql.find(tx, device.pk, ack.command_id)
    if command is None:
        return Refusal(
            "unknown_command", "This device has no such command. Acknowledge the id that came with it.", "command_id"
        )
    refusal = _wrong_type(command, command_type) or _unproven(tx, device, command, ack, sender) or _flaw(command, ack)
    if refusal is not None:
        return refusal
    if _is_known(command, ack.status) or grant_keys.is_of_earlier_grant(command, ack):
        return command
    _trace(tx, device, command, ack)
    if CommandStatus(command.status).final:
        _late(tx, device, command, ack, sender)
    elif ack.status == "delivered":
        _delivered(tx, device, command, sender)
    elif ack.status == "executed":
        _executed(tx, device, command, ack, sender)
    elif not grant_keys.follow(tx, device, command, ack):
        _failed(tx, device, command, ack, sender)
    return command_sql.by_id(tx, ack.command_id) or command


def is_news(view: View, device: DeviceKey, command_type: str, ack: Ack) -> bool:
    """Return whether :func:`acknowledge` would change something."""
    command = command_sql.find(view, device.pk, ack.command_id)
    if command is None or _wrong_type(command, command_type) is not None or _is_known(command, ack.status):
        return False
    if grant_keys.is_of_earlier_grant(command, ack):
        return False
    return (_unproven(view, device, command, ack, AcknowledgementSource(device.id)) or _flaw(command, ack)) is None


def _is_known(command: CommandRecord, said: str) -> bool:
    """Return whether the acknowledgement repeats what the device has reported before."""
    status = CommandStatus(command.status)
    if not status.final:
        return said == status
    return not _is_news(said, status, json.loads(command.result or "{}").get(_LATE))


def _trace(tx: Tx, device: DeviceKey, command: CommandRecord, ack: Ack) -> None:
    """Add the acknowledgement to the trace of its command, below the device's own span if it sends one."""
    known = command.traceparent
    if known is not None:
        facts = {
            "messaging__system": "mqtt",
            "gateway__device_id": device.id,
            "gateway__command_id": command.id,
            "gateway__status": ack.status,
        }
        parent = tx.traceparent if tx.traceparent is not None and same_trace(tx.traceparent, known) else known
        tx.traced.append(Traced(f"process commands/{command.type}/ack", parent, time.time_ns(), Kind.CONSUMER, facts))


def _wrong_type(command: CommandRecord, command_type: str | None) -> Refusal | None:
    if command_type in (None, command.type):
        return None
    return Refusal(
        "wrong_type",
        f"This command is a {command.type}: acknowledge it on commands/{command.type}/ack.",
        "command_id",
    )


def _unproven(
    view: View, device: DeviceKey, command: CommandRecord, ack: Ack, sender: AcknowledgementSource
) -> Refusal | None:
    """Return why the device is not proven to have made this, or None when it is.

    Each status of a reset needs a receipt, since others can publish on the broker or hold a key. So does each
    acknowledgement that a key relays, and the report that a device has taken a grant key: its commands are signed with
    that key from then on.
    """
    if ack.receipt is None:
        took_key = command.type == SET_GRANT_KEY and ack.status == "executed"
        needed = command.type == RESET or took_key or sender.via is not None
        return _receipt_missing(ack.status) if needed else None
    # A device that refuses a stale command holds a newer token than the command's, and signs with the newer one.
    generation = command.binding_generation
    for key in token_sql.receipt_keys(view, device.pk, generation, or_newer=ack.status == "failed"):
        if credentials.receipt_is_good(ack.receipt, key, command.id, ack.status, generation):
            return None
    return Refusal(
        "receipt_invalid",
        "The receipt is not this device's. Make it as base64url(HMAC-SHA256(SHA-256(token), "
        "'command_id|status|binding_generation')), with the device's own token and the generation in the command.",
        "receipt",
    )


def _receipt_missing(status: str) -> Refusal:
    return Refusal(
        "receipt_missing",
        f"receipt: is missing. What is said of a factory reset or a new grant key, and what is relayed, needs one: "
        f"base64url(HMAC-SHA256(SHA-256(token), 'command_id|{status}|binding_generation')), made by the device.",
        "receipt",
    )


def _flaw(command: CommandRecord, ack: Ack) -> Refusal | None:
    """Return what is wrong with the known members of a reset's ``result``, or None: a certificate repeats them."""
    if command.type != RESET or ack.result is None:
        return None
    try:
        ResetReport.model_validate(ack.result)
    except ValidationError as error:
        problem = invalid(error, whole="result", within="result")
        return Refusal("invalid_request", problem.message, problem.details["field"])
    return None


def _delivered(tx: Tx, device: DeviceKey, command: CommandRecord, sender: AcknowledgementSource) -> None:
    command_sql.set_delivered(tx, command.id)
    if command.type == RESET:
        reset_sql.set_delivered(tx, command.id)
        _took(tx, "delivered", since=command.created_at)
    event = "reset.delivered" if command.type == RESET else "command.delivered"
    event_sql.record(tx, device, event, sender.actor, command_id=command.id, type=command.type, **sender.facts)
    jobs.follow(tx, command.id, CommandStatus.DELIVERED)


def _executed(tx: Tx, device: DeviceKey, command: CommandRecord, ack: Ack, sender: AcknowledgementSource) -> None:
    event = "reset.completed" if command.type == RESET else "command.executed"
    close(
        tx,
        device,
        command,
        CommandStatus.EXECUTED,
        sender.actor,
        event=event,
        result=_own_words(ack),
        **sender.facts,
    )
    if command.type == RESET:
        _took(tx, "executed", since=command.delivered_at or command.created_at)
        _took(tx, "completed", since=command.created_at)
    if command.type == SET_GRANT_KEY:
        grant_keys.taken(tx, device, command)


def _took(tx: Tx, stage: str, *, since: int) -> None:
    tx.measure(measurements.RESET, stage, max(0, tx.now - since) / SECOND_MS)


def _failed(tx: Tx, device: DeviceKey, command: CommandRecord, ack: Ack, sender: AcknowledgementSource) -> None:
    error = ack.error or AckError(code="unspecified", message="The device gave no reason.")
    event = "reset.failed" if command.type == RESET else "command.failed"
    close(
        tx,
        device,
        command,
        CommandStatus.FAILED,
        sender.actor,
        event=event,
        result=_own_words(ack),
        error=error.model_dump(),
        **sender.facts,
    )


def _late(tx: Tx, device: DeviceKey, command: CommandRecord, ack: Ack, sender: AcknowledgementSource) -> None:
    result = json.loads(command.result or "{}")
    word = ack.model_dump(exclude_none=True, exclude={"receipt", "command_id"})
    command_sql.set_result(tx, command.id, {**result, _LATE: word})
    certificate_id = certificates.write_addendum(tx, command.id, ack) if command.type == RESET else None
    event_sql.record(
        tx,
        device,
        "acknowledgement.late",
        sender.actor,
        command_id=command.id,
        type=command.type,
        status=command.status,
        acknowledged=ack.status,
        **({} if certificate_id is None else {"certificate_id": certificate_id}),
        **sender.facts,
    )


def _is_news(said: str, status: str, late: dict[str, Any] | None) -> bool:
    """Return whether a late status outweighs the known one: ``executed`` over ``failed`` over ``delivered``.

    So one command collects at most a handful of late acknowledgements, however often a device repeats or contradicts
    itself.
    """
    if said == status or (said == "delivered" and status in _WEIGHT):
        return False
    return late is None or _WEIGHT[said] > _WEIGHT[late["status"]]


def _own_words(ack: Ack) -> dict[str, Any] | None:
    # Only the gateway may use this key of the result: late acknowledgements are kept under it.
    return None if ack.result is None else {name: value for name, value in ack.result.items() if name != _LATE}
