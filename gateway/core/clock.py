"""Time: integer milliseconds since the epoch inside the gateway, RFC 3339 in UTC at its edge."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

Clock = Callable[[], int]
"""Returns milliseconds since the epoch."""

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60 * SECOND_MS
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def system_clock() -> int:
    """Return the machine's time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def to_rfc3339(milliseconds: int) -> str:
    """Return milliseconds since the epoch as RFC 3339 in UTC, with three decimals and ``Z``."""
    moment = _EPOCH + milliseconds * _MILLISECOND
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def from_datetime(moment: datetime) -> int:
    """Return an aware datetime as milliseconds since the epoch."""
    return (moment - _EPOCH) // _MILLISECOND
