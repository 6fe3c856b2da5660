"""The machine that the gateway runs on: the gateway's own parts, put together as ``gateway.app`` does, for each start.

What outlives a kill is the disk, and with Mosquitto the broker and its password file; the embedded broker dies with
the gateway.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

import gateway
from gateway.broker.access_sync import AccessManager, AccessSyncer
from gateway.broker.authentication import authenticator
from gateway.broker.doctor_accounts import ProbeAccounts
from gateway.broker.embedded.access import EmbeddedAccess
from gateway.broker.service_accounts import GATEWAY_USER, service_accounts
from gateway.core.backoff import Pauses
from gateway.core.ids import Ids
from gateway.core.topics import Topics
from gateway.http.app import build
from gateway.http.services import HttpOptions, Services
from gateway.mqtt.background_publisher import BackgroundPublisher
from gateway.mqtt.connect import BrokerAddress, Session
from gateway.mqtt.connection import BrokerConnection, ConnectionObserver
from gateway.mqtt.retained_scan import ScanMarker
from gateway.observability.metrics import Metrics
from gateway.outbound.event_publisher import EventPublisher
from gateway.outbound.retained_mirror import RetainedMirror
from gateway.outbound.states import ProjectStateLeaf, StateTopic
from gateway.store import Context, Rules, Store
from gateway.store.wakeups import Wakeups
from gateway.workers.change_poller import ChangePoller as CommandLineWatcher
from gateway.workers.expiry import ExpiryWorker
from gateway.workers.jobs import JobWorker
from gateway.workers.key_delivery import KeyDelivery
from gateway.workers.presence import PresenceWorker
from tests.simulation.broker import Broker
from tests.simulation.broker_access import PasswordTable, VirtualEmbedded, VirtualMosquitto
from tests.simulation.disk import Disk, VirtualStore
from tests.simulation.gateway_process import KillableProcess, KilledError
from tests.simulation.gateway_session import GATEWAY_PASSWORD, GatewayObserver, open_session
from tests.simulation.network import Environment

GATEWAY_ID = "gw_1"
RULES = Rules(
    gateway_id=GATEWAY_ID, silence_ms=15_000, offline_grace_ms=2_000, bulk_reset_per_second=2, token_refresh_ms=4_000
)
PAUSES = Pauses(first_seconds=0.2, longest_seconds=3.0, steady_seconds=5.0)
BIND_WAITS_SECONDS = 3.0
_ACCOUNTS = service_accounts(GATEWAY_PASSWORD, ProbeAccounts())
_METRICS = Metrics()


class VirtualConnection(BrokerConnection):
    """The gateway's own connection, on the virtual broker."""

    open: Callable[..., AbstractAsyncContextManager[Session]]

    def opened(self, address: BrokerAddress, will: tuple[str, bytes]) -> AbstractAsyncContextManager[Session]:
        """A session on the virtual broker."""
        return self.open(address, client_id=GATEWAY_ID, will=will)


def outlets(store: Store, topics: Topics, wakeups: Wakeups) -> tuple[Callable[[ScanMarker], BackgroundPublisher], ...]:
    """What publishes states and events for integrators."""
    return (
        lambda mark: RetainedMirror(store, StateTopic(topics), mark),
        lambda mark: RetainedMirror(store, ProjectStateLeaf(topics), mark),
        lambda _: EventPublisher(store, topics, wakeups),
    )


_SOURCES = Path(gateway.__file__).parent


