"""A running gateway and its parts."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.broker.owner import BrokerOwner
from gateway.broker.selection import Broker
from gateway.cluster.membership import Membership
from gateway.core.topics import Topics
from gateway.domain.refused_sign_ins import RefusedSignIns
from gateway.http.server.server import HttpServer
from gateway.observability.metrics import Metrics
from gateway.readiness import ReadinessCheck
from gateway.settings.loading import Settings
from gateway.store import Store, device_sql
from gateway.store.wakeups import Wakeups
from gateway.tls.certificates import Renewal
from gateway.webhooks.sender import WebhookSender


@dataclass(frozen=True)
class Registry:
    """The open registry, and what its commits wake and count. ``gateway_id`` is that of this process."""

    gateway_id: str
    project_id: str
    store: Store
    wakeups: Wakeups
    topics: Topics
    metrics: Metrics
    refused_sign_ins: RefusedSignIns
    membership: Membership


@dataclass(frozen=True)
class Workers:
    """The background workers that other parts ask something of."""

    owner: BrokerOwner
    webhook_sender: WebhookSender


@dataclass(frozen=True)
class Running:
    """A running gateway, for programs that run it inside themselves."""

    settings: Settings
    registry: Registry
    broker: Broker
    renewal: Renewal
    workers: Workers
    readiness: ReadinessCheck
    http: HttpServer

    @property
    def store(self) -> Store:
        """The registry's store."""
        return self.registry.store

    async def synced(self, device_id: str, seconds: float = 10.0) -> bool:
        """Wait until the broker knows all that was committed about this device; ``False`` when that took too long."""
        device = await self.store.read(lambda view: device_sql.any_by_id(view, device_id))
        return device is not None and await self.registry.wakeups.synced(self.store, device.pk, seconds)
