"""Refused sign-ins over HTTP and MQTT: each is counted, and a bounded number of events tells of them.

Refusals are gathered per address in memory. Once a minute those addresses that were refused most get an event each, at
most ``EVENTS_PER_HOUR`` in an hour of the clock. One more event an hour sums up the rest. So a flood writes 21 rows an
hour, whatever its rate and however many addresses it has.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, get_args

import structlog

from gateway.clock import to_rfc3339
from gateway.errors import GatewayError, StoreError
from gateway.model import EventType
from gateway.store import Store, Tx, events

log = structlog.get_logger()

Channel = Literal["http", "mqtt", "broker_auth"]
Reason = Literal["missing", "malformed", "unknown", "expired", "revoked", "rotated", "certificate"]
SIGN_INS: Final[tuple[tuple[Channel, Reason], ...]] = (
    *(("http", reason) for reason in get_args(Reason)),
    ("mqtt", "unknown"),
    ("broker_auth", "unknown"),
)
"""Every pair that can be: the brokers are told no reason, so neither is the gateway."""
EVENTS_PER_HOUR: Final = 20
MOST_GATHERED: Final = 1_000
"""So many addresses are told apart between two events of the rest."""
_EVERY_SECONDS: Final = 60.0
_HOUR_MS: Final = 3_600_000


class RefusedSignIn(NamedTuple):
    """One refused sign-in. ``address`` is empty where the gateway cannot know it: a broker asked on behalf of a client.

    ``key_id`` and ``project_id`` are those of an API key that was good before, and ``username`` is one that exists.
    """

    channel: Channel
    reason: Reason
    address: str
    key_id: str | None = None
    project_id: str = events.REGISTRY


class _From(NamedTuple):
    project_id: str
    channel: Channel
    address: str
    key_id: str | None


@dataclass
class _Gathered:
    first_at: int
    last_at: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        return self.reasons.total()

    def add(self, other: _Gathered) -> None:
        self.first_at, self.last_at = min(self.first_at, other.first_at), max(self.last_at, other.last_at)
        self.reasons += other.reasons

    def facts(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "reasons": dict(self.reasons),
            "first_at": to_rfc3339(self.first_at),
            "last_at": to_rfc3339(self.last_at),
        }


class RefusedSignIns:
    """Gathers refusals; ``counted`` is told of each, for the metrics."""

    def __init__(self, store: Store, counted: Callable[[str, str], None]) -> None:
        self._store = store
        self._counted = counted
        self._gathered: dict[_From, _Gathered] = {}
        self._rest: _Gathered | None = None
        self._rest_sources = 0
        self._hour = self._now() // _HOUR_MS
        self._left = EVENTS_PER_HOUR

    def note(self, refusal: RefusedSignIn) -> None:
        """Take in one refusal. A request without any credential is only counted: it is no sign-in."""
        self._counted(refusal.channel, refusal.reason)
        if refusal.reason == "missing":
            return
        now = self._now()
        source = _From(refusal.project_id, refusal.channel, refusal.address, refusal.key_id)
        known = self._gathered.get(source)
        if known is None and len(self._gathered) < MOST_GATHERED:
            known = self._gathered[source] = _Gathered(now)
        if known is None:
            self._rest_sources += 1
            known = self._rest = self._rest or _Gathered(now)
        known.last_at = now
        known.reasons[refusal.reason] += 1

    async def run(self) -> None:
        """Write events once a minute until cancelled, and once more then."""
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
        """Write events of what was gathered, as many as this hour has left; keep the rest for the hour's last event.

        Raises:
            StoreError: nothing was written; what was gathered is kept.
        """
        ended = self._begin_hour()
        if not self._gathered and not ended:
            return
        most = sorted(self._gathered.items(), key=lambda each: each[1].count, reverse=True)[: self._left]
        await self._store.write(lambda tx: _record(tx, most, ended), urgent=False)
        self._left -= len(most)
        if ended:
            self._rest, self._rest_sources = None, 0
        for source, _ in most:
            del self._gathered[source]
        if not self._left:
            for gathered in self._gathered.values():
                self._add_to_rest(gathered)
            self._gathered.clear()

    def _begin_hour(self) -> dict[str, Any] | None:
        """Give a new hour its events; return what the rest of the hour before is to be told as, if there is any."""
        hour = self._now() // _HOUR_MS
        if hour == self._hour:
            return None
        self._hour, self._left = hour, EVENTS_PER_HOUR
        return None if self._rest is None else {**self._rest.facts(), "sources": self._rest_sources}

    def _add_to_rest(self, gathered: _Gathered) -> None:
        self._rest_sources += 1
        if self._rest is None:
            self._rest = _Gathered(gathered.first_at)
        self._rest.add(gathered)

    def _now(self) -> int:
        return self._store.context.clock()


def _record(tx: Tx, most: list[tuple[_From, _Gathered]], rest: dict[str, Any] | None) -> None:
    gateway = "gateway"
    if rest is not None:
        events.record_administrative(tx, events.REGISTRY, EventType.AUTH_REFUSED, gateway, **rest)
    for source, gathered in most:
        facts = {"channel": source.channel, "address": source.address or None, "key_id": source.key_id}
        told = {name: value for name, value in facts.items() if value is not None}
        events.record_administrative(tx, source.project_id, EventType.AUTH_REFUSED, gateway, **told, **gathered.facts())
