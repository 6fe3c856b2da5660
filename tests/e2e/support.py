"""A gateway process with its broker, a key, an API client, devices, and a view of the broker from outside."""

import asyncio
import contextlib
import hashlib
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx

from device_sim import Faults, Flash, GatewayApi, MemoryFlash, NoFaults, Options, SimulatedDevice
from device_sim.options import RadioKind, Transport, wall_clock
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.program import GUARD_SECONDS, started
from tests.support import registries, wire
from tests.support.auth_endpoint import SECRET
from tests.support.mosquitto import GATEWAY_PASSWORD, Mosquitto
from tests.support.mqtt_password import mqtt_password_of
from tests.support.rabbitmq import RabbitMq
from tests.support.wait import eventually

BrokerKind = Literal["embedded", "mosquitto", "rabbitmq"]
BROKERS: Sequence[BrokerKind] = ("embedded", "mosquitto")

AUDITOR = "auditor"
"""A user that the tests give every right on Mosquitto, so that they can look and meddle."""
RESET = "factory_reset"
OPEN = ("pending", "delivered")

_HEARTBEAT_SECONDS = 0.2
_STATE = (
    "SELECT * FROM projects ORDER BY id",
    "SELECT id, hash, scopes, revoked_at FROM api_keys ORDER BY id",
    "SELECT * FROM devices ORDER BY pk",
    "SELECT id, device_pk, generation, hash, state FROM tokens ORDER BY id",
    "SELECT * FROM commands ORDER BY id",
    "SELECT kind, device_pk, detail FROM outbox WHERE kind <> 'mirror' ORDER BY seq",  # what is shown has a pace
)
_MARK = "auditor/mark"


