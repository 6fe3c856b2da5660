"""Deliberate faults of erasures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from gateway.store import Tx, binding_history_sql, binding_sql, erasure_sql
from gateway.workers.erasures import Erasures
from tests.simulation.mutants import mutant


@mutant("an erasure that was cut off is not resumed after the restart", 8)
def _not_resumed() -> Iterator[None]:
    async def run(self: Erasures) -> None:
        del self
        await asyncio.Event().wait()

    with patch.object(Erasures, "run", run):
        yield


@mutant("the erasure leaves events as they are", 8)
def _events_kept() -> Iterator[None]:
    with patch.object(erasure_sql, "rename_in_events", lambda *_: 0):
        yield


@mutant("a binding that ends does not note its last heartbeat", 8)
def _no_last_heartbeat() -> Iterator[None]:
    real = binding_sql.end

    def end(tx: Tx, device_pk: int) -> None:
        real(tx, device_pk)
        tx.run("UPDATE bindings SET last_heartbeat = after_heartbeat WHERE device_pk = ?", device_pk)

    with patch.object(binding_sql, "end", end):
        yield


@mutant("an erasure does not join the history of the device again", 8)
def _not_joined() -> Iterator[None]:
    def join(*_: Any) -> None:
        return

    with patch.object(binding_history_sql, "_join", join):
        yield
