"""Registration of this gateway in the registry: its id is its own as long as it runs (contract, section 6)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

from gateway.cluster.lease import RELEASE_SECONDS
from gateway.core.clock import to_rfc3339
from gateway.errors import AlreadyRunningError, GatewayError, StoreError
from gateway.store import broker_sql, lease_sql
from gateway.store.lease_sql import Holder

if TYPE_CHECKING:
    from gateway.cluster.lease import Term
    from gateway.store import Store, Tx
    from gateway.store.lease_sql import GatewayRecord

log = structlog.get_logger()

LOOK_SECONDS: Final = 0.25


class ReplacedError(GatewayError):
    """Another process has registered under this id, while this one was paused or could not reach the registry."""

    code = "already_running"


class Registration:
    """The row of this gateway. ``term`` says after which time without a renewal it counts as dead."""

    def __init__(self, store: Store, gateway: GatewayRecord, term: Term) -> None:
        self.holder = Holder(gateway.gateway_id, gateway.instance)
        self._store = store
        self._gateway = gateway
        self._term = term

    async def begin(self, *, is_alone: bool) -> None:
        """Register. A process that has just died is waited for, unless this one ``is_alone`` on the registry.

        Raises:
            AlreadyRunningError: a gateway runs under this id.
            StoreError: the registry cannot be written.
        """
        if is_alone:
            await self._store.write(lease_sql.forget_all)
        seen: int | None = None
        while not await self._store.write(self._register):
            other = await self._store.read(lambda view: lease_sql.registered(view, self.holder.gateway_id))
            if other is not None and seen not in (None, other.seen_at):
                raise _refusal(other)
            if other is not None and seen is None:
                log.info("gateway.waits", gateway_id=other.gateway_id, seconds=self._term.seconds, reason=_WAITS)
                seen = other.seen_at
            await asyncio.sleep(LOOK_SECONDS)

    def _register(self, tx: Tx) -> bool:
        """Register, and make the broker known: from this commit on, changes are marked for it."""
        if not lease_sql.register(tx, self._gateway, self._term.ms):
            return False
        tx.context.link.broker = broker_sql.join(tx, self._gateway.broker_id)
        return True

    async def run(self) -> None:
        """Renew the registration until cancelled.

        Raises:
            ReplacedError: another process has taken this id.
        """
        while True:
            await asyncio.sleep(self._term.renewal_seconds)
            with suppress(StoreError):  # the store has logged that
                if not await self._store.renew(lambda tx: lease_sql.see(tx, self.holder)):
                    raise ReplacedError(
                        f"Another process has started as gateway '{self.holder.gateway_id}' while this one was "
                        "paused or away from the registry. This one stops. Give each gateway its own gateway_id."
                    )

    async def end(self) -> None:
        """Remove the registration and hand over the leases, however far the start of this process had come.

        A write that was told to stop may be committed all the same. So a task that was cancelled while it registered
        or took a lease does not know whether it has. This write follows those.
        """
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._store.write(lambda tx: lease_sql.deregister(tx, self.holder))


_WAITS: Final = "the last process of this gateway did not stop cleanly; it counts as dead after that time"


def _refusal(other: GatewayRecord) -> AlreadyRunningError:
    return AlreadyRunningError(
        f"A gateway '{other.gateway_id}' runs on this registry already: on {other.host}, HTTP {other.http}, since "
        f"{to_rfc3339(other.started_at)}. Give each gateway its own id in the setting gateway_id, or stop that one."
    )
