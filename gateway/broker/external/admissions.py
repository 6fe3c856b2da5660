"""Who was let in with which token or password, so that a revocation knows whether a session is one of those to cut.

A broker that asks keeps one session per client id, so the credential that was let in last under it is the session's.
The registry keeps that as well (``store/broker_session_sql.py``); what only this process knows is when it was.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from gateway.broker.clients import Client
from gateway.store.broker_session_sql import MOST_CLIENTS

SETTLE_SECONDS: Final = 2.0
"""How long a broker may take from our answer until the session stands where it can be found and cut."""


@dataclass(frozen=True)
class _Admission:
    username: str
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
        self._clients: defaultdict[str, dict[str, None]] = defaultdict(dict)

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

    def let_in(self, client: Client, token_id: int) -> None:
        """It was."""
        self.forget(client.client_id)
        self._let_in[client.client_id] = _Admission(client.username, token_id, self._clock())
        clients = self._clients[client.username]
        clients[client.client_id] = None
        if len(clients) > MOST_CLIENTS:
            self.forget(next(iter(clients)))

    def clients(self) -> set[Client]:
        """Who was let in and is not forgotten."""
        return {Client(client_id, admission.username) for client_id, admission in self._let_in.items()}

    def token_of(self, client_id: str) -> int | None:
        """The token it was let in with last, as far as that is known."""
        admission = self._let_in.get(client_id)
        return None if admission is None else admission.token_id

    def unsettled_seconds(self, client_id: str, token_id: int) -> float:
        """How long a session of another token under this client id may still be about to begin; 0 when none is."""
        admission = self._let_in.get(client_id)
        if admission is None or admission.token_id == token_id:
            return 0.0
        return max(0.0, admission.at + SETTLE_SECONDS - self._clock())

    def is_settled(self, username: str) -> bool:
        """Whether every session of this user that was let in before now can be found at the broker by now."""
        if self._knocking[username]:
            return False
        admissions = (self._let_in[client_id] for client_id in self._clients.get(username, ()))
        return all(self._clock() - admission.at >= SETTLE_SECONDS for admission in admissions)

    def forget(self, client_id: str) -> None:
        """Its session was cut."""
        admission = self._let_in.pop(client_id, None)
        if admission is not None:
            clients = self._clients[admission.username]
            clients.pop(client_id, None)
            if not clients:
                del self._clients[admission.username]
