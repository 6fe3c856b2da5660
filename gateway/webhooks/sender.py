"""Sender of webhook events: URL and signature (contract, section 5); it uses the HTTP client beside it."""

from __future__ import annotations

import ssl
from typing import Final

from gateway.core import webhook_signing
from gateway.core.clock import SECOND_MS, Clock, system_clock
from gateway.core.webhook_urls import check_url
from gateway.domain.webhooks import DeliveryOutcome
from gateway.models.events import Event

SECONDS: Final = 30.0


class WebhookSender:
    """Sends events to webhooks. ``seconds`` is the time limit of one try."""

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

    async def send(self, url: str, keys: webhook_signing.Keys, event: Event) -> DeliveryOutcome:
        """Send an event once. Failures of the receiver or the network are not raised: the outcome says them."""
        from gateway.webhooks import http_client  # noqa: PLC0415 - loads an HTTP client, which only webhooks need

        try:
            # The settings may have changed since the webhook was made.
            target = check_url(url, allow_private=self._allow_private, allow_loopback=self._allow_loopback)
        except ValueError as error:
            return DeliveryOutcome(error=f"The URL {error}.")
        body = event.model_dump_json().encode()
        headers = webhook_signing.headers(keys, event.id, self._clock() // SECOND_MS, body)
        if target.scheme == "https":
            self._tls = self._tls or http_client.default_tls()
        way = http_client.DeliveryOptions(
            self._seconds, self._tls, allow_private=self._allow_private, allow_loopback=self._allow_loopback
        )
        return await http_client.post(target, headers, body, way)
