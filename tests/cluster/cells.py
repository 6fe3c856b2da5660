"""Two cells at one registry on PostgreSQL, each a broker and a gateway, and a device that goes between them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from device_sim import GatewayApi
from gateway.core.postgres_address import PostgresAddress
from gateway.store import View, open_reader
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.program import GUARD_SECONDS, started
from tests.e2e.support import Site, mosquitto, mosquitto_options, rabbitmq_options
from tests.support import wire
from tests.support.mqtt_password import mqtt_password_of
from tests.support.postgres import database
from tests.support.rabbitmq import RabbitMq
from tests.support.wait import eventually

CELLS = ("a", "b")
SETTLES_SECONDS = 60.0
"""Guard for what ends with a take-over or a comparison on a busy machine; no statement about speed."""


@dataclass
class Roaming:
    """A device that is bound; it speaks MQTT by itself, so that a test says when and where."""

    id: str
    token: str

    def topic(self, leaf: str) -> str:
        """One of its topics."""
        return f"devices/{self.id}/{leaf}"

    @asynccontextmanager
    async def on(self, cell: Site, *, will: bool = False) -> AsyncIterator[wire.Wire]:
        """Connect at this cell, as soon as its broker lets it in.

        Without a keepalive, so that the broker does not end the session because the device is silent.
        """
        last = wire.Will(self.topic("status"), b'{"status":"offline"}', retain=True) if will else None
        async with contextlib.AsyncExitStack() as stack:

            async def connected() -> wire.Wire | None:
                client = await stack.enter_async_context(wire.Wire.open(cell.gateway.host, cell.gateway.port))
                answer = await client.connect(self.id, self.id, mqtt_password_of(self.token), keepalive=0, will=last)
                return client if answer == wire.ACCEPTED else None

            client = await eventually(connected, "the broker lets the device in", guard_seconds=SETTLES_SECONDS)
            assert client
            yield client

    async def beat(self, client: wire.Wire, battery: int) -> None:
        """Send a heartbeat."""
        await client.publish(self.topic("heartbeat"), json.dumps({"battery_percent": battery}).encode())


@dataclass
class Cells:
    """Both cells, and what they share."""

    a: Site
    b: Site
    where: PostgresAddress

    async def ready(self) -> None:
        """Wait until each gateway serves its broker and has compared it."""
        for cell in (self.a, self.b):
            await eventually(lambda cell=cell: _is_ready(cell), "the cell is ready", guard_seconds=SETTLES_SECONDS)  # type: ignore[misc]

    async def bound(self, serial: str) -> Roaming:
        """Register and bind a device at the first cell. The answer says that the brokers that are there know it."""
        device: dict[str, Any] = (
            await self.a.http.post("/v1/devices", json={"serial_number": serial, "model": "bota_pin"})
        ).json()
        answer = await self.a.http.post(f"/v1/devices/{device['id']}/bind", json={"end_user_id": "eu_1"})
        assert answer.status_code == httpx.codes.OK, answer.text
        assert "X-Broker-Synced" not in answer.headers
        return Roaming(device["id"], answer.json()["device_token"])

    def row(self, device: Roaming, columns: str = "h.*") -> dict[str, Any]:
        """What the registry knows of its presence."""
        with closing(open_reader(self.where)) as connection:
            found = View(connection).one(
                f"SELECT {columns} FROM health h JOIN devices d ON d.pk = h.device_pk WHERE d.id = ?",  # noqa: S608
                device.id,
            )
            return {} if found is None else {name: found[name] for name in found.keys()}  # noqa: SIM118 - a row

    async def in_step(self, device: Roaming) -> None:
        """Wait until each broker has followed a change of its access, and has ended the sessions from before it.

        A session that begins meanwhile may be among those. A device comes back; a test that speaks MQTT does not.
        """

        def followed() -> bool:
            waiting = """SELECT count(*) FROM outbox o JOIN devices d ON d.pk = o.device_pk
                WHERE d.id = ? AND o.kind = 'credential'"""
            with closing(open_reader(self.where)) as connection:
                return int(View(connection).value(waiting, device.id)) == 0

        await eventually(followed, "the brokers have followed", guard_seconds=SETTLES_SECONDS)

    async def heard(self, device: Roaming, battery: int) -> dict[str, Any]:
        """Wait until this heartbeat is stored; its presence then."""

        async def stored() -> dict[str, Any] | None:
            row = self.row(device)
            return row if row.get("battery_percent") == battery else None

        found = await eventually(stored, f"the heartbeat {battery} is stored", guard_seconds=SETTLES_SECONDS)
        assert found
        return dict(found)

    async def holds(self, cell: Site, topics: set[str]) -> None:
        """Wait until the broker of this cell retains the commands on these topics, and no others."""

        async def held() -> bool:
            return set(await cell.retained()) == topics

        await eventually(held, f"the broker holds {topics or 'nothing'}", guard_seconds=SETTLES_SECONDS)


async def _is_ready(cell: Site) -> bool:
    with contextlib.suppress(httpx.TransportError):
        report = (await cell.http.get("/ready")).json()
        return bool(report["ready"]) and report["broker"]["connected"]
    return False


@asynccontextmanager
async def _cell(
    folder: Path, name: str, where: PostgresAddress, key: str, *more: str, node: RabbitMq | None = None
) -> AsyncIterator[Site]:
    """Start a gateway beside this RabbitMQ, or beside a Mosquitto of the cell."""
    async with contextlib.AsyncExitStack() as stack:
        broker = None if node else await stack.enter_async_context(mosquitto(folder / f"broker_{name}"))
        beside = rabbitmq_options(folder, node) if broker is None else mosquitto_options(broker)
        options = ("--database", where.url, "--gateway-id", f"gw_{name}", "--broker-id", f"brk_{name}")
        timing = ("--lease-seconds", "2", "--bind-broker-wait-seconds", "30", "--rate-limit-per-minute", "0")
        gateway = GatewayProcess(folder / name, *options, *timing, *more, *beside)
        gateway.name = f"gw_{name}"
        await stack.enter_async_context(started(gateway))
        key = key or gateway.new_key()
        headers = {"Authorization": f"Bearer {key}"}
        http = httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=GUARD_SECONDS)
        await stack.enter_async_context(http)
        api = await stack.enter_async_context(GatewayApi(gateway.url, key))
        yield Site("mosquitto" if broker else "rabbitmq", gateway, http, api, key, broker)


@asynccontextmanager
async def two_cells(folder: Path, *options: str, node: RabbitMq | None = None) -> AsyncIterator[Cells]:
    """Start both, with these options, and wait until they serve. The second has this RabbitMQ, or a Mosquitto."""
    where = database(folder)
    async with (
        _cell(folder, "a", where, "", *options) as a,
        _cell(folder, "b", where, a.key, *options, node=node) as b,
    ):
        cells = Cells(a, b, where)
        await cells.ready()
        yield cells
