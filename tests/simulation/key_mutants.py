"""Deliberate faults of a new signing key for bound devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import jwt

from device_sim import grant
from device_sim import grant_keys as device_keys
from device_sim.actions import Action, Area, WriteFlash
from device_sim.binding import PAIRING, Binding
from gateway.domain import acknowledgements, grant_keys
from gateway.domain.acknowledgements import AcknowledgementSource
from gateway.domain.commands import SET_GRANT_KEY, Refusal
from gateway.models.commands import Ack
from gateway.store import Tx, View, grant_key_sql
from gateway.store.command_sql import CommandRecord
from gateway.store.records import DeviceKey
from tests.simulation.mutants import mutant


@mutant("a new key signs before its device has said that it has it", 1)
def _signs_too_soon() -> Iterator[None]:
    real = grant_keys._ask  # noqa: SLF001 - planted there

    def ask(tx: Tx, device_pk: int, signer: str, kid: str) -> None:
        real(tx, device_pk, signer, kid)
        grant_key_sql.set_grant_kid(tx, device_pk, kid)

    with patch.object(grant_keys, "_ask", ask):
        yield


@mutant("open commands keep the grant of the old key", 1, 4)
def _old_grants_stay() -> Iterator[None]:
    with patch.object(grant_key_sql, "set_grant", lambda *_: None):
        yield


@mutant("the gateway does not confirm a new key", 2)
def _no_confirmation() -> Iterator[None]:
    real = grant_keys.taken

    def taken(tx: Tx, device: DeviceKey, command: CommandRecord) -> None:
        with patch.object(grant_keys, "_queue", lambda *_: None):
            real(tx, device, command)

    with patch.object(grant_keys, "taken", taken):
        yield


@mutant("a report that a device has a key counts without a receipt", 1)
def _taken_without_receipt() -> Iterator[None]:
    real = acknowledgements._unproven  # noqa: SLF001 - planted there

    def unproven(
        view: View, device: DeviceKey, command: CommandRecord, ack: Ack, sender: AcknowledgementSource
    ) -> Refusal | None:
        if ack.receipt is None and command.type == SET_GRANT_KEY:
            return None
        return real(view, device, command, ack, sender)

    with patch.object(acknowledgements, "_unproven", unproven):
        yield


@mutant("a refused copy with an old grant ends its command", 1)
def _earlier_copies_count() -> Iterator[None]:
    with patch.object(grant_keys, "is_of_earlier_grant", lambda *_: False):
        yield


@mutant("a restored registry does not follow the key of a device", 1)
def _does_not_follow() -> Iterator[None]:
    with patch.object(grant_keys, "follow", lambda *_: False):
        yield


@mutant("a device drops the old key with the announcement", 1)
def _drops_at_once() -> Iterator[None]:
    real = device_keys.announced

    def announced(binding: Binding, params: Mapping[str, Any]) -> tuple[Binding, list[Action]]:
        both, _ = real(binding, params)
        new = replace(both, grant_key=both.grant_keys[0], next_grant_key=None)
        return new, [WriteFlash(Area.WIPED, PAIRING, new.pairing())]

    with patch.object(device_keys, "announced", announced):
        yield


@mutant("a device does not write the new key", 1)
def _keeps_it_in_ram() -> Iterator[None]:
    real = device_keys.announced

    def announced(binding: Binding, params: Mapping[str, Any]) -> tuple[Binding, list[Action]]:
        return real(binding, params)[0], []

    with patch.object(device_keys, "announced", announced):
        yield


@mutant("a device takes a key that its own key did not sign", 1, 2)
def _any_announcement() -> Iterator[None]:
    real = grant._verify_claims  # noqa: SLF001 - planted there

    def verify(token: str, binding: Binding) -> dict[str, Any]:
        try:
            return real(token, binding)
        except grant.RefusalError:
            claims = jwt.decode(token, options={"verify_signature": False})
            if claims.get("cmd") == device_keys.SET_GRANT_KEY:
                return claims
            raise

    with patch.object(grant, "_verify_claims", verify):
        yield
