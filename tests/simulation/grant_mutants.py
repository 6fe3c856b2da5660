"""Deliberate faults of grants, numbers and receipts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from device_sim import grant
from device_sim.sequences import Sequences
from gateway.domain import acknowledgements, grants
from gateway.domain.acknowledgements import AcknowledgementSource
from gateway.domain.commands import Refusal
from gateway.models.commands import Ack
from gateway.store import View, command_sql
from gateway.store.command_sql import CommandRecord
from gateway.store.dialect import SqlDialect
from gateway.store.records import DeviceKey
from tests.simulation.mutants import mutant


@mutant("each command has the same number", 1)
def _numbers_stay() -> Iterator[None]:
    real = grants.sign

    def sign(*given: Any, **facts: Any) -> str:
        return real(*given, **{**facts, "seq": 1})

    with patch.object(grants, "sign", sign):
        yield


@mutant("a restore does not raise the numbers of commands", 1)
def _numbers_come_again() -> Iterator[None]:
    real = command_sql.next_seq_of

    def next_seq_of(dialect: SqlDialect, device: str) -> str:
        return real(dialect, device).replace("value AS BIGINT", "'0' AS BIGINT")

    with patch.object(command_sql, "next_seq_of", next_seq_of):
        yield


@mutant("delivered and failed of a reset count without a receipt", 1)
def _receipt_of_the_wipe_alone() -> Iterator[None]:
    real = acknowledgements._unproven  # noqa: SLF001 - planted there

    def unproven(
        view: View, device: DeviceKey, command: CommandRecord, ack: Ack, sender: AcknowledgementSource
    ) -> Refusal | None:
        if ack.receipt is None and ack.status != "executed":
            return None
        return real(view, device, command, ack, sender)

    with patch.object(acknowledgements, "_unproven", unproven):
        yield


@mutant("a device does not compare the params with the grant", 2)
def _any_params() -> Iterator[None]:
    with patch.object(grant, "_check_params", lambda *_: None):
        yield


@mutant("a device does not look at the number of a command", 2)
def _any_number() -> Iterator[None]:
    with patch.object(Sequences, "is_allowed", lambda *_: True):
        yield
