"""Limit of request-log lines without a known caller: per address and minute, and per second in all.

The log takes a bounded number of lines of one kind each second (``log_lines_per_second``). Without this limit a client
that requests ``/nowhere`` in a loop would fill the disk at that pace, and lines of keys and devices would be dropped.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import structlog
from starlette.types import Scope

from gateway.core.clock import MINUTE_MS, SECOND_MS, Clock
from gateway.core.limits import FixedWindow
from gateway.http.auth_failure_limit import MOST_ADDRESSES, address_of

log = structlog.get_logger()

LINES_PER_MINUTE: Final = 60
LINES_PER_SECOND: Final = 50


class StrangerLines:
    """Counts lines of requests without a known caller, and logs once a minute how many were dropped."""

    def __init__(self, clock: Clock, *, per_minute: int = LINES_PER_MINUTE, per_second: int = LINES_PER_SECOND) -> None:
        self._clock = clock
        # There are as many addresses as lines: 50 in a second make 3,000 in a minute.
        self._of_address = FixedWindow[str](per_minute, MINUTE_MS, clock, most_keys=MOST_ADDRESSES)
        self._in_all = FixedWindow[None](per_second, SECOND_MS, clock, most_keys=1)
        self._minute = 0
        self._left_out: Counter[str] = Counter()

    def is_written(self, scope: Scope, *, worth_a_line: bool = True) -> bool:
        """Return whether this request gets its line, and count it."""
        self._begin(self._clock() // MINUTE_MS)
        address = address_of(scope)
        if worth_a_line and self._in_all.has_room(None) and self._of_address.take(address):
            return self._in_all.take(None)
        if address in self._left_out or len(self._left_out) < MOST_ADDRESSES:
            self._left_out[address] += 1
        return False

    def _begin(self, minute: int) -> None:
        if minute != self._minute:
            self._minute = minute
            self._tell()
            self._left_out.clear()

    def _tell(self) -> None:
        for address, count in self._left_out.most_common(1):
            log.warning(
                "http.log_lines_suppressed",
                lines=self._left_out.total(),
                addresses=len(self._left_out),
                most_from=address,
                of_these=count,
            )
