"""One round of chaos: real Mosquitto, real gateway process, devices with their flash on disk, and lines that can fail.

    operators and apps ──http──▶ gateway ──line──▶ Mosquitto ◀──air── devices

Everything that is drawn, faults and their times, whims of operators and devices, follows from the round's seed. What
the machine then makes of it (which packet was on its way at a kill) does not.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from device_sim import DirectoryFlash, Fact, NoFaults, Options, SeededFaults, SimulatedDevice
from device_sim.options import MqttVersion
from gateway.store.engine import DatabaseConnection
from gateway.store.location import Location
from tests.e2e.chaos_operator import ChaosApi, Ledger, Operator
from tests.e2e.chaos_proxies import DeliveredMessage, RecordingBrokerProxy
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.program import started
from tests.support.mosquitto import GATEWAY_PASSWORD, Mosquitto
from tests.support.proxy import MqttProxy, Proxy
from tests.support.wait import eventually

AUDITOR = "auditor"
STEADY, TROUBLED = 3, 6
SETTLE_SECONDS = 90.0

_BEAT_SECONDS = 0.1
_STEPS = (
    *("write:reset_in_progress", "erase:device_token", "erase:pairing", "erase:wifi_networks", "write:last_commands"),
    *("write:last_command", "erase:reset_in_progress", "publish:ack:delivered", "publish:ack:executed", "reboot"),
    *("write:wifi_networks", "write:pairing", "write:device_token", "open_link"),
)


@dataclass
class DeviceRecord:
    """What became of one device, as far as an audit asks."""

    begun: list[tuple[str, int]] = field(default_factory=list)
    """Each wipe: the command, and the generation that lay in the flash."""
    confirmed: list[str] = field(default_factory=list)
    """`sent_at` of each heartbeat for which the broker gave a PUBACK."""


@dataclass
class Member:
    """A gateway, its own line to the broker, the one on which it is called, and those to its database."""

    gateway: GatewayProcess
    cell: "Cell"
    line: RecordingBrokerProxy
    http: Proxy
    database: tuple[Proxy, ...] = ()


@dataclass
class Cell:
    """A broker, and the line on which devices reach it, or any of several brokers that share the line."""

    broker: Mosquitto
    air: MqttProxy


@dataclass
class ChaosWorld:
    """The parts of a round: one gateway and one broker, or a cluster."""

    seed: int
    folder: Path
    members: list[Member]
    cells: list[Cell]
    registry: Location
    key: str
    ledger: Ledger = field(default_factory=Ledger)
    steady: list[SimulatedDevice] = field(default_factory=list)
    troubled: list[SimulatedDevice] = field(default_factory=list)
    apis: dict[str, ChaosApi] = field(default_factory=dict)
    diaries: dict[str, DeviceRecord] = field(default_factory=dict)
    logs: list[str] = field(default_factory=list)
    """What gateways that were killed had logged."""
    broker_may_forget: bool = False
    """Whether the broker was killed or lost its disk, and with it what it had confirmed to devices."""
    began: float = field(default_factory=time.monotonic)
    reading: DatabaseConnection | None = None
    """To the registry, for those who look again and again."""

    @property
    def devices(self) -> list[SimulatedDevice]:
        """All of them."""
        return self.steady + self.troubled

    def rng(self, purpose: str) -> random.Random:
        """Return separate randomness for each purpose, so that no purpose disturbs another."""
        return random.Random(f"{self.seed}/{purpose}")  # noqa: S311 - a fault has to come again

    def log(self, what: str) -> None:
        """A line of the round's story; pytest shows it on failure."""
        print(f"seed {self.seed}  {time.monotonic() - self.began:6.3f} s  {what}")  # noqa: T201

    def lines(self) -> list[Proxy]:
        """Everything that can be cut."""
        of_members = [line for each in self.members for line in (each.line, each.http, *each.database)]
        return [*of_members, *dict.fromkeys(cell.air for cell in self.cells)]

    def acknowledged(self) -> list[DeliveredMessage]:
        """What gateways have answered for with a PUBACK."""
        return [heard for member in self.members for heard in member.line.acknowledged]

    def published(self) -> set[str]:
        """The ids of the commands that gateways have published."""
        return {command for member in self.members for command in member.line.commands}

    async def kill(self, gateway: GatewayProcess) -> None:
        """`kill -9`, its log kept."""
        await gateway.kill()
        self.logs.append(gateway.err)

    def api(self, purpose: str) -> ChaosApi:
        """Return an API client that calls over the failing lines, each time another gateway."""
        ports = [member.http.port for member in self.members]
        return ChaosApi(ports, self.key, self.ledger, self.rng(f"http {purpose}"))

    def operator(self, device: SimulatedDevice, when: str = "") -> Operator:
        """Return the operator of this device."""
        rng = self.rng(f"operator of {device.serial}{when}")
        return Operator(device, self.apis[device.serial], self.ledger, rng)

    @asynccontextmanager
    async def direct(self) -> AsyncIterator[httpx.AsyncClient]:
        """Return an API client that calls past all lines."""
        headers = {"Authorization": f"Bearer {self.key}"}
        url = self.members[0].gateway.url
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30.0) as client:
            yield client

    async def settled(self) -> None:
        """Wait until every gateway says that the broker is in step and nothing is due."""
        answers: list[dict[str, Any]] = []
        async with self.direct() as client:

            async def in_step() -> bool:
                urls = [f"{member.gateway.url}/ready" for member in self.members]
                answers[:] = [(await client.get(url)).json() for url in urls]
                return all(bool(each["ready"]) and each["outbox"]["depth"] == 0 for each in answers)

            try:
                await eventually(in_step, "the gateway is ready and its outbox empty", guard_seconds=SETTLE_SECONDS)
            except AssertionError:
                self.log(f"not settled: {answers}")
                raise

    def stop_reading(self) -> None:
        """Close the connection to the registry, if there is one."""
        if self.reading is not None:
            self.reading.close()

    @contextlib.contextmanager
    def heal(self) -> Iterator[None]:
        """At the end of the block all lines are good again."""
        try:
            yield
        finally:
            for line in self.lines():
                line.resume()
                line.delay_seconds, line.closed = 0.0, False


