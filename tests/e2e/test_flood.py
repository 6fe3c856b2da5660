"""Floods: one device, one key, a thousand idle connections. The others are served, memory and log stay bounded."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from device_sim import SimulatedDevice
from tests.e2e.flooding_device import FloodingDevice
from tests.e2e.support import BROKERS, BrokerKind, Site, running, running_site
from tests.support.measured import MEASURED, Measured
from tests.support.wait import eventually

PER_SECOND = 5
FLOOD = 30_000
"""Messages that are offered before the others are looked at, and as many again while they are."""
SAVED = 12_000
"""More than a device may send at once: the 10,000 that it saves, and its pace for the minutes of a flood."""
WAITING = {"mosquitto": 100_000, "embedded": 3_000}
"""What may wait for the gateway: Mosquitto's `max_queued_messages`; one client's share and what a batch holds."""
MIB = 1024
IDLE, PLACES = 1_000, 300
SLOW = b"POST /v1/devices HTTP/1.1\r\nHost: x\r\nX-Slow: "
LINES = 20


def memory_kib(site: Site) -> int:
    """What the gateway has in memory now."""
    status = Path(f"/proc/{site.gateway.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def open_files(site: Site) -> int:
    """How many files and sockets the gateway has open."""
    return len(list(Path(f"/proc/{site.gateway.pid}/fd").iterdir()))


async def figures(site: Site) -> dict[str, float]:
    """What `/metrics` tells, by name and labels."""
    told = (await site.http.get("/metrics")).text
    lines = (line.rpartition(" ") for line in told.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def received(site: Site) -> int:
    """How many messages the gateway has taken from its broker, and stored or refused."""
    told = await figures(site)
    counters = ("gateway_heartbeats_total", 'gateway_refusals_total{code="too_many_messages"}')
    return int(sum(value for name, value in told.items() if name.startswith(counters)))


async def served(site: Site, device: SimulatedDevice) -> float:
    """The other device's heartbeats arrive, and its reset comes to its end; how many seconds that took."""
    assert device.binding
    device_id, seen = device.binding.device_id, site.count("SELECT count(*) FROM heartbeats WHERE device_pk = 2")
    await eventually(
        lambda: site.count("SELECT count(*) FROM heartbeats WHERE device_pk = 2") >= seen + 3, "heartbeats are stored"
    )
    began = time.monotonic()
    await site.reset(device_id)
    await device.wait_for("unprovisioned")
    await site.becomes(device_id, "executed")
    return time.monotonic() - began


@pytest.mark.parametrize("kind", BROKERS)
async def test_a_flooding_device_does_not_slow_others(
    tmp_path: Path, kind: BrokerKind, record_property: Measured
) -> None:
    """It offers over 10,000 messages a second, is warned, and keeps its budget; another device works and is reset.

    Memory levels off, the queue is bounded, and the log reports it without too many lines.
    """
    async with running_site(tmp_path, kind, "--device-messages-per-second", str(PER_SECOND)) as site:
        wild_id = (await site.http.post("/v1/devices", json={"serial_number": "WILD"})).json()["id"]
        password = (await site.post(f"{wild_id}/bind", {"end_user_id": "eu_1"}))["mqtt"]["password"]
        device, wild = site.device(), FloodingDevice(wild_id)
        await device.provision(end_user_id="eu_2")
        async with running(device), wild.floods(site.gateway.host, site.gateway.port, password):
            await wild.offers(FLOOD)
            before, logged = memory_kib(site), len(site.gateway.err.splitlines())
            seconds = await served(site, device)
            behind = max(0, wild.taken - await received(site))
            await wild.offers(FLOOD)
            await eventually(lambda: wild.taken > SAVED, "a slow broker has taken more than the device may send")
            written = len(site.gateway.err.splitlines()) - logged
            grown = memory_kib(site) - before
            record_property(MEASURED, f"{wild}; another one's reset took {seconds * 1000:.0f} ms from call to end")
            record_property(MEASURED, f"{behind} messages waited, memory grew by {grown} KiB, {written} lines of log")
        await eventually(lambda: _all_received(site, wild), "what the broker took has come to the gateway")
        assert grown < 20 * MIB
        assert behind < WAITING[kind]
        assert written < 10 * (wild.seconds + 10)
        assert site.gateway.logged("ingest.over_budget")
        assert site.count("SELECT count(*) FROM heartbeats") < FLOOD
        assert site.count("SELECT count(*) FROM refusals") <= 1_000


