"""Two gateways, one broker, one registry on PostgreSQL: who serves the broker, and what a take-over loses (nothing)."""

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from device_sim import GatewayApi, SimulatedDevice
from gateway.core.postgres_address import PostgresAddress
from gateway.runtime.postgres_server import PostgresServer
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.program import GUARD_SECONDS, clean_environment, run, script, started
from tests.e2e.support import Site, mosquitto, mosquitto_options, running
from tests.support.measured import MEASURED, Measured
from tests.support.mosquitto import Mosquitto
from tests.support.postgres import database, execute
from tests.support.wait import eventually

BROKER = "broker:default"
LEASE_SECONDS = 6
SETTLES_SECONDS = 60.0
"""Guard for what ends with a take-over on a busy machine; no statement about speed."""


@dataclass
class Pair:
    """Two gateways, a client of each, and what they share."""

    one: Site
    other: Site
    where: PostgresAddress

    async def lease(self, site: Site) -> dict[str, Any]:
        """What this gateway says of the broker's lease."""
        report = (await site.http.get("/ready")).json()
        (found,) = [each for each in report["leases"] if each["name"] == BROKER]
        return dict(found)

    async def serves(self, site: Site) -> dict[str, Any]:
        """Wait until this gateway serves the broker and has compared; the lease."""

        async def serving() -> dict[str, Any] | None:
            with contextlib.suppress(httpx.TransportError):
                report: dict[str, Any] = (await site.http.get("/ready")).json()
                leases: list[dict[str, Any]] = [each for each in report.get("leases", ()) if each["name"] == BROKER]
                return leases[0] if report["ready"] and leases and leases[0]["held"] else None
            return None

        found = await eventually(serving, f"{site.gateway.name} serves the broker", guard_seconds=SETTLES_SECONDS)
        assert isinstance(found, dict)
        return found

    async def stands_by(self, site: Site) -> None:
        """Wait until this gateway is ready, and does not serve the broker."""

        async def standing() -> bool:
            with contextlib.suppress(httpx.TransportError):
                report = (await site.http.get("/ready")).json()
                assert report["gateway"] == {"id": site.gateway.name, "alone": False}
                return bool(report["ready"]) and not report["leases"][0]["held"]
            return False

        await eventually(standing, f"{site.gateway.name} stands by", guard_seconds=SETTLES_SECONDS)


@asynccontextmanager
async def _site(folder: Path, name: str, where: PostgresAddress, broker: Mosquitto, key: str) -> AsyncIterator[Site]:
    options = ("--database", where.url, "--gateway-id", name, "--lease-seconds", str(LEASE_SECONDS))
    gateway = GatewayProcess(folder / name, *options, *mosquitto_options(broker), "--rate-limit-per-minute", "0")
    gateway.name = name
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(started(gateway))
        key = key or gateway.new_key()
        headers = {"Authorization": f"Bearer {key}"}
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=GUARD_SECONDS)
        )
        api = await stack.enter_async_context(GatewayApi(gateway.url, key))
        yield Site("mosquitto", gateway, http, api, key, broker)


@asynccontextmanager
async def _pair(folder: Path, where: PostgresAddress) -> AsyncIterator[Pair]:
    """The first serves the broker, the second stands by."""
    async with (
        mosquitto(folder) as broker,
        _site(folder, "gw_1", where, broker, "") as one,
        _site(folder, "gw_2", where, broker, one.key) as other,
    ):
        pair = Pair(one, other, where)
        await pair.serves(one)
        await pair.stands_by(other)
        yield pair


async def _provisioned(site: Site, serial: str) -> tuple[SimulatedDevice, str]:
    device = site.device(serial)
    return device, (await device.provision(end_user_id="eu_1")).device_id


async def _wiped_by(asked: Site, device: SimulatedDevice, device_id: str) -> None:
    """A reset that one of the gateways accepted is delivered by the one that serves the broker, once."""
    begun = device.counts["reset_begun"]
    command = await asked.reset(device_id)
    await device.wait_for("unprovisioned")
    assert (await asked.becomes(device_id, "executed"))["id"] == command["id"]
    assert device.counts["reset_begun"] == begun + 1


async def _both_are_listed(pair: Pair, lease: dict[str, Any]) -> None:
    listed = await run(script("gateway"), "cluster", "--json", "--database", pair.where.url)
    found = json.loads(listed.out)
    assert [each["gateway_id"] for each in found["gateways"]] == ["gw_1", "gw_2"]
    owners = {each["name"]: (each["owner"], each["epoch"]) for each in found["leases"]}
    assert owners[BROKER] == (lease["owner"], lease["epoch"])
    standby = next(each for each in (pair.one, pair.other) if each.gateway.name != lease["owner"])
    there = clean_environment(GATEWAY_API_KEY=standby.key, GATEWAY_URL=standby.gateway.url)
    listed = await run(script("gateway"), "devices", "list", environment=there)
    assert (listed.code, listed.err) == (0, ""), "it knows who is online, although it has no session"


