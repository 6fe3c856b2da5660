"""A gateway's MQTT side on a real broker: store, connection, keeper and sweeper, put together as `gateway.app` does.

    async with site(kind, tmp_path) as place:
        await place.start()
        device = await place.bound()
        async with place.join(device) as wire:
            await wire.publish(device.topic("heartbeat"), beat(80))

Brokers can be stopped, restarted and emptied, the gateway stopped and started on the same registry. Everything between
the two passes through a `Proxy`, which counts packets and cuts connections.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from gateway.bootstrap import first_start
from gateway.broker.access_sync import AccessSyncer
from gateway.cluster.membership import Membership
from gateway.core.backoff import Pauses
from gateway.core.command_types import CommandType
from gateway.core.topics import Topics
from gateway.domain import commands, devices, grants
from gateway.errors import GatewayError
from gateway.models.commands import CreateCommand
from gateway.models.devices import RegisterDevice
from gateway.mqtt.background_publisher import BackgroundPublisher
from gateway.mqtt.connect import BrokerAddress
from gateway.mqtt.connection import BrokerConnection, ConnectionObserver, LinkStatus
from gateway.mqtt.retained_scan import ScanMarker
from gateway.readiness import ReadinessCheck
from gateway.settings.loading import Settings
from gateway.store import (
    Context,
    Row,
    Rules,
    Store,
    Tx,
    command_sql,
    open_database,
    transact,
)
from gateway.store.command_sql import CommandRecord
from gateway.store.wakeups import Wakeups
from gateway.workers.expiry import ExpiryWorker
from gateway.workers.presence import PresenceWorker
from tests.mqtt.brokers import ADMIN_PASSWORD, Broker, EmbeddedUnderTest, MosquittoUnderTest, RabbitMqUnderTest
from tests.mqtt.devices import Device
from tests.mqtt.proxy import Proxy
from tests.support import wire
from tests.support.clock import ShiftedClock
from tests.support.outbox import outbox_depth
from tests.support.rabbitmq import RabbitMq
from tests.support.wait import eventually

T = TypeVar("T")

KINDS = ("mosquitto-5", "mosquitto-3.1.1", "embedded")
on_every_broker = pytest.mark.parametrize("kind", KINDS)
on_mosquitto = pytest.mark.parametrize("kind", KINDS[:2])

RESET = CommandType.FACTORY_RESET
QUICK = Pauses(first_seconds=0.05, longest_seconds=0.2)
HANGS_SECONDS = 60.0
MANY = 1_000_000


@dataclass
class Served:
    """How the broker is served, for ``/ready``."""

    connection: BrokerConnection
    syncer: AccessSyncer

    @property
    def managed_by(self) -> str:
        """Who steers accounts and sessions there."""
        return self.syncer.access.name

    @property
    def access_limitation(self) -> str | None:
        """What can never be done about access there."""
        return self.syncer.access.limitation

    @property
    def status(self) -> LinkStatus:
        """The state of the connection."""
        return self.connection.status

    @property
    def access_error(self) -> str | None:
        """Why the broker is not in step."""
        return self.syncer.last_error


class MqttTestbed:
    """A registry on disk, a broker, and the gateway between them, started or not."""

    def __init__(self, broker: Broker, proxy: Proxy, store: Store, wakeups: Wakeups, ids: tuple[str, str]) -> None:
        self.broker = broker
        self.proxy = proxy
        self.store = store
        self.wakeups = wakeups
        self.gateway_id, self.project_id = ids
        self.topics = Topics()
        self.access_syncer = self._new_access_syncer()
        self.expiry_worker = ExpiryWorker(store)
        self.presence = self._new_presence()
        self.address = BrokerAddress(
            "127.0.0.1",
            proxy.port,
            "gateway",
            broker.gateway_password,
            version=broker.version,
            devices_wait=isinstance(broker, EmbeddedUnderTest),
        )
        self.pauses = QUICK
        self.outlets: Sequence[Callable[[ScanMarker], BackgroundPublisher]] = ()
        self.auto_version = False
        self.owned = store
        """The store of the connection, when that is not everyone's."""
        self.observer: Callable[..., ConnectionObserver] = ConnectionObserver
        self.connection = self._new_connection()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def status_topic(self) -> str:
        """The gateway's own."""
        return self.topics.gateway_status(self.gateway_id)

    def _new_access_syncer(self) -> AccessSyncer:
        return AccessSyncer(self.store, self.wakeups, self.broker.access(self.store))

    def _new_presence(self) -> PresenceWorker:
        return PresenceWorker(
            self.store,
            self._taken_in,
            lambda: self.connection.status.connected,
        )

    async def _taken_in(self, seconds: float) -> bool:
        return await self.connection.barrier.passed(seconds)

    def _new_connection(self) -> BrokerConnection:
        return BrokerConnection(
            self.address,
            auto_version=self.auto_version,
            store=self.owned,
            topics=self.topics,
            wakeups=self.wakeups,
            observer=self.observer(
                self.wakeups.access_changed,
                first_uses=self.access_syncer.access.first_uses,
                listening=self.presence.forgive,
            ),
            pauses=self.pauses,
            outlets=self.outlets,
        )

    async def start(self, *, settled: bool = True) -> None:
        """Start the gateway; with `settled` wait until it has compared itself with the broker and nothing is due."""
        self.presence = self._new_presence()
        self.access_syncer = self._new_access_syncer()
        self.connection = self._new_connection()
        first_uses = self.access_syncer.access.first_uses
        noting = [] if first_uses is None else [first_uses.run(self.connection.barrier.passed)]
        self._start(self.access_syncer.run(), self.connection.run(), self.expiry_worker.run(), *noting)
        if settled:
            await self.settled()

    def resume(self) -> None:
        """Let the parts of a gateway that was stopped run again, as when the process owns the broker once more."""
        self._start(self.access_syncer.run(), self.connection.run())

    def _start(self, *work: Coroutine[Any, Any, None]) -> None:
        self._tasks = [asyncio.create_task(each) for each in work]

    def share(self) -> None:
        """From its next start on the gateway looks for others at its broker."""
        self.address = replace(self.address, shared=True)

    async def stop(self) -> None:
        """Stop it as SIGTERM does; what its parts raised is raised here."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        async with asyncio.timeout(HANGS_SECONDS):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            assert isinstance(outcome, asyncio.CancelledError), f"a part of the gateway ended by itself: {outcome!r}"

    async def settled(self) -> None:
        """Wait until the gateway is connected, has compared itself with the broker, and nothing is due."""
        await eventually(self._is_settled, f"the gateway settled ({self.connection.status})")

    async def _is_settled(self) -> bool:
        depth, _ = await self.store.read(outbox_depth)
        return self.connection.status.reconciled and depth == 0

    async def ready(self) -> dict[str, Any]:
        """What `/ready` says."""
        membership = Membership(self.store, gateway_id=self.gateway_id, http="none", broker_id="default")
        return await ReadinessCheck(self.store, Served(self.connection, self.access_syncer), membership).report()

    async def bound(self, serial: str = "SN-1") -> Device:
        """Register a device and bind it."""
        binding = await self.store.write(lambda tx: self._bind(tx, serial))
        device = binding.device
        return Device(device.id, device.pk, binding.device_token, device.binding_generation)

    async def bound_again(self, device: Device) -> Device:
        """Bind it again, to another end user."""
        binding = await self.store.write(lambda tx: devices.bind(tx, self.project_id, device.id, "eu_2", "key_test"))
        return Device(device.id, device.pk, binding.device_token, binding.device.binding_generation)

    def _bind(self, tx: Tx, serial: str) -> devices.NewBinding:
        device, _ = devices.register(tx, self.project_id, RegisterDevice(serial_number=serial), "key_test")
        return devices.bind(tx, self.project_id, device.id, "eu_1", "key_test")

    async def reset(self, device: Device) -> CommandRecord:
        """Reset it; the open command."""
        await self.store.write(lambda tx: devices.reset(tx, self.project_id, device.id, "key_test"))
        command = await self.store.read(lambda view: command_sql.open_of_type(view, device.pk, RESET))
        assert command
        return command

    async def command(self, device: Device, kind: str = "reboot", **body: Any) -> CommandRecord:
        """Queue a command; its row."""
        wanted = CreateCommand(type=CommandType(kind), **body)
        return await self.store.write(
            lambda tx: commands.create(tx, devices.require(tx, self.project_id, device.id), wanted, "key_test")
        )

    async def cancel(self, device: Device, command: CommandRecord) -> None:
        """Cancel a command, of which the device has said nothing that waits at the broker."""
        await self.store.write(
            lambda tx: commands.cancel(
                tx, devices.require(tx, self.project_id, device.id), command.id, "key_test", taken_in=True
            )
        )

    async def unbind(self, device: Device) -> None:
        """Unbind it: its token is revoked."""
        await self.store.write(lambda tx: devices.unbind(tx, self.project_id, device.id, "key_test"))

    @contextlib.asynccontextmanager
    async def join(
        self, device: Device, *, clean: bool = True, will: wire.Will | None = None
    ) -> AsyncIterator[wire.Wire]:
        """Connect as this device, as soon as the broker lets it in."""
        async with contextlib.AsyncExitStack() as stack:
            attempt_connect = partial(self._try_connect, stack, device, clean=clean, will=will)
            client = await eventually(attempt_connect, "the device was let in")
            assert client
            yield client

    async def _try_connect(
        self, stack: contextlib.AsyncExitStack, device: Device, *, clean: bool, will: wire.Will | None
    ) -> wire.Wire | None:
        client = await stack.enter_async_context(wire.Wire.open("127.0.0.1", self.broker.port))
        answer = await client.connect(device.id, device.id, device.mqtt_password, clean=clean, will=will)
        return client if answer == wire.ACCEPTED else None

    @contextlib.asynccontextmanager
    async def admin(self, name: str = "admin") -> AsyncIterator[wire.Wire]:
        """Connect as a client with every right, past the proxy."""
        async with wire.Wire.open("127.0.0.1", self.broker.port) as client:
            assert await client.connect(name, name, ADMIN_PASSWORD) == wire.ACCEPTED
            yield client

    async def retained(self, topic_filter: str = "devices/+/commands/+") -> dict[str, bytes]:
        """What the broker holds there now."""
        async with self.admin() as client:
            await client.subscribe("marks/#")
            await client.subscribe(topic_filter)
            await client.publish("marks/end", b"")
            return {message.topic: message.payload for message in await client.read_until("marks/end")}

    async def open_commands(self) -> dict[str, bytes]:
        """What the broker should hold: the registry's open commands, by topic."""
        rows = await self.store.read(lambda view: command_sql.open_after(view, 0, "", MANY))
        return {
            self.topics.command(row.device_id, row.type): command_sql.payload(row).model_dump_json().encode()
            for row in rows
        }

    async def is_in_sync(self) -> bool:
        """Whether the broker holds exactly the open commands."""
        return await self.retained() == await self.open_commands()

    async def rows(self, sql: str, *values: Any) -> list[Row]:
        """Rows of the registry."""
        return await self.store.read(lambda view: view.all(sql, *values))

    async def stored_batteries(self) -> list[int]:
        """Battery percent of each heartbeat stored, in order of storage."""
        return [row[0] for row in await self.rows("SELECT battery_percent FROM heartbeats ORDER BY id")]

    async def events(self, device: Device, kind: str = "%") -> list[str]:
        """Types of the device's events, oldest first."""
        sql = "SELECT type FROM events WHERE device_pk = ? AND type LIKE ? ORDER BY seq"
        return [row[0] for row in await self.rows(sql, device.pk, kind)]