@asynccontextmanager
async def running_round(folder: Path, seed: int) -> AsyncIterator[ChaosWorld]:
    """Start broker and gateway, make devices with an empty flash, and stop everything at the end."""
    version = version_of(seed)
    async with contextlib.AsyncExitStack() as stack:
        cells = await stack.enter_async_context(running_cells(folder, random.Random(seed)))  # noqa: S311 - to come again
        member = await stack.enter_async_context(prepared_member(folder / "gateway", cells[0], version))
        await stack.enter_async_context(started(member.gateway))
        world = ChaosWorld(seed, folder, [member], cells, member.gateway.data, member.gateway.new_key())
        await world.settled()  # until the gateway subscribes, a broker that is new to it keeps no message for it
        world.log(f"the round begins; the gateway speaks MQTT {version}")
        stack.callback(world.stop_reading)
        await add_devices(world, stack, STEADY, TROUBLED)
        yield world


def version_of(seed: int) -> MqttVersion:
    """What gateway and devices speak in this round."""
    return "5" if seed % 2 else "3.1.1"


async def add_devices(
    world: ChaosWorld, stack: contextlib.AsyncExitStack, steady: int, troubled: int, interval: float = _BEAT_SECONDS
) -> None:
    """Make so many devices that are left alone, and so many that are reset and fail."""
    for names, devices, count in (("STEADY", world.steady, steady), ("TROUBLED", world.troubled, troubled)):
        for number in range(count):
            devices.append(await _device(world, stack, f"{names}{number}", interval))


