"""Who came in with which token or password, so that a revocation knows whether a session is one of those to cut.

A broker that asks keeps one session per client id, and the client id is the device's: so the token that was let in
last is the session's. All is forgotten at a restart; then a session counts as unknown, and is cut when in doubt.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

SETTLE_SECONDS: Final = 2.0
"""How long a broker may take from our answer until the session stands where it can be found and cut."""


@dataclass(frozen=True)
class _Admission:
    token_id: int
    at: float


class Admissions:
    """Who was let in. Bounded by the number of devices and integrators, since only good credentials are noted.

    An integrator's ``token_id`` is the instant at which its password was made.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._knocking: Counter[str] = Counter()
        self._let_in: dict[str, _Admission] = {}

    @contextlib.contextmanager
    def knock(self, username: str) -> Iterator[None]:
        """While a question about this user is being answered, its session may be about to begin."""
        self._knocking[username] += 1
        try:
            yield
        finally:
            self._knocking[username] -= 1
            if not self._knocking[username]:
                del self._knocking[username]

    def let_in(self, device_id: str, token_id: int) -> None:
        """It was."""
        self._let_in[device_id] = _Admission(token_id, self._clock())

    def token_of(self, device_id: str) -> int | None:
        """The token it was let in with last, as far as that is known."""
        admission = self._let_in.get(device_id)
        return None if admission is None else admission.token_id

    def is_settled(self, device_id: str) -> bool:
        """Whether a session of this device that was let in before now can be found at the broker by now."""
        if self._knocking[device_id]:
            return False
        admission = self._let_in.get(device_id)
        return admission is None or self._clock() - admission.at >= SETTLE_SECONDS

    def forget(self, device_id: str) -> None:
        """Its session was cut."""
        self._let_in.pop(device_id, None)