async def _all_received(site: Site, wild: FloodingDevice) -> bool:
    return await received(site) >= wild.taken


async def test_a_key_at_its_limit_does_not_slow_others(tmp_path: Path) -> None:
    """It hears when to come again; another key is served."""
    async with running_site(tmp_path, "embedded", "--rate-limit-per-minute", "30") as site:
        other = site.gateway.new_key()
        answers = await asyncio.gather(*(site.http.get("/v1/devices") for _ in range(100)))
        refused = [answer for answer in answers if answer.status_code == httpx.codes.TOO_MANY_REQUESTS]
        assert len(refused) >= 100 - 2 * 30  # the minute may have ended between
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
        served = await site.http.get("/v1/devices", headers={"Authorization": f"Bearer {other}"})
        assert served.status_code == httpx.codes.OK


async def test_credential_guesses_do_not_slow_others(tmp_path: Path) -> None:
    """They hear when to come again, and the log of them is short; a good key at the same address is served."""
    async with running_site(tmp_path, "embedded", "--refused-credentials-per-minute", "30") as site:
        guess = {"Authorization": "Bearer sk_live_0000000000000000000000000000000000"}
        answers = await asyncio.gather(*(site.http.get("/v1/devices", headers=guess) for _ in range(100)))
        limited = [answer for answer in answers if answer.status_code == httpx.codes.TOO_MANY_REQUESTS]
        assert len(limited) >= 100 - 2 * 30  # the minute may have ended between
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in limited)
        assert (await site.http.get("/v1/devices")).status_code == httpx.codes.OK
        assert len(site.gateway.logged("http.request")) <= 2 * 30 + 10
        assert site.gateway.logged("http.credentials_refused")[0]["address"] == "127.0.0.1"


def is_closed(reader: asyncio.StreamReader) -> bool:
    """Whether the server has closed: by a reset, where it had not read all of what was sent."""
    return reader.at_eof() or reader.exception() is not None


@contextlib.asynccontextmanager
async def idlers(site: Site, count: int, beginning: bytes) -> AsyncIterator[list[asyncio.StreamReader]]:
    """So many connections that send this and then nothing more."""
    url = httpx.URL(site.gateway.url)
    opened = [await asyncio.open_connection(url.host, url.port) for _ in range(count)]
    for _, writer in opened:
        with contextlib.suppress(OSError):
            writer.write(beginning)
    try:
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.transport.abort()


async def test_idle_and_slow_connections_do_not_slow_others(tmp_path: Path) -> None:
    """A thousand that say nothing, a thousand that never come to an end: there is a place for who has a request."""
    async with running_site(tmp_path, "embedded", "--http-connections", str(PLACES)) as site:
        async with idlers(site, IDLE, b"") as silent, idlers(site, IDLE, SLOW) as slow:
            async with httpx.AsyncClient(base_url=site.gateway.url) as newcomer:
                assert (await newcomer.get("/health")).status_code == httpx.codes.OK
            assert (await site.http.get("/v1/devices")).status_code == httpx.codes.OK
            everybody, most = silent + slow, 2 * IDLE - PLACES
            await eventually(lambda: sum(map(is_closed, everybody)) >= most, "the others were sent away")
            assert open_files(site) < PLACES + 200
        assert len(site.gateway.logged("http.connections_full")) <= 2
        assert await site.gateway.stop() == 0
        assert "Traceback" not in site.gateway.err


async def test_a_flood_does_not_fill_the_log(tmp_path: Path) -> None:
    """Hundreds of requests of strangers: a bounded number of lines a second, and the next tells what is missing."""
    async with running_site(tmp_path, "embedded", "--log-lines-per-second", str(LINES)) as site:
        for _ in range(10):
            await asyncio.gather(
                *(site.http.get("/v1/devices", headers={"Authorization": "Bearer x"}) for _ in range(50))
            )

        async def told() -> int:
            await site.http.get("/v1/devices")
            return sum(line.get("left_out_before", 0) for line in site.gateway.logged("http.request"))

        left_out = await eventually(told, "a line tells how many were left out")
        written = site.gateway.logged("http.request")
        seconds = {line["timestamp"][:19] for line in written}
        assert len(written) <= 2 * LINES * (len(seconds) + 1)
        assert left_out > 0