class GatewayInstance:
    """One process of the gateway, from its start to its end. ``is_serving`` says whether it answers over HTTP."""

    is_serving = True

    def __init__(self, host: GatewayHost, process: KillableProcess) -> None:
        self.process = process
        self.wakeups = Wakeups()
        entropy = host.rng.randbytes
        context = Context(host.rules, clock=host.clock, entropy=entropy, ids=Ids(entropy))
        self.store: Store = VirtualStore(
            host.disk,
            process,
            context,
            after_commit=host.after_commit,
            listener=self.wakeups,
        )
        self.topics = Topics()
        self.access_syncer = AccessSyncer(self.store, self.wakeups, host.access(self.store, process))
        self.presence = PresenceWorker(
            self.store,
            self._is_backlog_processed,
            lambda: self.connection.status.connected,
        )
        self.connection = self._connection(host)
        self.app = self._app()
        self.tasks: dict[asyncio.Task[Any], None] = {}  # in the order of their start, which a set has not

    async def _is_backlog_processed(self, seconds: float) -> bool:
        return await self.connection.barrier.passed(seconds)

    def _connection(self, host: GatewayHost) -> BrokerConnection:
        version = "5" if host.broker.version_5 else "3.1.1"
        connection = VirtualConnection(
            BrokerAddress("broker", 1883, GATEWAY_USER, GATEWAY_PASSWORD, version=version),
            auto_version=False,
            store=self.store,
            topics=self.topics,
            wakeups=self.wakeups,
            observer=ConnectionObserver(
                self.wakeups.access_changed,
                first_uses=self.access_syncer.access.first_uses,
                listening=self.presence.forgive,
            ),
            outlets=outlets(self.store, self.topics, self.wakeups) if host.rules.mirrored else (),
            pauses=PAUSES,
        )
        connection.open = partial(open_session, host.broker, self.process, host.observer, host.latency)
        return connection

    def _broker_address(self) -> tuple[str, int, bool]:
        """Return host, port and TLS of the broker beside this gateway."""
        return "broker", 1883, False

    def _app(self) -> ASGIApp:
        async def nothing() -> dict[str, Any]:
            return {}

        services = Services(
            store=self.store,
            topics=self.topics,
            broker_address=self._broker_address,
            synced=lambda device_pk, seconds: self.wakeups.synced(self.store, device_pk, seconds),
            readiness=nothing,
            taken_in=self._is_backlog_processed,
            wakeups=self.wakeups,
            metrics=_METRICS,
            options=HttpOptions(
                rate_limit_per_minute=0,
                bind_broker_wait_seconds=BIND_WAITS_SECONDS,
                cancel_broker_wait_seconds=BIND_WAITS_SECONDS,
            ),
        )
        self.erasures = services.erasures
        return build(services)

    def run(self, *, watching: bool, delivering: bool, working: bool) -> None:
        """Start its parts."""
        self.spawn(self.access_syncer.run())
        self.spawn(self.connection.run())
        first_uses = self.access_syncer.access.first_uses
        if first_uses is not None:
            self.spawn(first_uses.run(self.connection.barrier.passed))
        self.spawn(ExpiryWorker(self.store).run())
        self.spawn(self.presence.run())
        self.spawn(self.erasures.run())
        if watching:
            self.spawn(CommandLineWatcher(self.store, self.wakeups).run())
        if delivering:
            self.spawn(KeyDelivery(self.store).run())
        if working:
            self.spawn(JobWorker(self.store, self.connection.barrier.passed).run())

    async def end(self) -> None:
        """Write what is left to write when all tasks have ended."""

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task that ends with the process."""
        task = asyncio.get_running_loop().create_task(work, context=self._context())
        self.tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _context(self) -> contextvars.Context | None:
        return None

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)
        if not task.cancelled():
            task.exception()  # read it; a task that waits for this one gets it too


def _is_of_gateway(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and Path(code.co_filename).is_relative_to(_SOURCES)


class GatewayHost:
    """Starts, stops and kills the gateway on one disk. ``name`` is what the story calls it."""

    name = "gateway"

    def __init__(
        self,
        disk: Disk,
        broker: Broker,
        environment: Environment,
        *,
        slow: float,
        after_commit: Callable[[], None],
        observer: GatewayObserver,
    ) -> None:
        self.disk = disk
        self.broker = broker
        self.rng, self.clock, self.latency, self._log = (
            environment.rng,
            environment.clock,
            environment.latency,
            environment.log,
        )
        self.after_commit = after_commit
        self.observer = observer
        self.embedded = False
        self.watching = False
        self.delivering = False
        self.working = False
        """Whether the worker of jobs runs: it looks four times a second, which only runs with jobs need."""
        self.rules = RULES
        self.table = PasswordTable(broker)
        self.instance: GatewayInstance | None = None
        self._killed: set[asyncio.Task[Any]] = set()
        """Tasks of killed processes. One may wait for a dead session; without a reference it would count as lost."""
        self._slow = slow

    def access(self, store: Store, process: KillableProcess) -> AccessManager:
        """How the broker is steered, and who it asks."""
        if not self.embedded:
            self.broker.admit = self.table.admit
            return VirtualMosquitto(self.table, self.broker, store, process)
        self.broker.admit = authenticator(store, _ACCOUNTS)
        return EmbeddedAccess(VirtualEmbedded(self.broker, process), store)

    def start(self) -> None:
        """Start the gateway; with it the embedded broker, which remembers nothing."""
        if self.instance is not None:
            return
        if self.embedded:
            self.broker.start(retained="forget", keep_sessions=False)
        self.instance = self._instance(KillableProcess(self.rng, self._slow, self._on_killed))
        self.instance.run(watching=self.watching, delivering=self.delivering, working=self.working)
        self._log(self.name, "starts")

    def _instance(self, process: KillableProcess) -> GatewayInstance:
        return GatewayInstance(self, process)

    def kill(self) -> None:
        """End it at once, as ``kill -9`` does."""
        if self.instance is not None:
            self.instance.process.kill("by kill -9")

    def _on_killed(self, where: str) -> None:
        instance, self.instance = self.instance, None
        self._log(self.name, f"is killed {where}")
        if instance is None:
            return
        for connection in instance.process.connections:
            connection.cut("the gateway died")
        if self.embedded:
            self.broker.stop()
        self._killed |= {task for task in asyncio.all_tasks() if _is_of_gateway(task)}
        for task in list(instance.tasks):
            asyncio.get_running_loop().call_soon(task.cancel)

    async def stop(self) -> bool:
        """End it in order, as SIGTERM does. Return whether it came to that: it may be killed meanwhile."""
        instance = self.instance
        if instance is None:
            return False
        self._log(self.name, "is told to stop")
        tasks = list(instance.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if self.instance is instance:
            await asyncio.wait((instance.spawn(instance.end()),))
        if self.instance is not instance:
            return False
        self.kill()
        return True


__all__ = ["GATEWAY_ID", "GatewayHost", "GatewayInstance", "KilledError"]