async def test_a_take_over_loses_nothing(tmp_path: Path, record_property: Measured) -> None:
    """After a clean stop, a kill and a pause of the owner: the other delivers what was accepted, once."""
    async with _pair(tmp_path, database(tmp_path)) as pair:
        one, other = pair.one, pair.other
        first = await pair.lease(one)
        assert first == await pair.lease(other) | {"held": True, "age_seconds": first["age_seconds"]}

        device, device_id = await _provisioned(other, "SN1")
        async with running(device):
            await device.wait_for_fact("heartbeat")
            await _wiped_by(other, device, device_id)

        await _both_are_listed(pair, first)

        began = time.monotonic()  # a clean stop
        assert await one.gateway.stop() == 0, one.gateway.err
        await pair.serves(other)
        record_property(MEASURED, f"served again {time.monotonic() - began:.1f} s after a clean stop was asked for")
        assert (await pair.lease(other))["epoch"] == first["epoch"] + 1
        await one.gateway.restart()
        await pair.stands_by(one)

        device, device_id = await _provisioned(one, "SN2")
        async with running(device):
            await device.wait_for_fact("heartbeat")
            began = time.monotonic()
            await other.gateway.kill()
            command = await one.reset(device_id)  # accepted while no gateway serves the broker
            await device.wait_for("unprovisioned")
            await one.becomes(device_id, "executed")
        record_property(MEASURED, f"delivered {time.monotonic() - began:.1f} s after the owner was killed")
        assert (device.counts["reset_begun"], [each["id"] for each in await one.commands(device_id)]) == (
            1,
            [command["id"]],
        )
        await pair.serves(one)
        await other.gateway.restart()
        await pair.stands_by(other)

        device, device_id = await _provisioned(other, "SN3")
        epoch = (await pair.lease(other))["epoch"]
        async with running(device):
            await device.wait_for_fact("heartbeat")
            began = time.monotonic()
            one.gateway.send(signal.SIGSTOP)
            command = await other.reset(device_id)
            await device.wait_for("unprovisioned")
            await other.becomes(device_id, "executed")
            record_property(MEASURED, f"delivered {time.monotonic() - began:.1f} s after the owner was stopped")
            one.gateway.send(signal.SIGCONT)
            await pair.stands_by(one)
        assert (await pair.lease(other))["epoch"] == epoch + 1
        assert (await pair.lease(other))["held"]
        assert [each["id"] for each in await other.commands(device_id)] == [command["id"]]
        assert device.counts["reset_begun"] == 1
        assert await other.retained() == {}
        assert not one.gateway.logged("ingest.batch_failed")


async def test_a_registry_that_is_away_comes_back(tmp_path: Path, record_property: Measured) -> None:
    """No gateway serves the broker, each says so and accepts nothing; afterwards one serves it, without a restart."""
    with PostgresServer() as server:
        execute(server, "CREATE DATABASE registry")
        async with _pair(tmp_path, server.address("registry")) as pair:
            device, device_id = await _provisioned(pair.one, "SN1")
            async with running(device):
                await device.wait_for_fact("heartbeat")
                server.stop("immediate")
                owner = pair.one.gateway
                await eventually(
                    lambda: owner.logged("lease.lost"), "the owner gives up", guard_seconds=SETTLES_SECONDS
                )
                for site in (pair.one, pair.other):
                    ready, reset = await site.http.get("/ready"), await site.http.post(f"/v1/devices/{device_id}/reset")
                    assert (ready.status_code, reset.status_code) == (503, 503)
                    assert reset.headers["retry-after"]
                sent = device.counts["heartbeat"]
                await device.wait_for_fact("heartbeat", count=sent + 1)  # the broker keeps it for the gateway
                server.start()
                began = time.monotonic()
                served = await _either_serves(pair)
                record_property(MEASURED, f"served again {time.monotonic() - began:.1f} s after the database was back")
                await pair.stands_by(pair.other if served is pair.one else pair.one)
                await _wiped_by(pair.other, device, device_id)


async def _either_serves(pair: Pair) -> Site:
    waits = {asyncio.create_task(pair.serves(site)): site for site in (pair.one, pair.other)}
    done, others = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for each in others:
        each.cancel()
    (first, *_) = done
    first.result()
    return waits[first]


async def test_one_id_is_refused_twice(tmp_path: Path) -> None:
    """The second of them says which one runs and what to change, and ends."""
    where = database(tmp_path)
    async with mosquitto(tmp_path) as broker, _site(tmp_path, "gw_1", where, broker, ""):
        second = tmp_path / "second"
        outcome = await run(
            *(script("gateway"), "serve", "--data-dir", str(second), "--http", "127.0.0.1:0"),
            *("--database", where.url, "--gateway-id", "gw_1", *mosquitto_options(broker)),
        )
        assert (outcome.code, "setting gateway_id" in outcome.err, "Traceback" in outcome.err) == (3, True, False)