@asynccontextmanager
async def running_cells(
    folder: Path, rng: random.Random, count: int = 1, *, homes: bool = False
) -> AsyncIterator[list[Cell]]:
    """Start brokers, and the line on which each connection of a device reaches one of them, whichever.

    With homes each broker has a separate line.
    """
    async with contextlib.AsyncExitStack() as stack:
        brokers = [
            await stack.enter_async_context(_mosquitto(_new(folder / f"broker_{number}"))) for number in range(count)
        ]
        groups = [[broker] for broker in brokers] if homes else [brokers]
        airs = [await stack.enter_async_context(_air(group, rng)) for group in groups]
        yield [Cell(broker, airs[number % len(airs)]) for number, broker in enumerate(brokers)]


def _air(brokers: Sequence[Mosquitto], rng: random.Random) -> MqttProxy:
    return MqttProxy(lambda: rng.choice(brokers).port)


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


@asynccontextmanager
async def _mosquitto(folder: Path) -> AsyncIterator[Mosquitto]:
    """Start a broker, with a user that may do everything."""
    async with Mosquitto(folder, users={AUDITOR: "auditor-password"}) as broker:
        with broker.files.acl.open("a") as acl:
            acl.write(f"\nuser {AUDITOR}\ntopic readwrite #\n")
        await broker.apply_users()
        yield broker


@asynccontextmanager
async def prepared_member(
    folder: Path, cell: Cell, version: str, *options: str, by: tuple[str, ...] = ()
) -> AsyncIterator[Member]:
    """Lay the lines of a gateway, which is not started yet."""
    async with RecordingBrokerProxy(lambda: cell.broker.port) as line:
        gateway = GatewayProcess(folder, *_options(cell, line, version), *options, by=by)
        async with Proxy(lambda: int(gateway.url.rpartition(":")[2])) as http:
            yield Member(gateway, cell, line, http)


def _options(cell: Cell, line: Proxy, version: str) -> list[str]:
    broker = cell.broker
    return [
        *("--broker", f"mqtt://gateway:{GATEWAY_PASSWORD}@127.0.0.1:{line.port}", "--mqtt-version", version),
        *("--mqtt-advertise", f"127.0.0.1:{cell.air.port}", "--rate-limit-per-minute", "0"),
        *("--mosquitto-password-file", str(broker.password_file), "--mosquitto-pid-file", str(broker.pid_file)),
        *("--bind-broker-wait-seconds", "0.5"),
    ]


async def _device(world: ChaosWorld, stack: contextlib.AsyncExitStack, serial: str, interval: float) -> SimulatedDevice:
    diary = world.diaries[serial] = DeviceRecord()
    world.apis[serial] = await stack.enter_async_context(world.api(serial))
    rng = world.rng(serial)

    def hear(fact: Fact) -> None:
        if fact.name == "reset_begun":
            assert device.binding, f"{serial} is wiped though it is unpaired"
            diary.begun.append((fact.details["command_id"], device.binding.generation))
        elif fact.name == "heartbeat":
            diary.confirmed.append(fact.details["sent_at"])

    device = SimulatedDevice(
        serial=serial,
        flash=DirectoryFlash(world.folder / "flash" / serial),
        api=world.apis[serial],
        interval=interval,
        rng=rng,
        on_fact=hear,
        options=Options(
            faults=NoFaults() if serial.startswith("STEADY") else _faults(rng),
            mqtt_version=version_of(world.seed),
            backoff_first=0.05,
            backoff_longest=0.3,
            backoff_refused=1.0,
        ),
    )
    return device


def _faults(rng: random.Random) -> SeededFaults:
    return SeededFaults(
        rng, power_cuts=rng.sample(_STEPS, 3), drop=0.02, duplicate=0.1, delay=(0.0, 0.05), flap=(0.5, 5.0)
    )


@asynccontextmanager
async def at_work(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let these run as long as the block; one that fails is raised at the end."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
