"""Refused sign-ins over HTTP and MQTT: each is counted, and a bounded number of events reports them.

Refusals are grouped by address in memory. Once a minute the addresses with most refusals get an event each, at most
``EVENTS_PER_HOUR`` in an hour of the clock. One more event an hour sums up the rest. So a flood writes 21 rows an hour,
whatever its rate and number of addresses.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import structlog

from gateway.core.clock import HOUR_MS, to_rfc3339
from gateway.errors import GatewayError, StoreError
from gateway.models.events import EventType
from gateway.models.sign_ins import Channel, Reason
from gateway.store import Store, Tx, event_sql

log = structlog.get_logger()

EVENTS_PER_HOUR: Final = 20
MOST_GATHERED: Final = 1_000
"""Number of addresses that are kept apart between two events of the rest."""
_EVERY_SECONDS: Final = 60.0


class RefusedSignIn(NamedTuple):
    """One refused sign-in. ``address`` is empty where the gateway cannot know it: a broker asked on behalf of a client.

    ``key_id`` and ``project_id`` are those of an API key that was good before, and ``username`` is one that exists.
    """

    channel: Channel
    reason: Reason
    address: str
    key_id: str | None = None
    project_id: str = event_sql.REGISTRY


class _From(NamedTuple):
    project_id: str
    channel: Channel
    address: str
    key_id: str | None

    def facts(self) -> dict[str, Any]:
        facts = {"channel": self.channel, "address": self.address or None, "key_id": self.key_id}
        return {name: value for name, value in facts.items() if value is not None}


@dataclass
class _Gathered:
    first_at: int
    last_at: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    sources: int = 1
    """Addresses of an hour's rest: one may be counted more than once."""

    @property
    def count(self) -> int:
        return self.reasons.total()

    def add(self, other: _Gathered) -> None:
        self.first_at, self.last_at = min(self.first_at, other.first_at), max(self.last_at, other.last_at)
        self.reasons += other.reasons
        self.sources += other.sources

    def facts(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "reasons": dict(self.reasons),
            "first_at": to_rfc3339(self.first_at),
            "last_at": to_rfc3339(self.last_at),
        } | ({} if self.sources == 1 else {"sources": self.sources})


class RefusedSignIns:
    """Groups refusals; ``counted`` is called for each, for the metrics."""

    def __init__(self, store: Store, counted: Callable[[str, str], None]) -> None:
        self._store = store
        self._counted = counted
        self._gathered: dict[_From, _Gathered] = {}
        self._rest: _Gathered | None = None
        self._hour = self._now() // HOUR_MS
        self._left = EVENTS_PER_HOUR

    def note(self, refusal: RefusedSignIn) -> None:
        """Record one refusal. A request without any credential is only counted: it is no sign-in."""
        self._counted(refusal.channel, refusal.reason)
        if refusal.reason == "missing":
            return
        now = self._now()
        source = _From(refusal.project_id, refusal.channel, refusal.address, refusal.key_id)
        known = self._gathered.get(source)
        if known is None and len(self._gathered) < MOST_GATHERED:
            known = self._gathered[source] = _Gathered(now)
        if known is None:
            known = self._rest = self._rest or _Gathered(now, sources=0)
            known.sources += 1
        known.last_at = now
        known.reasons[refusal.reason] += 1

    async def run(self) -> None:
        """Write events once a minute until cancelled, and once more at the end."""
        try:
            while True:
                await asyncio.sleep(_EVERY_SECONDS)
                await self._try_to_write()
        finally:
            with suppress(GatewayError):
                await self.write()

    async def _try_to_write(self) -> None:
        try:
            await self.write()
        except StoreError as error:
            log.error("sign_ins.not_stored", reason=error.message)  # noqa: TRY400 - no bug of ours

    async def write(self) -> None:
        """Write events of the recorded refusals, as many as this hour has left; keep the rest.

        Raises:
            StoreError: nothing was written; the record is kept.
        """
        rest, most = self._take_rest(), self._take_most()
        if not rest and not most:
            return
        told = [(event_sql.REGISTRY, rest.facts())] if rest else []
        told += [(source.project_id, {**source.facts(), **gathered.facts()}) for source, gathered in most]
        try:
            await self._store.write(lambda tx: _record(tx, told), urgent=False)
        except GatewayError:
            for gathered in (*([rest] if rest else []), *(gathered for _, gathered in most)):
                self._add_to_rest(gathered)
            raise

    def _take_rest(self) -> _Gathered | None:
        """Begin the budget of a new hour; return the rest of the hour before, if there is any."""
        hour = self._now() // HOUR_MS
        if hour == self._hour:
            return None
        self._hour, self._left = hour, EVENTS_PER_HOUR
        rest, self._rest = self._rest, None
        return rest

    def _take_most(self) -> list[tuple[_From, _Gathered]]:
        """Remove and return the addresses with most refusals, as many as this hour has events for.

        When it has none left, all count as rest. What is removed belongs to the caller: refusals go on meanwhile.
        """
        most = sorted(self._gathered.items(), key=lambda each: each[1].count, reverse=True)[: self._left]
        self._left -= len(most)
        for source, _ in most:
            del self._gathered[source]
        if not self._left:
            for gathered in self._gathered.values():
                self._add_to_rest(gathered)
            self._gathered.clear()
        return most

    def _add_to_rest(self, gathered: _Gathered) -> None:
        if self._rest is None:
            self._rest = _Gathered(gathered.first_at, sources=0)
        self._rest.add(gathered)

    def _now(self) -> int:
        return self._store.context.clock()


def _record(tx: Tx, told: list[tuple[str, dict[str, Any]]]) -> None:
    for project_id, facts in told:
        event_sql.record_administrative(tx, project_id, EventType.AUTH_REFUSED, "gateway", **facts)
