"""Gateways that share one registry, put together as ``gateway.app`` does: registration, leases, the broker's owner."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

from gateway.broker.owner import BrokerOwner
from gateway.broker.service_accounts import GATEWAY_USER
from gateway.cluster.membership import Membership
from gateway.core.addresses import Address
from gateway.core.ids import Ids
from gateway.core.topics import Topics
from gateway.domain.messages import Message
from gateway.errors import GatewayError
from gateway.mqtt.connect import BrokerAddress, LinkError, Session
from gateway.mqtt.connection import BrokerConnection, ConnectionObserver
from gateway.store import Context, Store, broker_sql
from gateway.store.wakeups import Wakeups
from gateway.workers.away_brokers import AwayBrokers
from gateway.workers.change_poller import ChangePoller
from gateway.workers.expiry import ExpiryWorker
from gateway.workers.jobs import JobWorker
from gateway.workers.key_delivery import KeyDelivery
from gateway.workers.presence import PresenceWorker
from tests.simulation.disk import VirtualStore
from tests.simulation.gateway_host import PAUSES, GatewayHost, GatewayInstance, VirtualConnection, outlets
from tests.simulation.gateway_process import KillableProcess
from tests.simulation.gateway_session import GATEWAY_PASSWORD, GatewayObserver, open_session

if TYPE_CHECKING:
    from gateway.broker.access_sync import AccessManager
    from gateway.settings.loading import Settings
    from tests.simulation.broker_sites import BrokerSite
    from tests.simulation.cluster_laws import ClusterLaws
    from tests.simulation.shared_registry import Line

LEASE_SECONDS: Final = 3.0


class SessionObserver:
    """Observer of one owner's work: under which epoch it is done, and by whom."""

    def __init__(self, host: ClusterHost, instance: str, epoch: int) -> None:
        observer = host.observer
        self._observer, self._laws, self._site, self._instance = observer, host.laws, host.site, instance
        self.epoch = epoch
        self.on_acknowledge: Callable[[Message, int], None] = observer.on_acknowledge
        self.commit_count = observer.commit_count

    def on_publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """The gateway hands a message to the broker."""
        self._laws.check_publisher(self._site, self._instance, self.epoch)
        self._observer.on_publish(topic, payload, retain=retain)


class VirtualOwner(BrokerOwner):
    """The owner's own work, on the virtual broker."""

    def __init__(self, host: ClusterHost, instance: ClusterInstance, access: AccessManager) -> None:
        # no broker to open: no super call
        self._settings = cast("Settings", SimpleNamespace(broker_id=host.site.id))
        self._host, self._process, self._instance = host, instance.process, instance.membership.instance
        self._store, self._wakeups, self._topics = instance.store, instance.wakeups, instance.topics
        self._steering, self._lease = access, instance.membership.broker
        self._broker = self  # type: ignore[assignment]
        self.advertised, self.tls = Address(host.site.id, 1883), False
        self._connection = self._access = None

    @property
    def access(self) -> AccessManager:
        """How accounts and sessions of the broker are steered."""
        return self._steering

    def _parts(self, store: Store) -> tuple[BrokerConnection, PresenceWorker]:
        async def listening() -> None:
            await store.write(self._begin)
            await presence.forgive()

        async def lost() -> None:
            await store.write(lambda tx: broker_sql.note_lost(tx, tx.context.broker))

        connection = VirtualConnection(
            BrokerAddress("broker", 1883, GATEWAY_USER, GATEWAY_PASSWORD, version=self._version()),
            auto_version=False,
            store=store,
            topics=self._topics,
            wakeups=self._wakeups,
            observer=ConnectionObserver(
                self._wakeups.access_changed,
                first_uses=self.access.first_uses,
                listening=listening,
                lost=lost,
                may_connect=lambda: self._lease.is_held,
            ),
            outlets=outlets(store, self._topics, self._wakeups) if self._host.rules.mirrored else (),
            pauses=PAUSES,
        )
        host = self._host
        observer = SessionObserver(host, self._instance, self.epoch_of(store))
        connection.open = partial(_opened, host, self._process, observer)
        presence = PresenceWorker(store, connection.barrier.passed, lambda: connection.status.connected)
        return connection, presence

    def epoch_of(self, store: Store) -> int:
        """The epoch of the lease under which this store writes."""
        fence = store._fence()  # noqa: SLF001 - nothing else tells it
        return 0 if fence is None else fence.epoch

    def _version(self) -> str:
        return "5" if self._host.broker.version_5 else "3.1.1"

    def _watchers(self, connection: BrokerConnection) -> Iterator[Coroutine[Any, Any, None]]:
        if self.access.first_uses is not None:
            yield self.access.first_uses.run(connection.barrier.passed)


