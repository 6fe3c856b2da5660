"""Record of admitted clients and their credentials. It tells which sessions a revocation must cut.

Such a broker keeps one session per client id, so the credential admitted last under that id is the session's. The
registry keeps it (``store/broker_session_sql.py``). Only this process knows when it was admitted, which matters for
SETTLE_SECONDS. So a device is kept here for that long, and memory does not grow with the fleet.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from gateway.broker.clients import BrokerClient
from gateway.core import ids
from gateway.store.broker_session_sql import MOST_CLIENTS

SETTLE_SECONDS: Final = 2.0
"""How long a broker may take from our answer until the session can be found and cut."""


class _Admission(NamedTuple):
    username: str
    token_id: int
    at: float


class Admissions:
    """Admitted clients: devices of the last SETTLE_SECONDS, and MOST_CLIENTS of each integrator.

    Only good credentials are recorded. A device's client id is its user name. An integrator's ``token_id`` is the time
    at which its password was made.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._knocking: Counter[str] = Counter()
        self._devices = OrderedDict[str, _Admission]()
        self._let_in: dict[str, _Admission] = {}
        self._clients: defaultdict[str, dict[str, None]] = defaultdict(dict)

    @contextlib.contextmanager
    def knock(self, username: str) -> Iterator[None]:
        """Mark that a question about this user is being answered, so its session may be about to begin."""
        self._knocking[username] += 1
        try:
            yield
        finally:
            self._knocking[username] -= 1
            if not self._knocking[username]:
                del self._knocking[username]

    def let_in(self, client: BrokerClient, token_id: int) -> None:
        """Record that the client was admitted."""
        self.forget(client.client_id)
        admission = _Admission(client.username, token_id, self._clock())
        if ids.is_id(ids.DEVICE, client.username):
            self._drop_settled(admission.at - SETTLE_SECONDS)
            self._devices[client.client_id] = admission
            return
        self._let_in[client.client_id] = admission
        clients = self._clients[client.username]
        clients[client.client_id] = None
        if len(clients) > MOST_CLIENTS:
            self.forget(next(iter(clients)))

    def _drop_settled(self, before: float) -> None:
        while self._devices and next(iter(self._devices.values())).at <= before:
            self._devices.popitem(last=False)

    @property
    def devices(self) -> int:
        """Return how many devices are kept."""
        return len(self._devices)

    def integrators(self) -> set[BrokerClient]:
        """Return the clients of integrators that were admitted and not forgotten."""
        return {BrokerClient(client_id, admission.username) for client_id, admission in self._let_in.items()}

    def _find(self, client_id: str) -> _Admission | None:
        return self._devices.get(client_id) or self._let_in.get(client_id)

    def token_of(self, client_id: str) -> int | None:
        """Return the token that the client id was admitted with last, or None where only the registry may know it."""
        admission = self._find(client_id)
        return None if admission is None else admission.token_id

    def unsettled_seconds(self, client_id: str, token_id: int) -> float:
        """Return how long a session of another token may still be about to begin under this client id; 0 for none."""
        admission = self._find(client_id)
        if admission is None or admission.token_id == token_id:
            return 0.0
        return max(0.0, admission.at + SETTLE_SECONDS - self._clock())

    def is_settled(self, username: str) -> bool:
        """Return whether every session of this user that was admitted before now can be found at the broker."""
        if self._knocking[username]:
            return False
        admissions = (self._find(client_id) for client_id in (username, *self._clients.get(username, ())))
        return all(self._clock() - each.at >= SETTLE_SECONDS for each in admissions if each is not None)

    def forget(self, client_id: str) -> None:
        """Forget a client whose session was cut."""
        self._devices.pop(client_id, None)
        admission = self._let_in.pop(client_id, None)
        if admission is not None:
            clients = self._clients[admission.username]
            clients.pop(client_id, None)
            if not clients:
                del self._clients[admission.username]
