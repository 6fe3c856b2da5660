"""Deliberate faults of certificates of reset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from gateway.domain import certificates, end_users
from gateway.store import Tx, View, certificate_sql, outbox_sql, reset_sql
from gateway.store.certificate_sql import ChainEnd
from tests.simulation.mutants import mutant


@mutant("a cancelled reset gets no certificate", 7)
def _none_on_one_path() -> Iterator[None]:
    real = certificates.write_first

    def write_first(tx: Tx, certificate_id: str, command_id: str, result: Any) -> None:
        reset = reset_sql.find(tx, command_id)
        if reset is not None and reset.outcome != "cancelled":
            real(tx, certificate_id, command_id, result)

    with patch.object(certificates, "write_first", write_first):
        yield


@mutant("a certificate is written in the transaction after the end of its reset", 7)
def _written_later() -> Iterator[None]:
    real, done = certificates.write_first, outbox_sql.done
    waiting: list[tuple[Any, ...]] = []

    def later(tx: Tx, *given: Any) -> None:
        del tx
        waiting.append(given)

    def write_now(tx: Tx, seqs: list[int]) -> None:
        done(tx, seqs)
        while waiting:
            real(tx, *waiting.pop(0))

    with patch.object(certificates, "write_first", later), patch.object(outbox_sql, "done", write_now):
        yield


@mutant("a certificate repeats another digest than that of the one before it", 7)
def _broken_link() -> Iterator[None]:
    real = certificate_sql.chain_end

    def chain_end(view: View, project_id: str) -> ChainEnd | None:
        end = real(view, project_id)
        return None if end is None else end._replace(sha256="0" * 64)

    with patch.object(certificate_sql, "chain_end", chain_end):
        yield


@mutant("a certificate has the id of the person", 7)
def _in_the_clear() -> Iterator[None]:
    with patch.object(end_users, "fingerprint", lambda _tx, _project_id, end_user_id, _salt: end_user_id):
        yield