@asynccontextmanager
async def _opened(
    host: ClusterHost, process: KillableProcess, observer: GatewayObserver, address: BrokerAddress, **facts: Any
) -> AsyncIterator[Session]:
    await process.pause_point("connect")
    if host.is_away_from_broker:
        raise LinkError("The broker cannot be reached.")
    opened: AbstractAsyncContextManager[Session] = open_session(
        host.broker, process, observer, host.latency, address, **facts
    )
    async with opened as session:
        await process.pause_point("connected")
        yield session


class ClusterInstance(GatewayInstance):
    """One process of one of several gateways."""

    is_serving = False
    is_stopping = False

    def __init__(self, host: ClusterHost, process: KillableProcess) -> None:  # other parts: no super call
        self.process = process
        self.wakeups, self.topics = Wakeups(), Topics()
        entropy = host.rng.randbytes
        context = Context(host.rules, clock=host.clock, entropy=entropy, ids=Ids(entropy))
        self.store = VirtualStore(
            host.disk,
            process,
            context,
            after_commit=host.after_commit,
            listener=self.wakeups,
            line=host.line,
            judge=host.laws.check_jobs,
        )
        self.membership = Membership(
            self.store,
            gateway_id=host.name,
            http=host.name,
            broker_id=host.site.id,
            lease_seconds=LEASE_SECONDS,
            clock=asyncio.get_running_loop().time,
        )
        access = host.access(self.membership.broker.store, process)
        self.owner = VirtualOwner(host, self, access)
        self.connection: Any = self.owner  # it tells the state of the connection
        self.app = self._app()
        self.tasks: dict[asyncio.Task[Any], None] = {}

    async def _is_backlog_processed(self, seconds: float) -> bool:
        return await self.owner.taken_in(seconds)

    def _broker_address(self) -> tuple[str, int, bool]:
        return self.owner.advertised.host, self.owner.advertised.port, False

    def _context(self) -> contextvars.Context:
        return self.process.context()

    def run(self, *, watching: bool, delivering: bool, working: bool) -> None:
        """Register; then start its parts."""
        del watching
        self.spawn(self._begin(delivering=delivering, working=working))

    async def end(self) -> None:
        """Leave the registry."""
        await self.membership.end()

    async def _begin(self, *, delivering: bool, working: bool) -> None:
        while True:
            try:
                await self.membership.begin()
            except GatewayError:  # a supervisor starts it again
                await asyncio.sleep(0.5)
                continue
            break
        for each in (
            self.membership.broker.run(self.owner.work),
            self.membership.fleet.run(partial(_fleet_work, self, delivering=delivering, working=working)),
            self.membership.registration.run(),
            ChangePoller(self.store, self.wakeups).run(),
            self.erasures.run(),
        ):
            self.spawn(each)
        self.is_serving = True


async def _fleet_work(instance: ClusterInstance, store: Store, *, delivering: bool, working: bool) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(ExpiryWorker(store).run())
        group.create_task(AwayBrokers(store).run())
        if delivering:
            group.create_task(KeyDelivery(store).run())
        if working:
            group.create_task(JobWorker(store, instance.owner.taken_in).run())


class ClusterHost(GatewayHost):
    """The machine of one of several gateways. ``ahead_ms`` is how much its clock is ahead."""

    line: Line
    laws: ClusterLaws
    site: BrokerSite
    ahead_ms = 0
    is_away_from_broker = False
    troubled_at = 0.0
    instance: ClusterInstance | None

    @property
    def owns(self) -> bool:
        """Return whether it serves the broker now."""
        instance = self.instance
        return instance is not None and instance.membership.broker.is_held and instance.owner.status.connected

    @property
    def has_compared(self) -> bool:
        """Return whether it has compared the broker since it connected."""
        return self.instance is not None and bool(self.instance.owner.status.reconciled)

    @property
    def is_fleet_worker(self) -> bool:
        """Return whether it holds the lease of the fleet worker."""
        return self.instance is not None and self.instance.membership.fleet.is_held

    @property
    def is_well(self) -> bool:
        """Return whether it runs, and reaches registry and broker."""
        instance = self.instance
        if instance is None or not instance.is_serving or instance.process.is_paused:
            return False
        return not (self.line.is_cut or self.is_away_from_broker)

    def mark_trouble(self) -> None:
        """Note that something has just happened to it."""
        self.troubled_at = asyncio.get_running_loop().time()

    def start(self) -> None:
        """Start this gateway, unless its broker is gone permanently."""
        if self.site.is_gone:
            return
        self.mark_trouble()
        super().start()

    async def stop(self) -> bool:
        """End it in order. Whether it has handed its leases over can be judged where nothing kept it from that."""
        instance, can_write = self.instance, self.is_well and not (self.disk.full or self.disk.unreadable)
        if instance is None or instance.is_stopping:  # a second SIGTERM changes nothing
            return False
        instance.is_stopping = True
        self.mark_trouble()
        is_in_order = await super().stop()
        if is_in_order and can_write and not self.line.is_cut and not self.disk.full:
            self.laws.check_handed_over(instance.membership.instance)
        return is_in_order

    def _instance(self, process: KillableProcess) -> ClusterInstance:
        return ClusterInstance(self, process)
