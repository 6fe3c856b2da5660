"""Services: what the HTTP API needs of the rest of the gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gateway.core.topics import Topics
from gateway.domain.refused_sign_ins import RefusedSignIn
from gateway.errors import NotFoundError
from gateway.http.scan_limit import ScanLimiter
from gateway.http.stream_limit import StreamLimiter
from gateway.observability.metrics import Metrics
from gateway.store import Store
from gateway.store.wakeups import Wakeups
from gateway.webhooks.sender import WebhookSender
from gateway.workers.erasures import Erasures

if TYPE_CHECKING:  # it loads an HTTP client, which only a gateway with this setting needs
    from gateway.http.sign_in.people import People

BrokerAddress = Callable[[], tuple[str, int, bool]]
"""Host, port and TLS of the broker for devices."""

Synced = Callable[[int, float], Awaitable[bool]]
"""Given a device's row number and seconds: wait until the broker is in step with it; False when that takes longer."""

TakenIn = Callable[[float], Awaitable[bool]]
"""Given seconds: wait until all is committed that the broker received before; False when that takes longer."""

ReadinessReport = Callable[[], Awaitable[dict[str, Any]]]
"""The facts of :class:`gateway.models.system.Readiness`."""


MetricsText = Callable[[], Awaitable[bytes]]
"""Every metric, in Prometheus' text format."""


async def _never_taken_in(seconds: float) -> bool:
    """Return False: without a connection to the broker, its backlog is unknown."""
    del seconds
    return False


def _not_noted(refusal: RefusedSignIn) -> None:
    """Do nothing: inside the command line no caller is refused."""
    del refusal


async def _nothing_to_scrape() -> bytes:
    raise NotFoundError("Metrics are told by a gateway that serves: GET /metrics.")


@dataclass(frozen=True)
class HttpOptions:
    """Settings of the HTTP API, as they are in force. Waits are in seconds."""

    max_body_bytes: int = 65_536
    rate_limit_per_minute: int = 600
    """Per credential; 0: no limit."""
    refused_credentials_per_minute: int = 0
    """Per address; 0: no limit."""
    bind_broker_wait_seconds: float = 5.0
    cancel_broker_wait_seconds: float = 5.0
    stream_heartbeat_seconds: float = 15.0
    allowed_hosts: tuple[str, ...] = ("*",)
    """The value of ``http_allowed_hosts``, with ``auto`` resolved."""
    serves_page: bool = True
    serves_docs: bool = True
    device_certificates: bool = False
    """Whether devices must show a certificate besides their token."""
    metrics_token: str | None = None
    """Opens ``/metrics``, also on the gateway's own machine; None: local callers need no token."""


@dataclass(frozen=True)
class Services:
    """The parts that operations work with."""

    store: Store
    topics: Topics
    broker_address: BrokerAddress
    synced: Synced
    readiness: ReadinessReport
    options: HttpOptions = HttpOptions()
    taken_in: TakenIn = _never_taken_in
    wakeups: Wakeups = field(default_factory=Wakeups)
    streams: StreamLimiter = field(default_factory=StreamLimiter)
    scans: ScanLimiter = field(default_factory=ScanLimiter)
    sender: WebhookSender = field(default_factory=WebhookSender)
    metrics: Metrics = field(default_factory=Metrics)
    sign_in_refused: Callable[[RefusedSignIn], None] = _not_noted
    """Called for each refused credential."""
    people: People | None = None
    """Who signs in with OpenID Connect; None: the setting oidc_issuer is off."""
    scrape: MetricsText = _nothing_to_scrape
    openapi: Callable[[], bytes] = bytes
    """Returns the OpenAPI document; set by :func:`gateway.http.app.build`, which knows the operations."""

    @cached_property
    def erasures(self) -> Erasures:
        """Return the worker that erases end users."""
        return Erasures(self.store)
