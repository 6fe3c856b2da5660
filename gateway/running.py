"""A gateway at work: where it listens, and its parts."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.broker.access_sync import AccessSyncer
from gateway.core.addresses import Address
from gateway.core.topics import Topics
from gateway.mqtt import connect
from gateway.mqtt.connection import BrokerConnection
from gateway.readiness import Readiness
from gateway.settings.loading import Settings
from gateway.store import Store, device_sql
from gateway.store.wakeups import Wakeups
from gateway.tls.certificates import Renewal


@dataclass(frozen=True)
class Running:
    """A gateway at work: where it listens, and its parts for those who run it inside their own program."""

    settings: Settings
    store: Store
    http_url: str
    broker: Address
    tls: bool
    gateway_id: str
    project_id: str
    keeper: AccessSyncer
    connection: BrokerConnection
    topics: Topics
    upstream: connect.BrokerAddress
    bells: Wakeups
    renewal: Renewal
    broker_kind: str
    readiness: Readiness

    async def synced(self, device_id: str, seconds: float = 10.0) -> bool:
        """Wait until the broker knows all that was committed about this device; ``False`` when that took too long."""
        device = await self.store.read(lambda view: device_sql.any_by_id(view, device_id))
        return device is not None and await self.bells.synced(self.store, device["pk"], seconds)
