"""Readiness of the gateway: the answer of ``/ready``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.broker.access_sync import AccessSyncer
from gateway.mqtt.connection import BrokerConnection
from gateway.store import Purpose, Store, outbox_sql
from gateway.tls.certificates import ServerCertificate


class ReadinessCheck:
    """Collects the state of each part."""

    def __init__(
        self,
        store: Store,
        connection: BrokerConnection,
        access_syncer: AccessSyncer,
        certificates: tuple[ServerCertificate, ...] = (),
        *,
        broker_kind: str = "external",
        broker_trouble: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._store = store
        self._connection = connection
        self._access_syncer = access_syncer
        self._certificates = certificates
        self._broker_kind = broker_kind
        self._broker_trouble = broker_trouble

    async def report(self) -> dict[str, Any]:
        """Return ``ready`` and the facts behind it; ages in seconds.

        Raises:
            StoreError: the registry cannot be read.
        """
        depth, oldest = await self._store.read(outbox_sql.depth, Purpose.HEALTH)
        link = self._connection.status
        told = self._access_syncer.last_error is None
        valid = not any(each.expired for each in self._certificates)
        return {
            "ready": link.connected and link.reconciled and told and valid and self._store.trouble is None,
            "registry": {"error": self._store.trouble},
            "broker": {
                "kind": self._broker_kind,
                "connected": link.connected,
                "reconciled": link.reconciled,
                "mqtt_version": link.version,
                "error": self._broker_trouble() or link.last_error,
            },
            "access": {
                "managed_by": self._access_syncer.access.name,
                "error": self._access_syncer.last_error or self._access_syncer.access.limitation,
            },
            "outbox": {
                "depth": depth,
                "oldest_seconds": 0 if oldest is None else max(0, self._store.context.clock() - oldest) // 1000,
            },
            "certificates": [each.report() for each in self._certificates],
        }


def reasons(report: dict[str, Any]) -> list[str]:
    """Return the reasons why a report is not ready."""
    parts = (*(report.get(name, {}) for name in ("registry", "broker", "access")), *report.get("certificates", ()))
    return [str(part["error"]) for part in parts if part.get("error")]
