"""How many connections a server has room for, and which one goes when there are too many."""

from __future__ import annotations

from typing import Final, Protocol

import structlog

log = structlog.get_logger()

_TOLD_EVERY: Final = 1_000


class Guest(Protocol):
    """A connection."""

    def give_way(self) -> None:
        """Close, since another one needs the place."""


class Room:
    """Places for so many connections. One that waits for a request, or sends one ever so slowly, can be sent away."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._taken: set[Guest] = set()
        self._waiting: dict[Guest, None] = {}
        self._sent_away = 0

    def enter(self, guest: Guest) -> bool:
        """Take a place, that of the guest who waits longest if there is no other; ``False`` when all are at work."""
        self._taken.add(guest)
        if len(self._taken) <= self._places:
            return True
        longest = next(iter(self._waiting), guest)
        self._tell()
        self.leave(longest)
        if longest is guest:
            return False
        longest.give_way()
        return True

    def leave(self, guest: Guest) -> None:
        """Give the place up."""
        self._taken.discard(guest)
        self._waiting.pop(guest, None)

    def waits(self, guest: Guest) -> None:
        """A request may come now, in time."""
        self._waiting.pop(guest, None)
        self._waiting[guest] = None

    def works(self, guest: Guest) -> None:
        """Its request has come."""
        self._waiting.pop(guest, None)

    def _tell(self) -> None:
        if self._sent_away % _TOLD_EVERY == 0:
            log.warning("http.connections_full", most=self._places, sent_away_before=self._sent_away)
        self._sent_away += 1
