"""Operations of devices themselves: heartbeats, and fetching and acknowledging commands.

A back end may relay a heartbeat over BLE with its API key. It never gets the device's commands (contract, section 4).
"""

from __future__ import annotations

from typing import Final

from gateway.core.command_types import CommandType
from gateway.domain import acknowledgements, heartbeats, messages
from gateway.domain.commands import Refusal
from gateway.errors import GatewayError, InvalidRequestError, NotFoundError
from gateway.http import auth
from gateway.http.callers import Authorization, DeviceCaller
from gateway.http.operation import AnyOperation, Operation, RequestContext
from gateway.http.resources.devices import find
from gateway.http.responses import ApiResponse
from gateway.models.commands import Ack, Command, CommandAck, CommandPayload, PendingCommands
from gateway.models.fields import Empty
from gateway.models.heartbeats import Heartbeat, HeartbeatAnswer
from gateway.models.states import Radio, TokenState
from gateway.store import Tx, View, command_sql, health_sql
from gateway.store.device_cache import SenderRecord
from gateway.store.records import DeviceKey

TAG: Final = "devices' own"
HEARTBEAT_PATH: Final = "/v1/devices/{device_id}/heartbeat"
ACKNOWLEDGEMENT_PATH: Final = "/v1/devices/{device_id}/commands/{command_id}/ack"
RESET: Final = CommandType.FACTORY_RESET


async def send_heartbeat(call: RequestContext, body: Heartbeat) -> ApiResponse:
    """``POST /v1/devices/{device_id}/heartbeat``."""

    def beat(tx: Tx) -> ApiResponse:
        answer = _beat(tx, call, body)
        return ApiResponse(answer, exclude=frozenset({"commands"}) if answer.commands is None else frozenset())

    return await call.work.commit(beat)


def _beat(tx: Tx, call: RequestContext, heartbeat: Heartbeat) -> HeartbeatAnswer:
    state = auth.state_now(tx, call.caller) if isinstance(call.caller, DeviceCaller) else None
    device = _sender(tx, call)
    relay = None if isinstance(call.caller, DeviceCaller) else acknowledgements.relayed_by(call.actor)
    radio = Radio.BLE if state is None else heartbeat.radio
    refusal = heartbeats.record_heartbeat(tx, device, heartbeat, radio, sender=relay)
    if refusal is not None:
        messages.audit_last_command(tx, device, refusal, relay)
        messages.record_rejection(tx, device.id, f"POST {HEARTBEAT_PATH}", refusal, call.request.raw)
    if state is None:
        return HeartbeatAnswer()
    to_fetch = _to_fetch(tx, device, state, tx.now)
    command_sql.set_sent(tx, [command.id for command in to_fetch])
    return HeartbeatAnswer(commands=to_fetch or None)


def _sender(tx: Tx, call: RequestContext) -> SenderRecord:
    row = health_sql.device_state(tx, find(tx, call).id)
    if row is None:
        raise LookupError("a device that was just found is gone")
    return row


def _to_fetch(view: View, device: DeviceKey, state: TokenState, now: int) -> list[CommandPayload]:
    """Return the open commands, oldest first, without expired ones that are yet to be closed."""
    due = [row for row in command_sql.open_of_device(view, device.pk) if (row.expires_at or now + 1) > now]
    return [command_sql.payload(row) for row in due if state is TokenState.ACTIVE or row.type == RESET]


async def list_pending_commands(call: RequestContext, _: Empty) -> ApiResponse:
    """``GET /v1/devices/{device_id}/commands/pending``."""
    now = call.services.store.context.clock()
    rows = await call.work.read(lambda view: _to_fetch(view, find(view, call), TokenState.ACTIVE, now))
    return ApiResponse(PendingCommands(data=rows))


async def acknowledge_command(call: RequestContext, body: CommandAck) -> ApiResponse:
    """``POST /v1/devices/{device_id}/commands/{command_id}/ack``."""
    command_id = call.request.path["command_id"]
    if body.command_id not in (None, command_id):
        raise InvalidRequestError(
            "command_id: should be the one in the path, or be left out.", details={"field": "command_id"}
        )
    return await call.work.commit(lambda tx: _acknowledge(tx, call, body))


def _acknowledge(tx: Tx, call: RequestContext, body: CommandAck) -> ApiResponse | GatewayError:
    """Apply the acknowledgement, or store and return its refusal: an exception would undo the write."""
    device, command_id = find(tx, call), call.request.path["command_id"]
    _require_right(tx, call, device, command_id)
    ack = Ack.model_construct(**{**dict(body), "command_id": command_id})
    outcome = acknowledgements.acknowledge(tx, device, None, ack)
    if isinstance(outcome, Refusal):
        messages.audit_rejection(tx, device, outcome)
        messages.record_rejection(tx, device.id, f"POST {ACKNOWLEDGEMENT_PATH}", outcome, call.request.raw)
        return _refused(outcome)
    return ApiResponse(command_sql.to_model(outcome, call.device_id))


def _require_right(view: View, call: RequestContext, device: DeviceKey, command_id: str) -> None:
    """Check that a ``reset_only`` token acknowledges the reset and nothing else (contract, section 1)."""
    state = auth.state_now(view, call.device_caller)
    command = command_sql.find(view, device.pk, command_id)
    if state is TokenState.RESET_ONLY and command is not None and command.type != RESET:
        raise auth.refuse_reset_only()


def _refused(refusal: Refusal) -> GatewayError:
    details = {"code": refusal.code, "field": refusal.field}
    kind = NotFoundError if refusal.code == "unknown_command" else InvalidRequestError
    return kind(refusal.message, details=details)


OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="POST",
        path=HEARTBEAT_PATH,
        summary="Send a heartbeat",
        description="With a device token (`me` is good as id): stored, and answered with the open commands, if any. "
        "A token that is good for a reset alone gets that reset and stores nothing. With an API key: relayed for the "
        "device over BLE; never answered with commands. A `last_command` that is refused does not spoil the "
        "heartbeat. One that a key relays needs its `receipt`, whatever command it is about, and its event names the "
        "key with `via` `relay`. An `Idempotency-Key` has no effect here: one that comes again is known by its "
        "`sent_at`, and its answer is that of now.",
        tag=TAG,
        access=Authorization(scope="devices:write", device=True, reset_only=True),
        takes=Heartbeat,
        handler=send_heartbeat,
        keeps_answers=False,
        answers={200: HeartbeatAnswer},
    ),
    Operation(
        method="GET",
        path="/v1/devices/{device_id}/commands/pending",
        summary="Fetch the open commands",
        description="What the device is to do, oldest first.",
        tag=TAG,
        access=Authorization(device=True),
        takes=Empty,
        handler=list_pending_commands,
        answers={200: PendingCommands},
    ),
    Operation(
        method="POST",
        path=ACKNOWLEDGEMENT_PATH,
        summary="Acknowledge a command",
        description="What the device has to say of a command: `delivered` when it has it, then `executed` or "
        "`failed`. Each status of a factory reset needs its `receipt`. A command that is final stays as it is. What is "
        "refused is kept in the audit trail, and changes nothing.",
        tag=TAG,
        access=Authorization(device=True, reset_only=True),
        takes=CommandAck,
        handler=acknowledge_command,
        answers={200: Command},
    ),
)
