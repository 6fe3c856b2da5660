"""Rate limits per key: a fixed window, and the generic cell rate algorithm. Both remember a bounded number of keys.

Neither is safe to use from two threads at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from operator import itemgetter
from typing import Final, Generic, NamedTuple, TypeVar

from gateway.core.clock import SECOND_MS, Clock

K = TypeVar("K", bound=Hashable)
Milliseconds = TypeVar("Milliseconds", int, float)

_REMEMBERED: Final = 50_000


class Window(NamedTuple):
    """What a key has left in the current window; ``ends_at`` is in milliseconds since the epoch."""

    remaining: int
    ends_at: int


class FixedWindow(Generic[K]):
    """``limit`` for each key in each window of the clock.

    A clock that is set back begins another window, so it locks no key out. Of more than ``most_keys`` keys, those not
    seen for longest are forgotten first.
    """

    def __init__(self, limit: int, window_ms: int, clock: Clock, *, most_keys: int) -> None:
        self.limit = limit
        self._window_ms = window_ms
        self._clock = clock
        self._most_keys = most_keys
        self._number = 0
        self._used: OrderedDict[K, int] = OrderedDict()

    def take(self, key: K) -> bool:
        """Return whether this key may have one more in this window, and count it if so."""
        used = self._seen(key)
        if used >= self.limit:
            return False
        self._used[key] = used + 1
        if len(self._used) > self._most_keys:
            self._used.popitem(last=False)
        return True

    def has_room(self, key: K) -> bool:
        """Return whether this key may have one more in this window, without counting it."""
        return self._seen(key) < self.limit

    def left(self, key: K) -> Window:
        """Return what this key has left in this window."""
        return Window(self.limit - self._seen(key), (self._number + 1) * self._window_ms)

    def _seen(self, key: K) -> int:
        number = self._clock() // self._window_ms
        if number != self._number:
            self._number = number
            self._used.clear()
        used = self._used.get(key, 0)
        if used:
            self._used.move_to_end(key)
        return used


class CellRate(Generic[K]):
    """``per_second`` for each key in the long run, 0 for no limit.

    Unused budget is saved: ``saved_seconds`` of it, or ``saved`` units if those are more. Of more than ``remembered``
    keys, those that used least of their budget are forgotten first. A key whose budget is used up
    thus stays refused, however many others come.
    """

    def __init__(
        self, per_second: int, clock: Clock, *, saved_seconds: int, saved: int = 0, remembered: int = _REMEMBERED
    ) -> None:
        self._each_ms = SECOND_MS / per_second if per_second else 0.0
        self._saved_ms = max(saved_seconds * SECOND_MS, saved * self._each_ms)
        self._clock = clock
        self._remembered = remembered
        self._paid: dict[K, float] = {}
        self._now = clock()

    def take(self, key: K) -> bool:
        """Return whether this key may have one more now, and count it if so."""
        now = self._clock()
        if now < self._now:
            self._set_back(self._now - now)
        self._now = now
        paid = paid_until(self._paid.get(key, 0.0), now, self._each_ms, self._saved_ms)
        if paid > now:
            return False
        self._paid[key] = paid
        if len(self._paid) > self._remembered:
            self._forget()
        return True

    def has_room(self, key: K) -> bool:
        """Return whether this key may have one more now, without counting it."""
        now = self._clock()
        return paid_until(self._paid.get(key, 0.0), now, self._each_ms, self._saved_ms) <= now

    def _set_back(self, milliseconds: int) -> None:
        """Follow a clock that is set back, so that it costs no key anything."""
        self._paid = {key: paid - milliseconds for key, paid in self._paid.items()}

    def _forget(self) -> None:
        """Forget the half that has used least of its budget. They start again with little more than they have."""
        used_most = sorted(self._paid.items(), key=itemgetter(1), reverse=True)
        self._paid = dict(used_most[: self._remembered // 2])


def paid_until(paid: Milliseconds, now: int, each: Milliseconds, saved: Milliseconds) -> Milliseconds:
    """Return the instant up to which a key has paid after one more unit; one in the future refuses the unit.

    This is the generic cell rate algorithm (ITU-T I.371): one number a key. ``each`` is the time that pays for a unit,
    ``saved`` the time whose budget a key may save, all in milliseconds.
    """
    least = now - saved
    return (max(least, paid)) + each  # of each heartbeat: a call of max() would cost more than the rest
