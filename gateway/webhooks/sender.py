"""Events for webhooks: where to, and how signed (contract, section 5). :mod:`gateway.outbound.posting` sends them."""

from __future__ import annotations

import ssl
from typing import Final

from gateway import signatures
from gateway.clock import Clock, system_clock
from gateway.model import Event
from gateway.targets import check_url
from gateway.webhooks import Outcome

SECONDS: Final = 30.0
_SECOND_MS: Final = 1_000


class Sender:
    """Sends events to webhooks. ``seconds`` is what one try may take, with all that belongs to it."""

    def __init__(
        self,
        *,
        allow_private: bool = False,
        allow_loopback: bool = False,
        clock: Clock = system_clock,
        tls: ssl.SSLContext | None = None,
        seconds: float = SECONDS,
    ) -> None:
        self._allow_private = allow_private
        self._allow_loopback = allow_loopback
        self._clock = clock
        self._tls = tls
        self._seconds = seconds

    async def send(self, url: str, keys: signatures.Keys, event: Event) -> Outcome:
        """Send an event once. Never raises for what the receiver or the network does: the outcome says it."""
        from gateway.outbound import posting  # noqa: PLC0415 - an HTTP client, for those who have webhooks

        try:
            # the settings may have changed since it was made
            target = check_url(url, allow_private=self._allow_private, allow_loopback=self._allow_loopback)
        except ValueError as error:
            return Outcome(error=f"The URL {error}.")
        body = event.model_dump_json().encode()
        headers = signatures.headers(keys, event.id, self._clock() // _SECOND_MS, body)
        if target.scheme == "https":
            self._tls = self._tls or posting.default_tls()
        way = posting.Way(
            self._seconds, self._tls, allow_private=self._allow_private, allow_loopback=self._allow_loopback
        )
        return await posting.post(target, headers, body, way)
