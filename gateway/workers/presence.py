"""Presence by silence: which devices are overdue, judged only by what the gateway could have received.

Time in which the gateway did not receive counts for no device. That may be an outage of the gateway or of its broker, a
pause of the process, or a step of the clock. Before a device is set offline, the gateway has read everything that the
broker received from devices until then (contract, section 3).

No deadline is moved for that: the time is kept once for each broker, and added when a deadline is judged. After one
whole silence every earlier deadline has passed, and the time is no longer added.

The owner of a broker judges the devices that were heard there last, since it alone knows whether all is read. When a
broker has had no owner for long, the other owners judge its devices, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import structlog

from gateway.core.clock import SECOND_MS
from gateway.domain import heartbeats
from gateway.store import Store, View, broker_sql, health_sql
from gateway.store.broker_sql import ForgivenSilence
from gateway.workers.rounds import repeat

log = structlog.get_logger()

INTERVAL_SECONDS: Final = 1.0
BACKLOG_SECONDS: Final = 10.0
"""How long one round waits until the backlog is read. The next one waits again."""
_NOTICEABLE: Final = 10
"""A gap shorter than this part of the silence is ignored: it sets no device offline."""
STANDSTILL_MS: Final = 3_000
"""Less than this between two rounds is no gap: the loop was busy."""
_REMEDY: Final = (
    "No device is declared offline until the gateway has read what the broker keeps. If this goes on while /ready says "
    "that the broker is connected, let the gateway's user write and read gateways/marks there."
)


class PresenceWorker:
    """Sets silent devices offline. ``taken_in`` waits for the backlog, ``listens`` returns whether it is connected."""

    def __init__(self, store: Store, taken_in: Callable[[float], Awaitable[bool]], listens: Callable[[], bool]) -> None:
        self._store = store
        self._taken_in = taken_in
        self._listens = listens
        self._heard_until: int | None = None
        self._forgiven = ForgivenSilence(None, 0)

    async def run(self) -> None:
        """Check once a second until cancelled.

        Raises:
            LeaseLostError: another gateway does this by now.
        """
        await repeat("presence", self._store, self.look, INTERVAL_SECONDS)

    async def look(self) -> None:
        """Run one round: exclude a gap in which the process stood still or its clock jumped, then judge."""
        if not self._listens():
            return
        await self.forgive(least_ms=STANDSTILL_MS)
        await self.judge(self._heard_until)

    async def forgive(self, *, least_ms: int = 0) -> None:
        """Forgive every device the time that the gateway did not receive, if that was at least so many milliseconds.

        Call it at each connect before anything is received: later messages set their own deadlines.

        Raises:
            StoreError: the registry cannot be read or written.
        """
        now, broker = self._store.context.clock(), self._store.context.broker
        if self._heard_until is None:
            find = partial(_last_heard, silence_ms=self._silence_ms, broker=broker)
            heard_until, self._forgiven = await self._store.read(find)
            self._heard_until = now if heard_until is None else heard_until
        gap = now - self._heard_until
        if gap >= least_ms and gap * _NOTICEABLE >= self._silence_ms:
            forgiven = ForgivenSilence(now, self._forgiven_at(self._heard_until) + gap)
            await self._store.write(lambda tx: broker_sql.forgive_silence(tx, broker, forgiven))
            self._forgiven = forgiven
            log.info("presence.gap_forgiven", seconds=round(gap / SECOND_MS, 1))
        self._heard_until = now

    def _forgiven_at(self, instant: int) -> int:
        """Return how much later a deadline counts at this instant, in ms: 0 once a silence has passed since."""
        at, forgiven = self._forgiven
        still = at is not None and at - health_sql.CLOCKS_DIFFER_MS <= instant < at + self._silence_ms
        return forgiven if still else 0

    @property
    def _silence_ms(self) -> int:
        return self._store.context.rules.silence_ms

    async def judge(self, until: int | None = None) -> None:
        """Set each device offline that was silent for too long, once the backlog is read.

        ``until`` is the time until which the gateway received, in ms; None: now. The clock may jump at any moment after
        the gap was checked.

        Raises:
            StoreError: the registry cannot be read or written.
        """
        clock = self._store.context.clock
        until = clock() if until is None else until
        while True:
            due = self._due_until(until)
            if not await self._store.read(partial(self._is_due, until=due)):
                return
            began = clock()
            if not await self._taken_in(BACKLOG_SECONDS):
                log.warning("presence.backlog_not_read", seconds=BACKLOG_SECONDS, remedy=_REMEDY)
                return
            if clock() - began >= max(STANDSTILL_MS, self._silence_ms // _NOTICEABLE):
                return  # the process stood still meanwhile, or the backlog is long: check the gap first
            sweep = partial(heartbeats.sweep_presence, until=due)
            offline = await self._store.write(sweep, urgent=False)
            if offline:
                log.info("presence.judged", devices_offline=offline)

    def _due_until(self, until: int) -> int:
        """Return up to which deadline a device is overdue, in ms."""
        instant = min(until, self._store.context.clock())
        return instant - self._forgiven_at(instant)

    def _is_due(self, view: View, *, until: int) -> bool:
        latest = heartbeats.latest_due(self._store.context.rules, self._store.context.clock())
        return health_sql.presence_is_due(view, until, latest, self._store.context.broker)


def _last_heard(view: View, *, silence_ms: int, broker: int) -> tuple[int | None, ForgivenSilence]:
    """Return until when an earlier process surely received at this broker, and what it has forgiven.

    It received the newest message, and it was there when it last forgave.
    """
    latest, forgiven = health_sql.latest_deadline(view, broker), broker_sql.forgiven_silence(view, broker)
    return None if latest is None else max(latest - silence_ms, forgiven.at or 0), forgiven
