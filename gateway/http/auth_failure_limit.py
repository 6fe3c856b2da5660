"""How often an address may be told that its credential is none: so often in each minute of the clock.

Only refusals count, and only they are cut short after that: a good credential opens what it opens, whoever else knocks
from the same address (a site behind one NAT address). What keeps a guesser out are the 190 random bits of a credential;
this keeps one, or a flood of junk, from filling the log.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

import structlog
from starlette.types import Scope

from gateway.core.clock import Clock
from gateway.http.errors import RateLimitExceededError, TooManyRefusalsError
from gateway.http.rate_limit import WINDOW_SECONDS, Quota

log = structlog.get_logger()

MOST_ADDRESSES: Final = 10_000
UNKNOWN_HOST: Final = "unknown"
_SHARES: Final = 10
_LEAST_SHARE: Final = 10
_SECOND_MS: Final = 1_000
_NETWORK_BITS: Final = 64
"""Of an IPv6 address: the rest belongs to one subscriber, who has all of it to call from."""


class AuthFailureLimiter:
    """Counts refusals per address; 0 is no limit. One bad credential has a tenth of that, or ten where that is more.

    So a device that tries a revoked token on and on does not keep others at its site from being told of theirs. Of more
    than ``most_addresses`` those not seen for longest go first.

    Less than the limit of callers has to do (``gateway.http.rate_limit``): this is the way that a flood takes.
    """

    def __init__(self, per_minute: int, clock: Clock, *, most_addresses: int = MOST_ADDRESSES) -> None:
        self._limit = per_minute
        self._clock = clock
        self._most = most_addresses
        self._minute = 0
        self._share = min(per_minute, max(_LEAST_SHARE, per_minute // _SHARES))
        self._told: OrderedDict[str, Counter[int]] = OrderedDict()

    def refused(self, scope: Scope) -> tuple[Quota, RateLimitExceededError] | None:
        """Note that whoever sends this request was refused; what is left, and the error, when it was too often."""
        if not self._limit:
            return None
        now = self._clock() // _SECOND_MS
        address, minute = address_of(scope), now // WINDOW_SECONDS
        told, shown = self._told_to(address, minute), _shown_in(scope)
        reset = (minute + 1) * WINDOW_SECONDS
        if told.total() >= self._limit:
            return Quota(self._limit, 0, reset), TooManyRefusalsError(self._limit, reset - now)
        if told[shown] >= self._share:
            return Quota(self._share, 0, reset), TooManyRefusalsError(
                self._share, reset - now, of="with this bad credential"
            )
        told[shown] += 1
        if self._limit == told.total() or told[shown] == self._share:
            log.warning("http.credentials_refused", address=address, in_one_minute=told.total())
        return None

    def _told_to(self, address: str, minute: int) -> Counter[int]:
        if minute != self._minute:
            self._minute = minute
            self._told.clear()
        told = self._told.setdefault(address, Counter())
        self._told.move_to_end(address)
        if len(self._told) > self._most:
            self._told.popitem(last=False)
        return told


def _shown_in(scope: Scope) -> int:
    """A number for the credential in a request, which does not tell it; those without one have a number, too."""
    return hash(next((value for name, value in scope.get("headers", ()) if name == b"authorization"), b""))


def address_of(scope: Scope) -> str:
    """Where a request comes from: the other end of its connection, of an IPv6 address the network."""
    client = scope.get("client")
    return site_of(client[0] if client else "")


def host_of(scope: Scope) -> str:
    """The address at the other end of the connection, all of it: for the log and the audit trail."""
    client = scope.get("client")
    host = str(client[0] if client else "").partition("%")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return UNKNOWN_HOST
    return str(getattr(address, "ipv4_mapped", None) or address)


def site_of(host: str) -> str:
    """The address, of an IPv6 address the network: what one subscriber has to call from."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return UNKNOWN_HOST
    if not isinstance(address, IPv6Address):
        return str(address)
    mapped = address.ipv4_mapped
    return str(mapped or ip_network((address, _NETWORK_BITS), strict=False))