@dataclass
class Site:
    """What a test of the whole has: everything in it is real."""

    kind: BrokerKind
    gateway: GatewayProcess
    http: httpx.AsyncClient
    api: GatewayApi
    key: str
    mosquitto: Mosquitto | None

    @property
    def broker(self) -> Mosquitto:
        """The Mosquitto of this site."""
        assert self.mosquitto, "this site has another broker"
        return self.mosquitto

    def device(
        self,
        serial: str = "SN1",
        *,
        radio: RadioKind = "wifi",
        flash: Flash | None = None,
        faults: Faults | None = None,
        transport: Transport = "mqtt",
        clock: Callable[[], int] = wall_clock,
        recordings: int = 0,
    ) -> SimulatedDevice:
        """A device, not registered yet, with quick heartbeats and reconnects; its whims follow from its serial."""
        return SimulatedDevice(
            serial=serial,
            radio=radio,
            flash=flash or MemoryFlash(),
            api=self.api,
            interval=_HEARTBEAT_SECONDS,
            rng=random.Random(serial),  # noqa: S311 - a simulation
            options=Options(
                faults=faults or NoFaults(),
                transport=transport,
                backoff_first=0.05,
                backoff_longest=0.5,
                clock=clock,
                recordings=recordings,
            ),
        )

    async def get(self, path: str) -> dict[str, Any]:
        """GET below /v1/devices, which must succeed."""
        return _body(await self.http.get(f"/v1/devices/{path}"))

    async def post(self, path: str, body: dict[str, Any] | None = None, *, status: int = 200) -> dict[str, Any]:
        """POST below /v1/devices, which must be answered with this status."""
        return _body(await self.http.post(f"/v1/devices/{path}", json=body), status)

    async def reset(self, device_id: str, recordings: str | None = None) -> dict[str, Any]:
        """Ask for a reset; its command."""
        answer = await self.post(f"{device_id}/reset", None if recordings is None else {"recordings": recordings})
        assert (answer["status"], answer["end_user_id"]) == ("unbound", None)
        return await self.newest(device_id)

    async def commands(self, device_id: str) -> list[dict[str, Any]]:
        """The commands of a device, newest first."""
        listed: list[dict[str, Any]] = (await self.get(f"{device_id}/commands"))["data"]
        return listed

    async def newest(self, device_id: str) -> dict[str, Any]:
        """Its newest command."""
        return (await self.commands(device_id))[0]

    async def becomes(self, device_id: str, status: str) -> dict[str, Any]:
        """Wait until its newest command has this status; the command."""

        async def there() -> dict[str, Any] | None:
            command = await self.newest(device_id)
            return command if command["status"] == status else None

        command: dict[str, Any] | None = await eventually(there, f"the newest command of {device_id} is {status}")
        assert command
        return command

    async def events(self, device_id: str) -> list[str]:
        """The types of its events, oldest first."""
        return [event["type"] for event in reversed((await self.get(f"{device_id}/events"))["data"])]

    async def synced(self) -> None:
        """Wait until the gateway says that the broker is in step with the registry."""

        async def in_step() -> bool:
            answer = (await self.http.get("/ready")).json()
            return bool(answer["ready"]) and answer["outbox"]["depth"] == 0

        await eventually(in_step, "the outbox is empty and the gateway ready")

    async def as_device(self, token: str, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        """A call with a device token, below /v1/devices/me."""
        return await self.http.request(
            method, f"/v1/devices/me/{path}", json=body, headers={"Authorization": f"Bearer {token}"}
        )

    async def connect_answer(self, device_id: str, token: str) -> int:
        """What the broker says to a device with this token's MQTT password: a return code of `tests.support.wire`."""
        return await self.password_answer(device_id, mqtt_password_of(token))

    async def password_answer(self, name: str, password: str) -> int:
        """What the broker says to this name with this password."""
        async with wire.Wire.open(self.gateway.host, self.gateway.port) as client:
            return await client.connect(name, name, password)

    async def token_is_dead(self, device_id: str, token: str) -> None:
        """Neither HTTP nor the broker let this token do anything."""
        await self.synced()
        assert (await self.as_device(token, "POST", "heartbeat", {})).status_code == httpx.codes.UNAUTHORIZED
        assert (await self.as_device(token, "GET", "commands/pending")).status_code == httpx.codes.UNAUTHORIZED
        refused = (wire.BAD_CREDENTIALS, wire.NOT_AUTHORISED)
        await eventually(
            lambda: self._answers_with(device_id, token, refused), f"the broker refuses the old token of {device_id}"
        )

    async def _answers_with(self, device_id: str, token: str, codes: tuple[int, ...]) -> bool:
        return await self.connect_answer(device_id, token) in codes

    async def open_commands(self) -> dict[str, str]:
        """Command topic and command id of everything that is open in the registry."""
        devices = _body(await self.http.get("/v1/devices?limit=100"))["data"]
        found = {}
        for device in devices:
            for command in await self.commands(device["id"]):
                if command["status"] in OPEN:
                    found[topic(device["id"], command["type"])] = command["id"]
        return found

    async def retained(self) -> dict[str, bytes]:
        """Topic and payload of every retained command, as Mosquitto hands them to a new subscriber."""
        async with self.broker.client(AUDITOR) as auditor:
            await auditor.subscribe("devices/+/commands/+", _MARK)
            await auditor.publish(_MARK, b"that was all")
            return await auditor.read_retained(_MARK)

    async def publish(self, where: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish with an administrator's rights on Mosquitto."""
        async with self.broker.client(AUDITOR) as auditor:
            await auditor.publish(where, payload, retain=retain)

    async def broker_agrees(self) -> None:
        """Retained messages on the broker = open commands in SQLite (on Mosquitto, where an outsider can look)."""
        await self.synced()
        if self.mosquitto is not None:
            assert set(await self.retained()) == set(await self.open_commands())

    def count(self, sql: str) -> int:
        """Return a count from the registry's file: only this process uses it."""
        with closing(sqlite3.connect(f"{(self.gateway.data / 'gateway.db').as_uri()}?mode=ro", uri=True)) as database:
            number: int = database.execute(sql).fetchone()[0]
            return number

    def fingerprint(self) -> str:
        """A hash of the rows that no bad input may change, without times of use."""
        with closing(sqlite3.connect(f"{(self.gateway.data / 'gateway.db').as_uri()}?mode=ro", uri=True)) as database:
            rows = [database.execute(sql).fetchall() for sql in _STATE]
        return hashlib.sha256(repr(rows).encode()).hexdigest()


def topic(device_id: str, command_type: str = RESET) -> str:
    """Where a command lies."""
    return f"devices/{device_id}/commands/{command_type}"


def token_of(device: SimulatedDevice) -> str:
    """The token in its flash."""
    assert device.binding, f"{device.serial} is unpaired"
    return device.binding.device_token


def details(device: SimulatedDevice, name: str) -> list[dict[str, Any]]:
    """The details of all its facts of a name."""
    return [dict(fact.details) for fact in device.facts if fact.name == name]


def _body(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    assert answer.status_code == status, f"{answer.request.url}: {answer.status_code} {answer.text}"
    body: dict[str, Any] = answer.json()
    return body


@asynccontextmanager
async def running_site(
    folder: Path, kind: BrokerKind, *options: str, node: RabbitMq | None = None
) -> AsyncIterator[Site]:
    """Start broker and gateway, and stop them at the end; `rabbitmq` is a `node` that runs."""
    async with contextlib.AsyncExitStack() as stack:
        broker = await stack.enter_async_context(mosquitto(folder)) if kind == "mosquitto" else None
        # No rate limit: whoever waits for an event asks often.
        beside = [*(mosquitto_options(broker) if broker else ()), *rabbitmq_options(folder, node)]
        gateway = GatewayProcess(
            folder / "gateway",
            *beside,
            "--rate-limit-per-minute",
            "0",
            "--refused-credentials-per-minute",
            "0",
            *options,
        )
        if "--database" not in options:
            registries.place(gateway.data)
        await stack.enter_async_context(started(gateway))
        key = gateway.new_key()
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=gateway.url, headers={"Authorization": f"Bearer {key}"}, timeout=GUARD_SECONDS)
        )
        api = await stack.enter_async_context(GatewayApi(gateway.url, key))
        site = Site(kind, gateway, http, api, key, broker)
        await site.synced()
        yield site


@asynccontextmanager
async def mosquitto(folder: Path) -> AsyncIterator[Mosquitto]:
    """A Mosquitto in which the auditor may do everything."""
    broker = Mosquitto(folder, users={AUDITOR: "auditor-password"})
    async with broker:
        with broker.files.acl.open("a") as acl:
            acl.write(f"\nuser {AUDITOR}\ntopic readwrite #\n")
        await broker.apply_users()
        yield broker


def mosquitto_options(broker: Mosquitto) -> list[str]:
    """What has a gateway serve this broker and write its password file."""
    return [
        *("--broker", f"mqtt://gateway:{GATEWAY_PASSWORD}@{broker.host}:{broker.port}"),
        *("--mosquitto-password-file", str(broker.password_file)),
        *("--mosquitto-pid-file", str(broker.pid_file)),
    ]


def rabbitmq_options(folder: Path, node: RabbitMq | None) -> list[str]:
    """What has a gateway answer this node; nothing without one."""
    if node is None:
        return []
    secret = folder / "secret"
    secret.write_text(f"{SECRET}\n")
    return [
        *("--broker", f"mqtt://gateway:{GATEWAY_PASSWORD}@{node.host}:{node.port}"),
        *("--broker-auth", f"{node.host}:{node.auth_port}"),
        *("--broker-auth-secret-file", str(secret)),
        *("--broker-api-url", node.api_url),
    ]


@asynccontextmanager
async def running(*devices: SimulatedDevice) -> AsyncIterator[None]:
    """Let devices live as long as the block; whatever is waited for in it must happen."""
    lives = [asyncio.create_task(device.run(), name=device.serial) for device in devices]
    try:
        async with asyncio.timeout(GUARD_SECONDS):
            yield
    finally:
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
