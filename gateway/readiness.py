"""Readiness of the gateway: the answer of ``/ready``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from gateway.cluster.membership import Leases, Membership, read_leases
from gateway.mqtt.connection import LinkStatus
from gateway.store import Purpose, Store, View, broker_sql, outbox_depth_sql
from gateway.store.broker_sql import BrokerRecord
from gateway.tls.certificates import ServerCertificate


class BrokerState(Protocol):
    """How the broker is served."""

    @property
    def status(self) -> LinkStatus:
        """Return the state of the connection."""

    @property
    def managed_by(self) -> str:
        """Return who steers accounts and sessions there."""

    @property
    def access_error(self) -> str | None:
        """Return why it does not know who may connect, or None when it does."""

    @property
    def access_limitation(self) -> str | None:
        """Return what can never be done about access there, or None."""


class _Facts(NamedTuple):
    """What the registry says: the outbox of this gateway's broker, leases, brokers, and rows by broker."""

    outbox: tuple[int, int | None]
    leases: Leases
    brokers: list[BrokerRecord]
    waiting: dict[int, int]


class ReadinessCheck:
    """Collects the state of each part. A gateway that stands by is ready while another one owns its broker."""

    def __init__(
        self,
        store: Store,
        broker: BrokerState,
        membership: Membership,
        certificates: tuple[ServerCertificate, ...] = (),
        *,
        broker_kind: str = "external",
        broker_trouble: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._store = store
        self._broker = broker
        self._membership = membership
        self._certificates = certificates
        self._broker_kind = broker_kind
        self._broker_trouble = broker_trouble

    async def report(self) -> dict[str, Any]:
        """Return ``ready`` and the facts behind it; ages in seconds.

        Raises:
            StoreError: the registry cannot be read.
        """
        found = await self._store.read(self._registry, Purpose.HEALTH)
        depth, oldest = found.outbox
        link, leases = self._broker.status, self._membership.states(found.leases)
        stands_by = self._membership.broker.epoch is None and leases[0]["owner"] is not None
        access_error = None if stands_by else self._broker.access_error
        serves = stands_by or (link.connected and link.reconciled and access_error is None)
        valid = not any(each.expired for each in self._certificates)
        return {
            "ready": serves and valid and self._store.trouble is None,
            "gateway": self._membership.report(),
            "registry": {"error": self._store.trouble},
            "broker": {
                "kind": self._broker_kind,
                "connected": link.connected,
                "reconciled": link.reconciled,
                "mqtt_version": link.version,
                "error": self._broker_trouble() or link.last_error,
            },
            "access": {
                "managed_by": self._broker.managed_by,
                "error": access_error or self._broker.access_limitation,
            },
            "leases": leases,
            "brokers": [_broker(each, found.waiting.get(each.pk, 0)) for each in found.brokers],
            "outbox": {
                "depth": depth,
                "at_least": depth == outbox_depth_sql.MOST_COUNTED,
                "oldest_seconds": 0 if oldest is None else max(0, self._store.context.clock() - oldest) // 1000,
            },
            "certificates": [each.report() for each in self._certificates],
        }

    def _registry(self, view: View) -> _Facts:
        context, waiting = self._store.context, outbox_depth_sql.waiting(view)
        return _Facts(
            outbox_depth_sql.depth(waiting, context.broker),
            read_leases(view, context.clock()),
            broker_sql.brokers(view, context.clock()),
            outbox_depth_sql.by_broker(waiting),
        )


def _broker(broker: BrokerRecord, waiting: int) -> dict[str, Any]:
    return {
        "id": broker.id,
        "owner": broker.owner,
        "connected": not broker.is_away,
        "followed": broker.left_out_at is None,
        "outbox": waiting,
    }


def reasons(report: dict[str, Any]) -> list[str]:
    """Return the reasons why a report is not ready."""
    parts = [report.get(name, {}) for name in ("registry", "broker", "access")]
    parts += [*report.get("certificates", ()), *report.get("leases", ())]
    return [str(part["error"]) for part in parts if part.get("error")]
