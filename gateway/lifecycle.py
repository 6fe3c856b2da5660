"""What may happen to a device: a verb a function, a function a transaction (contract, sections 1, 2 and 4).

``binding_generation`` rises by one at each bind, unbind and reset. Every verb writes its event and marks what must
reach the broker in the same transaction.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway import credentials, grants, ids, model
from gateway.commands import close, queue, revoke
from gateway.errors import ConflictError, InvalidRequestError, NotFoundError, UnavailableError
from gateway.model import CommandStatus, CommandType, TokenState
from gateway.store import Row, Tx, View, events, outbox, tokens
from gateway.store import commands as command_sql
from gateway.store import devices as sql

RESET = CommandType.FACTORY_RESET


@dataclass(frozen=True)
class Binding:
    """A device just bound: the row, the token (shown once) and the public key of its grants."""

    device: Row
    device_token: str
    grant_key: model.Jwk


def require(view: View, project_id: str, device_id: str) -> Row:
    """The device, or a 404 that tells nothing of other projects."""
    row = sql.find(view, project_id, device_id)
    if row is None:
        raise NotFoundError(
            f"There is no device '{device_id[:80]}' in this project. "
            "Check the id, or register the device with POST /v1/devices."
        )
    return row


def register(tx: Tx, project_id: str, body: model.RegisterDevice, actor: str) -> tuple[Row, bool]:
    """The device with this serial number, and whether it is new."""
    known = sql.by_serial(tx, project_id, body.serial_number)
    if known is not None:
        return _known(known), False
    device_model = body.model or tx.rules.models[0]
    if device_model not in tx.rules.models:
        raise InvalidRequestError(
            f"model: '{device_model}' is not known here. Use one of: {', '.join(tx.rules.models)}.",
            details={"field": "model", "allowed": list(tx.rules.models)},
        )
    pk = sql.insert(tx, tx.new_id(ids.DEVICE), project_id, body, device_model)
    device = sql.by_pk(tx, pk)
    events.record(tx, device, "device.registered", actor, serial_number=body.serial_number, model=device_model)
    return device, True


def _known(device: Row) -> Row:
    if device["deleted_at"] is not None:
        raise ConflictError(
            "resource_already_exists",
            "A deleted device has this serial number. Restore it with "
            f"POST /v1/devices/{device['id']}/restore instead of registering it again.",
            details={"id": device["id"]},
        )
    return device


def supersede_reset(tx: Tx, project_id: str, device_id: str, actor: str) -> None:
    """Cancel an open reset for good: its token is revoked and its retained message is to be cleared."""
    device = require(tx, project_id, device_id)
    command = command_sql.open_of_type(tx, device["pk"], RESET)
    if command is None:
        return
    close(tx, device, command, CommandStatus.CANCELLED, actor, event="reset.superseded")
    revoke(tx, device, actor)


def bind(tx: Tx, project_id: str, device_id: str, end_user_id: str, actor: str) -> Binding:
    """Bind an unbound device and mint its token.

    Raises:
        ConflictError: ``device_already_bound``, or ``reset_pending`` while a reset is open.
        UnavailableError: an old reset still lies on the broker.
    """
    device = require(tx, project_id, device_id)
    _may_bind(tx, device)
    revoke(tx, device, actor)
    generation = sql.set_binding(tx, device["pk"], end_user_id)
    token = credentials.mint_device_token(tx.entropy)
    kid = grants.ensure_key(tx)
    tokens.insert(tx, device["pk"], generation, token, kid)
    outbox.mark_credential(tx, device["pk"])
    bound = sql.by_pk(tx, device["pk"])
    events.record(tx, bound, "device.bound", actor, end_user_id=end_user_id, binding_generation=generation)
    return Binding(bound, token.secret, grants.public_key(tx, kid))


def _may_bind(tx: Tx, device: Row) -> None:
    if device["bound_at"] is not None:
        raise ConflictError(
            "device_already_bound",
            f"The device is bound. Unbind it first (POST /v1/devices/{device['id']}/unbind), or reset it if it goes to "
            "someone else.",
            details={"end_user_id": device["end_user_id"], "bound_at": sql.moment(device["bound_at"])},
        )
    command = command_sql.open_of_type(tx, device["pk"], RESET)
    if command is not None:
        raise ConflictError(
            "reset_pending",
            "A factory reset of this device is still open. Wait until the device has executed it, or, if the device "
            'was reset by hand, bind with "supersede_reset": true, which cancels it.',
            details={"command_id": command["id"], "status": command["status"]},
        )
    if outbox.has(tx, outbox.COMMAND, device["pk"], RESET):
        raise UnavailableError(
            "The broker still holds an old reset of this device and cannot be reached to clear it. Nothing was bound. "
            "Try again once the broker is back (GET /ready tells)."
        )


def unbind(tx: Tx, project_id: str, device_id: str, actor: str) -> Row:
    """Unbind and revoke the token; nothing happens to an unbound device."""
    device = require(tx, project_id, device_id)
    if device["bound_at"] is None:
        return device
    revoke(tx, device, actor)
    return _unbound(tx, device, actor)


def _unbound(tx: Tx, device: Row, actor: str) -> Row:
    generation = sql.set_binding(tx, device["pk"], None)
    unbound = sql.by_pk(tx, device["pk"])
    if device["bound_at"] is not None:
        events.record(
            tx, unbound, "device.unbound", actor, end_user_id=device["end_user_id"], binding_generation=generation
        )
    return unbound


def reset(tx: Tx, project_id: str, device_id: str, actor: str) -> Row:
    """Unbind, leave the token good for its reset alone, and queue the one open ``factory_reset`` (section 4).

    A second reset while one is open is the same reset.
    """
    device = require(tx, project_id, device_id)
    if command_sql.open_of_type(tx, device["pk"], RESET) is not None:
        return device
    for command in command_sql.open_of_device(tx, device["pk"]):
        close(tx, device, command, CommandStatus.CANCELLED, actor, event="command.cancelled")
    tokens.demote(tx, device["pk"])
    unbound = _unbound(tx, device, actor)
    queued = queue(tx, unbound, RESET, fetched_by=_fetching_token(tx, device["pk"]))
    events.record(
        tx,
        unbound,
        "reset.requested",
        actor,
        command_id=queued["id"],
        end_user_id=device["end_user_id"],
        binding_generation=unbound["binding_generation"],
    )
    return unbound


def _fetching_token(view: View, device_pk: int) -> Row | None:
    live = tokens.live(view, device_pk)
    return live[0] if live else None


def token_state(view: View, device_pk: int) -> TokenState | None:
    """What the device's token opens: ``None`` when it has none that opens anything."""
    live = tokens.live(view, device_pk)
    return TokenState(live[0]["state"]) if live else None