@contextlib.asynccontextmanager
async def open_testbed(
    kind: str,
    directory: Path,
    *,
    rules: Mapping[str, Any] | None = None,
    context: Context | None = None,
    settings: str = "",
    node: RabbitMq | None = None,
) -> AsyncIterator[MqttTestbed]:
    """A registry, a broker of this kind (`rabbitmq` is a `node` that runs), and a gateway that is not started yet."""
    made = context or Context(rules=Rules(gateway_id="gw_test", **(rules or {})), clock=ShiftedClock())
    with contextlib.closing(open_database(directory / "data")) as database:
        transact(database, made, grants.ensure_key)
    ids = first_start(Settings(data_dir=directory / "data", gateway_id="gw_test"))
    wakeups = Wakeups()
    async with (
        Store(directory / "data", made, wakeups) as store,
        _broker(kind, directory, store, settings, node) as broker,
        Proxy(lambda: broker.port) as proxy,
    ):
        testbed = MqttTestbed(broker, proxy, store, wakeups, ids)
        try:
            yield testbed
        finally:
            await testbed.stop()


def _broker(kind: str, directory: Path, store: Store, settings: str, node: RabbitMq | None) -> Broker:
    if kind == "embedded":
        return EmbeddedUnderTest(directory, store)
    return MosquittoUnderTest(directory, kind, settings) if node is None else RabbitMqUnderTest(directory, store, node)


async def attempt(write: Any) -> Any:
    """What it returned, or the error of the domain that it raised."""
    try:
        return await write
    except GatewayError as error:
        return error
