"""A new signing key for bound devices, without a new bind (ADR 25).

The key that a device obeys signs a command ``set_grant_key`` whose params are the new public key. The device adds that
key and says so with its receipt. From then on the new key signs for it, first the same command once more: that drops
the old key on the device. So the gateway never signs with a key of which it has no word that the device has it.
"""

from __future__ import annotations

import json
from typing import Any, Final

from gateway.domain import grants
from gateway.domain.commands import SET_GRANT_KEY, close, queue
from gateway.models.commands import Ack
from gateway.models.states import CommandStatus
from gateway.store import (
    Tx,
    View,
    command_sql,
    device_sql,
    event_sql,
    grant_key_sql,
    outbox_sql,
    signing_key_sql,
    token_sql,
)
from gateway.store.command_sql import CommandRecord
from gateway.store.grant_key_sql import DeliveryCursor
from gateway.store.records import DeviceKey

_GATEWAY: Final = "gateway"
_OBEYS: Final = "grant_kid"
_REFUSED: Final = "refused_kid"

# --- the delivery: closed until an operator starts it -----------------------------------------------------------------


def start(tx: Tx) -> str:
    """Have each bound device asked, or asked again, to take the signing key in use; return the id of that key."""
    kid = grants.ensure_key(tx)
    grant_key_sql.set_delivery(tx, DeliveryCursor(kid, 0))
    return kid


def stop(tx: Tx) -> str | None:
    """Ask no further device. Return the key that was delivered, or None when there was no delivery.

    A command that is open stays open: its device may have taken the key already.
    """
    known = grant_key_sql.delivery(tx)
    grant_key_sql.set_delivery(tx, None)
    return None if known is None else known.kid


def running(view: View) -> DeliveryCursor | None:
    """Return the delivery that has devices to ask. A key that was retired since is not delivered any more."""
    known, in_use = grant_key_sql.delivery(view), signing_key_sql.signing_key(view)
    if known is None or known.after is None or in_use is None or in_use.kid != known.kid:
        return None
    return known


def ask_next(tx: Tx, limit: int) -> int:
    """Ask the next devices, ``limit`` at most; return how many were visited."""
    known = running(tx)
    if known is None or known.after is None:
        return 0
    found = grant_key_sql.to_ask(tx, known.kid, known.after, limit)
    for device in found:
        _ask(tx, device.pk, device.grant_kid, known.kid)
    after = found[-1].pk if len(found) == limit else None
    grant_key_sql.set_delivery(tx, DeliveryCursor(known.kid, after))
    return len(found)


def _ask(tx: Tx, device_pk: int, signer: str, kid: str) -> None:
    """Queue the command, unless the device has it already, or the key that it obeys leaked.

    The holder of a leaked key could have the device take another key in the same way, so only a new bind helps there.
    """
    key = signing_key_sql.signing_key(tx, signer)
    if key is None or key.leaked_at is not None:
        return
    device = device_sql.by_pk(tx, device_pk)
    still_open = command_sql.open_of_type(tx, device_pk, SET_GRANT_KEY)
    if still_open is not None:
        if json.loads(still_open.params)["kid"] == kid:
            return
        close(tx, device, still_open, CommandStatus.CANCELLED, _GATEWAY, event="command.cancelled")
    _queue(tx, device_pk, kid)


def _queue(tx: Tx, device_pk: int, kid: str) -> None:
    device, fetched_by = device_sql.by_pk(tx, device_pk), token_sql.fetching(tx, device_pk)
    params = grants.public_key(tx, kid).model_dump()
    command = queue(tx, device, SET_GRANT_KEY, fetched_by=fetched_by, params=params)
    event_sql.record(tx, device, "command.created", _GATEWAY, command_id=command.id, type=SET_GRANT_KEY)


def withdraw(tx: Tx, signer: str) -> int:
    """Cancel the open commands by which this key announces another one; return how many there were."""
    withdrawn = grant_key_sql.announced_by(tx, signer)
    for command_id in withdrawn:
        command = command_sql.by_id(tx, command_id)
        if command is not None:
            device = device_sql.by_pk(tx, command.device_pk)
            close(tx, device, command, CommandStatus.CANCELLED, _GATEWAY, event="command.cancelled")
    return len(withdrawn)


# --- what devices answer ----------------------------------------------------------------------------------------------


def taken(tx: Tx, device: DeviceKey, command: CommandRecord) -> None:
    """Process that a device has executed ``set_grant_key``: the new key signs for it from now on.

    What the new key has signed itself is the second command: with that the device has dropped the old key.
    """
    kid, live = json.loads(command.params)["kid"], token_sql.live(tx, device.pk)
    if grants.key_id(command.grant_token) == kid or not live or live[0].generation != command.binding_generation:
        return
    _sign_with(tx, device, kid, previous=live[0].grant_kid)
    _queue(tx, device.pk, kid)


def _sign_with(tx: Tx, device: DeviceKey, kid: str, *, previous: str) -> None:
    """Sign with this key for the binding, and sign its open commands again. They keep id, ``seq`` and time."""
    grant_key_sql.set_grant_kid(tx, device.pk, kid)
    for command in command_sql.open_of_device(tx, device.pk):
        grant = grants.sign_again(tx, device, command, seq=command.seq, expires_at=command.expires_at, kid=kid)
        grant_key_sql.set_grant(tx, command.id, grant)
        outbox_sql.mark_command(tx, device.pk, command.type)
    event_sql.record(tx, device, "device.grant_key_changed", device.id, kid=kid, previous=previous)


def is_of_earlier_grant(command: CommandRecord, ack: Ack) -> bool:
    """Return whether a device refuses an earlier copy of this command, signed with a key that it has dropped.

    The same command is on its way with a grant of the key that it obeys, so that is no answer to it.
    """
    said = _refused_grant(ack)
    signer = grants.key_id(command.grant_token)
    return said is not None and said[_OBEYS] == signer and said.get(_REFUSED) not in (None, signer)


def follow(tx: Tx, device: DeviceKey, command: CommandRecord, ack: Ack) -> bool:
    """Sign with the key that a device says it obeys, if it is another one of this registry; return whether it is.

    A restored registry may be of a time before the device took that key. Each command may cause this once. Its receipt
    shows that the device refused it, but a broker may have changed which key the device named.
    """
    said, live = _refused_grant(ack), token_sql.live(tx, device.pk)
    if said is None or ack.receipt is None or not live or live[0].generation != command.binding_generation:
        return False
    key = signing_key_sql.signing_key(tx, said[_OBEYS])
    previous = grants.key_id(command.grant_token)
    if key is None or key.leaked_at is not None or key.kid == previous or command.result is not None:
        return False
    command_sql.set_result(tx, command.id, {_OBEYS: key.kid, _REFUSED: previous})
    _sign_with(tx, device, key.kid, previous=previous)
    return True


def _refused_grant(ack: Ack) -> dict[str, Any] | None:
    """Return what a device says of the keys of a grant that it refuses, or None for any other acknowledgement."""
    refused = ack.status == "failed" and ack.error is not None and ack.error.code == "grant_invalid"
    return ack.result if refused and ack.result and isinstance(ack.result.get(_OBEYS), str) else None
