"""Reconnect of a whole fleet at once after a restart of the broker: every device connects, and nothing is lost.

`make stampede DEVICES=10000` for more of them; each has a separate connection, token and topics.
"""

import asyncio
import contextlib
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import httpx

from gateway.bootstrap import first_start
from gateway.core.clock import to_rfc3339
from gateway.domain import devices, grants
from gateway.models.devices import RegisterDevice
from gateway.settings.loading import Settings
from gateway.store import DATABASE_NAME, Context, Tx, open_database, transact
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.program import started
from tests.e2e.support import topic
from tests.support import wire
from tests.support.mosquitto import GATEWAY_PASSWORD, Mosquitto
from tests.support.wait import eventually

DEVICES = int(os.environ.get("STAMPEDE_DEVICES", "2000"))
RESETS = 20
SEED = 1
JITTER_SECONDS = max(2.0, DEVICES / 1_000)
PATIENCE_SECONDS = 300.0
NOON = 1_794_312_000_000

DeviceAccount = tuple[str, str]


def make_fleet(data: Path) -> list[DeviceAccount]:
    """A registry with so many bound devices; id and MQTT password of each."""
    _, project = first_start(Settings(data_dir=data))
    context = Context()
    with closing(open_database(data)) as database:
        transact(database, context, grants.ensure_key)
        return transact(database, context, lambda tx: [_bound(tx, project, number) for number in range(DEVICES)])


def _bound(tx: Tx, project: str, number: int) -> DeviceAccount:
    device, _ = devices.register(tx, project, RegisterDevice(serial_number=f"SN{number}"), "key_test")
    return device.id, devices.bind(tx, project, device.id, f"eu_{number}", "key_test").mqtt_password


class DeviceFleet:
    """A raw connection per device. Each says one heartbeat whenever it gets in, and comes back with jitter."""

    def __init__(self, broker: Mosquitto, fleet: Sequence[DeviceAccount]) -> None:
        self._broker = broker
        self._fleet = fleet
        self._rng = random.Random(SEED)  # noqa: S311 - repeatable pauses
        self._said = 0
        self.inside: set[str] = set()
        self.confirmed: Counter[str] = Counter()
        """How many heartbeats of each device the broker has answered for."""
        self.told: set[str] = set()
        """Devices to which a command came."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Let them live as long as the block."""
        lives = [asyncio.create_task(self._live(*who)) for who in self._fleet]
        try:
            yield
        finally:
            for life in lives:
                life.cancel()
            await asyncio.gather(*lives, return_exceptions=True)

    async def everybody_is_inside(self) -> float:
        """Wait until the broker has confirmed a heartbeat of each; how long that took, in seconds."""
        began = time.monotonic()
        everybody = {device_id for device_id, _ in self._fleet}
        await eventually(lambda: self.inside == everybody, "everybody is in", guard_seconds=PATIENCE_SECONDS)
        return time.monotonic() - began

    async def _live(self, device_id: str, password: str) -> None:
        while True:
            await asyncio.sleep(self._rng.uniform(0, JITTER_SECONDS))  # what firmware does, too
            with contextlib.suppress(OSError, TimeoutError, wire.ConnectionClosedError):
                await self._one_connection(device_id, password)

    async def _one_connection(self, device_id: str, password: str) -> None:
        async with wire.Wire.open(self._broker.host, self._broker.port) as client:
            if await client.connect(device_id, device_id, password) != wire.ACCEPTED:
                return
            self._said += 1
            beat = b'{"sent_at":"%s"}' % to_rfc3339(NOON + self._said).encode()
            await client.publish(f"devices/{device_id}/heartbeat", beat)
            self.confirmed[device_id] += 1
            await client.subscribe(topic(device_id))
            self.inside.add(device_id)
            try:
                if client.inbox or await client.stirred():
                    self.told.add(device_id)
                    await client.closed()
            finally:
                self.inside.discard(device_id)


async def test_a_whole_fleet_reconnects_at_once(tmp_path: Path) -> None:
    """The broker restarts under a connected fleet; resets that were asked for meanwhile reach their devices.

    It is stopped so that it saves its sessions. Without the gateway's session the broker would confirm heartbeats that
    no subscriber receives while the gateway is not back yet.
    """
    gateway_folder = tmp_path / "gateway"
    fleet = await asyncio.to_thread(make_fleet, gateway_folder / "data")
    async with Mosquitto(tmp_path) as broker:
        gateway = GatewayProcess(gateway_folder, *_beside(broker))
        crowd = DeviceFleet(broker, fleet)
        async with started(gateway), _caller(gateway) as http:
            await _in_step(http)
            async with crowd.running():
                first = await crowd.everybody_is_inside()
                await _stored(gateway, crowd, [])
                await broker.stop()
                await eventually(lambda: not crowd.inside, "nobody is in")
                chosen = [device_id for device_id, _ in random.Random(SEED).sample(fleet, RESETS)]  # noqa: S311 - any
                for device_id in chosen:
                    (await http.post(f"/v1/devices/{device_id}/reset")).raise_for_status()
                await broker.start()
                again = await crowd.everybody_is_inside()
                await eventually(lambda: crowd.told >= set(chosen), "each reset has arrived", guard_seconds=60.0)
                await _in_step(http)
                await _stored(gateway, crowd, chosen)
            print(f"{DEVICES} devices: in after {first:.1f} s, back after {again:.1f} s")  # noqa: T201 - the figure
        assert "Traceback" not in gateway.err


def _beside(broker: Mosquitto) -> list[str]:
    return [
        *("--broker", f"mqtt://gateway:{GATEWAY_PASSWORD}@{broker.host}:{broker.port}", "--rate-limit-per-minute", "0"),
        *("--mosquitto-password-file", str(broker.password_file), "--mosquitto-pid-file", str(broker.pid_file)),
    ]


@asynccontextmanager
async def _caller(gateway: GatewayProcess) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {gateway.new_key()}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=60.0) as client:
        yield client


async def _in_step(http: httpx.AsyncClient) -> None:
    async def ready() -> bool:
        answer = (await http.get("/ready")).json()
        return bool(answer["ready"]) and answer["outbox"]["depth"] == 0

    await eventually(ready, "the gateway is ready and its outbox empty", guard_seconds=PATIENCE_SECONDS)


async def _stored(gateway: GatewayProcess, crowd: DeviceFleet, reset: Sequence[str]) -> None:
    """Wait until each heartbeat that the broker confirmed is in the registry, but for those of devices being reset."""
    with closing(sqlite3.connect(f"{(gateway.data / DATABASE_NAME).as_uri()}?mode=ro", uri=True)) as database:

        def all_of_them() -> bool:
            rows = database.execute(
                """SELECT d.id, count(*) FROM heartbeats h JOIN devices d ON d.pk = h.device_pk GROUP BY d.pk"""
            )
            return {**crowd.confirmed, **dict.fromkeys(reset)} == {**dict(rows), **dict.fromkeys(reset)}

        await eventually(all_of_them, "every confirmed heartbeat is stored", guard_seconds=60.0)
