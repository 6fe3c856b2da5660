"""Devices: each verb is a function, each function a transaction (contract, sections 1, 2 and 4).

``binding_generation`` rises by one at each bind, unbind and reset. Every verb writes its event, and marks what must
reach the broker, in the same transaction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.core import credentials, ids
from gateway.core.clock import SECOND_MS
from gateway.core.command_types import CommandType
from gateway.domain import cells, grants, resets
from gateway.domain.commands import SUPERSEDED, close, queue, revoke
from gateway.errors import ConflictError, InvalidRequestError, NotFoundError, TooSoonError, UnavailableError
from gateway.models.bindings import Jwk
from gateway.models.devices import RegisterDevice
from gateway.models.resets import ResetDevice
from gateway.models.states import CommandStatus, TokenState
from gateway.store import (
    Tx,
    View,
    binding_sql,
    broker_sql,
    command_sql,
    device_sql,
    event_sql,
    health_sql,
    outbox_sql,
    reset_sql,
    token_sql,
)
from gateway.store.broker_sql import BrokerRecord
from gateway.store.command_sql import CommandRecord
from gateway.store.device_sql import DeviceRecord
from gateway.store.token_sql import TokenRecord

RESET = CommandType.FACTORY_RESET
_PLAIN_RESET: Final = ResetDevice()


@dataclass(frozen=True)
class NewBinding:
    """A device just bound: the device, its token and MQTT password (shown once), and the public key of its grants.

    ``home`` is the only broker that serves it; None: all do.
    """

    device: DeviceRecord
    device_token: str = field(repr=False)
    mqtt_password: str = field(repr=False)
    grant_key: Jwk
    home: BrokerRecord | None = None


@dataclass(frozen=True)
class Refreshed:
    """A new token of the same binding with its MQTT password, both shown once, and its generation.

    ``home`` is the only broker that serves the device; None: all do.
    """

    device_token: str = field(repr=False)
    mqtt_password: str = field(repr=False)
    binding_generation: int
    home: BrokerRecord | None = None


def require(view: View, project_id: str, device_id: str) -> DeviceRecord:
    """Return the device.

    Raises:
        NotFoundError: this project has no such device; the error reveals nothing of other projects.
    """
    row = device_sql.find(view, project_id, device_id)
    if row is None:
        raise _unknown(device_id)
    return row


def _unknown(device_id: str) -> NotFoundError:
    return NotFoundError(
        f"There is no device '{device_id[:80]}' in this project. "
        "Check the id, or register the device with POST /v1/devices."
    )


def register(tx: Tx, project_id: str, body: RegisterDevice, actor: str) -> tuple[DeviceRecord, bool]:
    """Return the device with this serial number, and whether it is new."""
    known = device_sql.by_serial(tx, project_id, body.serial_number)
    if known is not None:
        return _known(known), False
    device_model = body.model or tx.rules.models[0]
    if device_model not in tx.rules.models:
        raise InvalidRequestError(
            f"model: '{device_model}' is not known here. Use one of: {', '.join(tx.rules.models)}.",
            details={"field": "model", "allowed": list(tx.rules.models)},
        )
    pk = device_sql.insert(tx, tx.new_id(ids.DEVICE), project_id, body, device_model)
    device = device_sql.by_pk(tx, pk)
    event_sql.record(tx, device, "device.registered", actor, serial_number=body.serial_number, model=device_model)
    return device, True


def _known(device: DeviceRecord) -> DeviceRecord:
    if device.deleted_at is not None:
        raise ConflictError(
            "resource_already_exists",
            "A deleted device has this serial number. Restore it with "
            f"POST /v1/devices/{device.id}/restore instead of registering it again.",
            details={"id": device.id},
        )
    return device


def supersede_reset(tx: Tx, project_id: str, device_id: str, actor: str) -> None:
    """Cancel an open reset permanently: its token is revoked, and its retained message is marked to be cleared."""
    device = require(tx, project_id, device_id)
    command = command_sql.open_of_type(tx, device.pk, RESET)
    if command is None:
        return
    close(tx, device, command, CommandStatus.CANCELLED, actor, event=SUPERSEDED)


def bind(tx: Tx, project_id: str, device_id: str, end_user_id: str, actor: str) -> NewBinding:
    """Bind an unbound device and mint its token.

    Raises:
        ConflictError: ``device_already_bound``, or ``reset_pending`` while a reset is open.
        UnavailableError: an old reset is still retained on the broker, or no broker takes new devices.
    """
    device = require(tx, project_id, device_id)
    _may_bind(tx, device)
    revoke(tx, device, actor)
    home = cells.settle_home(tx, device.pk)
    bound = device_sql.set_binding(tx, device, end_user_id)
    generation = bound.binding_generation
    token = credentials.mint_device_token(tx.entropy)
    kid = grants.ensure_key(tx)
    token_sql.insert(tx, device.pk, generation, token, kid)
    outbox_sql.mark_credential(tx, device.pk)
    health_sql.forget_broker(tx, device.pk)
    outbox_sql.mark_topic(tx, device.pk, outbox_sql.STATUS)
    facts = {"end_user_id": end_user_id, "binding_generation": generation} | cells.facts(home)
    event_sql.record(tx, bound, "device.bound", actor, **facts)
    binding_sql.begin(tx, device.pk)
    return NewBinding(bound, token.secret, token.mqtt_password, grants.public_key(tx, kid), home)


def _may_bind(tx: Tx, device: DeviceRecord) -> None:
    if device.bound_at is not None:
        raise ConflictError(
            "device_already_bound",
            f"The device is bound. Unbind it first (POST /v1/devices/{device.id}/unbind), or reset it if it goes to "
            "someone else.",
            details={"end_user_id": device.end_user_id, "bound_at": device_sql.moment(device.bound_at)},
        )
    command = command_sql.open_of_type(tx, device.pk, RESET)
    if command is not None:
        raise ConflictError(
            "reset_pending",
            "A factory reset of this device is still open. Wait until the device has executed it, or, if the device "
            'was reset by hand, bind with "supersede_reset": true, which cancels it.',
            details={"command_id": command.id, "status": command.status},
        )
    awaited = [each.pk for each in broker_sql.awaited(tx, tx.now)]
    if outbox_sql.has(tx, outbox_sql.COMMAND, device.pk, RESET, brokers=awaited):
        raise UnavailableError(
            "The broker still holds an old reset of this device and cannot be reached to clear it. Nothing was bound. "
            "Try again once the broker is back (GET /ready tells)."
        )


def unbind(tx: Tx, project_id: str, device_id: str, actor: str) -> DeviceRecord:
    """Unbind, revoke the token and cancel what nothing can fetch any more. No-op for an unbound device."""
    device = require(tx, project_id, device_id)
    if device.bound_at is None:
        return device
    _cancel_open(tx, device, actor)
    revoke(tx, device, actor)
    return _unbound(tx, device, actor)


def _cancel_open(tx: Tx, device: DeviceRecord, actor: str) -> None:
    _cancel(tx, device, command_sql.open_of_device(tx, device.pk), actor)


def _cancel(tx: Tx, device: DeviceRecord, open_commands: Sequence[CommandRecord], actor: str) -> None:
    for command in open_commands:
        close(tx, device, command, CommandStatus.CANCELLED, actor, event="command.cancelled")


def _unbound(tx: Tx, device: DeviceRecord, actor: str) -> DeviceRecord:
    unbound = device_sql.set_binding(tx, device, None)
    if device.bound_at is not None:
        facts = {"end_user_id": device.end_user_id, "binding_generation": unbound.binding_generation}
        event_sql.record(tx, unbound, "device.unbound", actor, **facts)
        binding_sql.end(tx, device.pk)
    return unbound


def reset(
    tx: Tx, project_id: str, device_id: str, actor: str, asked: ResetDevice = _PLAIN_RESET, *, not_before: int = 0
) -> DeviceRecord:
    """Unbind, leave the token good for its reset alone, and queue the one open ``factory_reset`` (section 4).

    A second reset while one is open is the same reset. It is published at ``not_before`` (milliseconds since the epoch)
    at the earliest. A device that asks over HTTP gets it at once.

    Raises:
        ConflictError: ``reset_pending``: the open reset does something else with the recordings.
    """
    target = reset_sql.target(tx, project_id, device_id)
    if target is None:
        raise _unknown(device_id)
    device = target.device
    still_open = command_sql.open_of_device(tx, device.pk) if target.has_open_commands else []
    known = next((command for command in still_open if command.type == RESET), None)
    if known is not None:
        resets.require_same(device.id, known, asked)
        return device
    _cancel(tx, device, still_open, actor)
    token_sql.demote(tx, device.pk)
    unbound = _unbound(tx, device, actor)
    params = resets.params(asked)
    command = queue(tx, unbound, RESET, fetched_by=target.token, params=params, not_before=not_before, seq=target.seq)
    resets.record_request(tx, target, unbound, command, asked, actor)
    event_sql.record(
        tx,
        unbound,
        "reset.requested",
        actor,
        command_id=command.id,
        end_user_id=device.end_user_id,
        binding_generation=unbound.binding_generation,
        **resets.facts(asked),
    )
    return unbound


def delete(tx: Tx, project_id: str, device_id: str, actor: str) -> DeviceRecord:
    """Delete the device: unbind it and revoke its token, without a wipe. The record is kept.

    Raises:
        ConflictError: ``reset_pending`` while a reset is open: nothing could fetch it any more.
    """
    device = require(tx, project_id, device_id)
    _may_delete(tx, device)
    _cancel_open(tx, device, actor)
    revoke(tx, device, actor)
    if device.bound_at is not None:
        _unbound(tx, device, actor)
    if device.connection == "online":
        health_sql.set_offline(tx, device.pk)
        event_sql.record(tx, device, "device.offline", actor)
    device_sql.set_deleted(tx, device.pk, tx.now)
    outbox_sql.mark_topic(tx, device.pk, outbox_sql.STATUS)
    cells.forget_home(tx, device.pk)
    event_sql.record(tx, device, "device.deleted", actor, serial_number=device.serial_number)
    return device_sql.by_pk(tx, device.pk)


def _may_delete(view: View, device: DeviceRecord) -> None:
    command = command_sql.open_of_type(view, device.pk, RESET)
    if command is not None:
        raise ConflictError(
            "reset_pending",
            "A factory reset of this device is still open, and a deleted device could not fetch it. Wait until the "
            "device has executed it, or, until it is delivered, cancel it with "
            f"POST /v1/devices/{device.id}/commands/{command.id}/cancel.",
            details={"command_id": command.id, "status": command.status},
        )


def restore(tx: Tx, project_id: str, device_id: str, actor: str) -> DeviceRecord:
    """Restore a deleted device, unbound. A device that is not deleted stays as it is."""
    device = device_sql.any_of_project(tx, project_id, device_id)
    if device is None:
        raise _unknown(device_id)
    if device.deleted_at is None:
        return device
    device_sql.set_deleted(tx, device.pk, None)
    event_sql.record(tx, device, "device.restored", actor, serial_number=device.serial_number)
    return device_sql.by_pk(tx, device.pk)


def refresh(tx: Tx, project_id: str, device_id: str, token_id: int) -> Refreshed:
    """Mint another token of the binding, and of the same state, for the device that calls with this token.

    The calling token stays good until the new one is first used, so a lost answer costs nothing. Any other is revoked.
    A device that asks again and again thus has at most two good tokens.

    Raises:
        TooSoonError: the newest token was minted by a refresh less than a minute ago, whether it was used or not.
    """
    device = require(tx, project_id, device_id)
    use(tx, token_id)
    asking = token_sql.by_row(tx, token_id)
    _may_refresh(tx, asking)
    if token_sql.revoke_others(tx, asking):
        _replaced(tx, device, asking.generation)
    token = credentials.mint_device_token(tx.entropy)
    token_sql.insert(tx, device.pk, asking.generation, token, asking.grant_kid, state=asking.state)
    token_sql.forget(tx, asking)
    outbox_sql.mark_credential(tx, device.pk)
    event_sql.record(tx, device, "token.refreshed", device.id, binding_generation=asking.generation)
    return Refreshed(token.secret, token.mqtt_password, asking.generation, cells.home_of(tx, device.pk))


def _may_refresh(tx: Tx, asking: TokenRecord) -> None:
    """Refuse a refresh that comes too soon: each cuts a session at a broker that holds one password per device.

    A token that is dated ahead of the clock was minted before the clock was set back. It delays no refresh.
    """
    refreshed_at = token_sql.last_refreshed_at(tx, asking)
    wait_ms = 0 if refreshed_at is None else refreshed_at + tx.rules.token_refresh_ms - tx.now
    if 0 < wait_ms <= tx.rules.token_refresh_ms:
        seconds = math.ceil(wait_ms / SECOND_MS)
        raise TooSoonError(
            f"This device got a new token less than a minute ago. If that answer was lost, ask again in {seconds} s "
            "with the same token, or at once with the Idempotency-Key of the lost request.",
            seconds,
        )


def use(tx: Tx, token_id: int) -> None:
    """Record the use of a device token. Its first use revokes the tokens that it replaces."""
    if token_sql.touch(tx, token_id):
        token = token_sql.by_row(tx, token_id)
        if token_sql.revoke_older(tx, token):
            _replaced(tx, device_sql.by_pk(tx, token.device_pk), token.generation)


def _replaced(tx: Tx, device: DeviceRecord, generation: int) -> None:
    """Revoke the tokens of this binding that a newer one replaces."""
    outbox_sql.mark_credential(tx, device.pk)
    event_sql.record(tx, device, "token.revoked", device.id, binding_generation=generation, replaced=True)


def token_state(view: View, device_pk: int) -> TokenState | None:
    """Return what the device's token opens, or None when it has no good one."""
    live = token_sql.live(view, device_pk)
    return TokenState(live[0].state) if live else None
