"""Rate limit for wrong passwords: such a client waits for each answer, and most of its tries are not looked up.

An address has a budget of failures. Once that is used up, a CONNECT from there is looked up only if the registry knows
its user name. A device behind the same NAT thus connects at once. A known name has a separate budget there.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from gateway.broker.embedded.session import ClientConnection
from gateway.core.addresses import site_of
from gateway.core.limits import CellRate
from gateway.runtime.paced_log import Paced

log = structlog.get_logger()

PER_SECOND: Final = 5
SAVED_SECONDS: Final = 10
"""Budget of an address: so many failures a second in the long run, and those of so many seconds at once."""
PER_SECOND_OF_NAME: Final = 1
SAVED_SECONDS_OF_NAME: Final = 5
"""The same for one user name from an address whose budget is used up, for good and bad passwords."""
DELAY_SECONDS: Final = 1.0
"""How long a client then waits for a refusal."""
HELD: Final = 256
"""Number of clients that wait at once. For one more, the oldest of the address with most of them is closed."""


def _milliseconds() -> int:
    return time.monotonic_ns() // 1_000_000


class Refusals:
    """Counts failures by address. ``is_known`` returns whether the registry knows a user name."""

    def __init__(self, is_known: Callable[[str], Awaitable[bool]]) -> None:
        self._is_known = is_known
        self._failures = CellRate[str](PER_SECOND, _milliseconds, saved_seconds=SAVED_SECONDS)
        self._names = CellRate[str](PER_SECOND_OF_NAME, _milliseconds, saved_seconds=SAVED_SECONDS_OF_NAME)
        self._held: dict[str, dict[ClientConnection, None]] = {}
        self._count = 0
        self._tell = Paced(lambda count: log.warning("broker.refusals_paced", refused_since_last_told=count))

    async def admits(self, connection: ClientConnection, username: str | None) -> bool:
        """Return whether this CONNECT is looked up."""
        site = site_of(connection.address)
        if self._failures.has_room(site):
            return True
        if username is not None and await self._is_known(username) and self._names.take(f"{site} {username}"):
            return True
        self._tell()
        return False

    def failed(self, connection: ClientConnection) -> bool:
        """Count a failure of this address. Return whether its budget is used up."""
        return not self._failures.take(site_of(connection.address))

    async def delay(self, connection: ClientConnection) -> None:
        """Let this client wait for its refusal, unless it has to make room for another one."""
        site = site_of(connection.address)
        if self._count >= HELD:
            self._drop_one()
        self._held.setdefault(site, {})[connection] = None
        self._count += 1
        try:
            await connection.pause(DELAY_SECONDS)
        finally:
            self._leave(site, connection)

    def _drop_one(self) -> None:
        site, busiest = max(self._held.items(), key=lambda each: len(each[1]))
        oldest = next(iter(busiest))
        self._leave(site, oldest)
        oldest.abort()

    def _leave(self, site: str, connection: ClientConnection) -> None:
        if connection in self._held.get(site, {}):
            self._count -= 1
            del self._held[site][connection]
            if not self._held[site]:
                del self._held[site]
