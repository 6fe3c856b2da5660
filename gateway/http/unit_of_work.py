"""Reads and transactions of one request, idempotent when it carries an ``Idempotency-Key``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import BaseModel

from gateway.errors import GatewayError
from gateway.http.idempotency import REPLAYED, IdempotentRequest
from gateway.http.responses import ApiResponse
from gateway.http.scan_limit import ScanLimiter
from gateway.store import NOTHING_AHEAD, Ahead, Deadline, Purpose, Store, Tx, View

R = TypeVar("R")
M = TypeVar("M", bound=BaseModel)

_DONE: Final = 200
READ_SECONDS: Final = 10.0
"""Deadline of a read that uses an index."""


class ReplayError(Exception):
    """The request was done before; ``answer`` is the response that it got then."""

    def __init__(self, answer: ApiResponse) -> None:
        super().__init__("done before")
        self.answer = answer


@dataclass(frozen=True)
class UnitOfWork:
    """What one request may do with the registry."""

    store: Store
    scans: ScanLimiter
    caller_id: str
    """The caller whose scans are limited; empty where the operation is public."""
    client_address: str | None = None
    """Address of a caller with an API key, for events. A device's own would tell where its wearer is."""
    request_id: str | None = None
    """The id of the request, as its answer has it."""
    caller_name: str | None = None
    """The name of a caller with an API key, for events: it was read with the key."""
    idempotent: IdempotentRequest | None = None
    """Set when the request carries an ``Idempotency-Key``."""

    async def read(self, read: Callable[[View], R]) -> R:
        """Read something that an index finds.

        Raises:
            DeadlineError: it took longer than ``READ_SECONDS``.
            StoreError: SQLite could not read.
        """
        return await self.store.read(read, Purpose.REQUESTS, deadline=Deadline(READ_SECONDS))

    async def scan(self, read: Callable[[View], R]) -> R:
        """Read something that may look at many rows. One caller's scans take turns, so that others get theirs.

        Raises:
            TooManyScansError: the caller has as many scans open as it may have.
            DeadlineError: it took too long.
            StoreError: SQLite could not read.
        """
        async with self.scans.turn(self.caller_id) as deadline:
            return await self.store.read(read, Purpose.SCANS, deadline=deadline)

    async def commit(
        self, write: Callable[[Tx], ApiResponse | GatewayError], ahead: Ahead = NOTHING_AHEAD
    ) -> ApiResponse:
        """Write and make the response in one transaction, so that an idempotent request is done once.

        What it reads ``ahead`` is asked for when the transaction begins (:class:`gateway.store.engine.Ahead`).

        An error that ``write`` raises rolls everything back. An error that it returns is raised after the commit. Such
        an error is not kept for replay, so what that call writes must do no harm when it is written again.

        Raises:
            ReplayError: the request was done before.
        """

        def commit(tx: Tx) -> ApiResponse | GatewayError:
            outcome = write(tx)
            if self.idempotent is not None and isinstance(outcome, ApiResponse):
                self.idempotent.keep(tx, outcome.status, outcome.content)
            return outcome

        outcome = await self._write(commit, ahead)
        if isinstance(outcome, GatewayError):
            raise outcome
        return outcome

    async def step(self, name: str, kind: type[M], write: Callable[[Tx], M]) -> M:
        """Write one of several transactions that come before the one of :meth:`commit`.

        After a crash between two steps the client repeats an idempotent request. Steps that were done are not repeated:
        the outcome of each is kept under its ``name``.

        Raises:
            ReplayError: the whole request was done before.
        """
        if self.idempotent is None:
            return await self._write(write)
        idempotent = self.idempotent

        def step(tx: Tx) -> M:
            found = idempotent.find(tx, tx.now, name)
            if found is not None:
                return kind.model_validate_json(found[1])
            outcome = write(tx)
            idempotent.keep(tx, _DONE, outcome.model_dump_json().encode(), name)
            return outcome

        return await self._write(step)

    async def _write(self, write: Callable[[Tx], R], ahead: Ahead = NOTHING_AHEAD) -> R:
        def unless_replayed(tx: Tx) -> R:
            tx.client_address, tx.request_id = self.client_address, self.request_id
            if self.caller_name is not None:
                tx.actor_names[self.caller_id] = self.caller_name
            self.replay(tx)
            return write(tx)

        return await self.store.write(unless_replayed, ahead=ahead)

    def replay(self, view: View) -> None:
        """Raise the kept response of a request that was done before.

        Raises:
            ReplayError: it was done before.
            ConflictError: ``idempotency_mismatch``.
        """
        found = None if self.idempotent is None else self.idempotent.find(view, self.store.context.clock())
        if found is not None:
            raise ReplayError(ApiResponse(found[1], status=found[0], headers={REPLAYED: "true"}))
