"""Identifiers: a prefix that names the kind, and a ULID, so that ids sort by time (contract, section 1)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.core.randomness import Entropy

PROJECT: Final = "proj_"
DEVICE: Final = "dev_"
END_USER: Final = "eu_"
COMMAND: Final = "cmd_"
EVENT: Final = "evt_"
WEBHOOK: Final = "wh_"
DELIVERY: Final = "dlv_"
KEY: Final = "key_"
GATEWAY: Final = "gw_"
CERTIFICATE: Final = "cert_"
SESSION: Final = "ses_"
JOB: Final = "job_"

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS: Final = 80
_STEP_BITS: Final = 64
"""Bits of the random step from one id to the next of the same millisecond. A millisecond holds 65,536 such steps."""
_ULID_LENGTH: Final = 26
BODY: Final = r"[A-Za-z0-9]{1,64}"


class Ids:
    """Mints ids that rise strictly, also within a millisecond and after the clock was set back (monotonic ULID).

    Where the clock gives no higher number, the next id is the last one plus a random step. The step is random so that
    two processes that continue from the same id do not mint the same one.
    """

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._last = 0
        self.followed: object = None
        """The newest id of the registry when this object last followed it."""

    def after(self, body: str) -> None:
        """Mint only ids that sort after this one, whatever the clock says. ``body`` has 26 characters, no prefix."""
        self._last = max(self._last, _decode(body))

    def new(self, prefix: str, now: int) -> str:
        """Return a new id at ``now`` (milliseconds since the epoch)."""
        random = int.from_bytes(self._entropy(_RANDOM_BITS // 8))
        fresh = now << _RANDOM_BITS | random
        step = (random >> _RANDOM_BITS - _STEP_BITS) + 1
        self._last = fresh if fresh >> _RANDOM_BITS > self._last >> _RANDOM_BITS else self._last + step
        return prefix + _encode(self._last)


def _encode(value: int) -> str:
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(5 * (_ULID_LENGTH - 1), -1, -5))


def _decode(body: str) -> int:
    """Return the number that a ULID spells, or 0 for an id that is no ULID."""
    if len(body) != _ULID_LENGTH or not set(body) <= set(_CROCKFORD):
        return 0
    value = 0
    for character in body:
        value = value << 5 | _CROCKFORD.index(character)
    return value


def is_id(prefix: str, text: str) -> bool:
    """Return whether ``text`` has the form of an id with this prefix."""
    return re.fullmatch(re.escape(prefix) + BODY, text) is not None
