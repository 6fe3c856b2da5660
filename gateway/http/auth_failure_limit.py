"""Rate limit for failed authentication per IP address, in fixed one-minute windows.

Only refusals count, and only they are limited. A good credential works, whatever other clients send from the same
address (a site behind one NAT address). The 190 random bits of a credential keep a guesser out. This limit keeps one,
or a flood of junk, from filling the log.
"""

from __future__ import annotations

from typing import Final

import structlog
from starlette.types import Scope

from gateway.core.addresses import UNKNOWN_HOST, host_address, site_of
from gateway.core.clock import MINUTE_MS, Clock
from gateway.core.limits import FixedWindow, K
from gateway.http.errors import RateLimitExceededError, TooManyRefusalsError
from gateway.http.rate_limit import Quota, quota_of, seconds_until

log = structlog.get_logger()

MOST_ADDRESSES: Final = 10_000
_SHARES: Final = 10
_LEAST_SHARE: Final = 10


class AuthFailureLimiter:
    """Counts refusals per address; 0 is no limit. One bad credential has a tenth of that, or ten where that is more.

    A device that repeats a revoked token thus does not keep others at its site from seeing their refusals.
    """

    def __init__(self, per_minute: int, clock: Clock, *, most_addresses: int = MOST_ADDRESSES) -> None:
        self._clock = clock
        share = min(per_minute, max(_LEAST_SHARE, per_minute // _SHARES))
        self._addresses = FixedWindow[str](per_minute, MINUTE_MS, clock, most_keys=most_addresses)
        self._credentials = FixedWindow[tuple[str, int]](share, MINUTE_MS, clock, most_keys=most_addresses)

    def refused(self, scope: Scope) -> tuple[Quota, RateLimitExceededError] | None:
        """Count the refusal of this request; return what is left, and the error when the limit is exceeded."""
        if not self._addresses.limit:
            return None
        address = address_of(scope)
        credential = (address, _shown_in(scope))
        if not self._addresses.has_room(address):
            return self._too_many(self._addresses, address)
        if not self._credentials.take(credential):
            return self._too_many(self._credentials, credential, of="with this bad credential")
        self._addresses.take(address)
        if not self._addresses.has_room(address) or not self._credentials.has_room(credential):
            told = self._addresses.limit - self._addresses.left(address).remaining
            log.warning("http.credentials_refused", address=address, in_one_minute=told)
        return None

    def _too_many(self, window: FixedWindow[K], key: K, **of: str) -> tuple[Quota, RateLimitExceededError]:
        quota = quota_of(window.limit, window.left(key))
        return quota, TooManyRefusalsError(window.limit, seconds_until(quota, self._clock), **of)


def _shown_in(scope: Scope) -> int:
    """Return a number for the credential in a request, also for a missing one, without revealing it."""
    return hash(next((value for name, value in scope.get("headers", ()) if name == b"authorization"), b""))


def address_of(scope: Scope) -> str:
    """Return the address at the other end of the connection; of an IPv6 address the network."""
    client = scope.get("client")
    return site_of(client[0] if client else "")


def host_of(scope: Scope) -> str:
    """Return the full address at the other end of the connection, for the log and the audit trail."""
    client = scope.get("client")
    return str(host_address(str(client[0]) if client else "") or UNKNOWN_HOST)
