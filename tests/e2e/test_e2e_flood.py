"""Floods: one device, one key, a thousand idle connections. The others are served, memory and log stay bounded."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from e2e_site import BROKERS, BrokerKind, Site, a_site, alive
from support import wire
from support.wait import eventually

PER_SECOND, SAVED_SECONDS = 5, 200
FLOOD = {"mosquitto": 20_000, "embedded": 5_000}
AT_ONCE = 500
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


async def flood(site: Site, device_id: str, token: str) -> None:
    """Heartbeats as fast as the broker takes them, at QoS 1, none of which was sent before."""
    async with wire.Wire.open(site.gateway.host, site.gateway.port) as client:
        assert await client.connect(device_id, device_id, token) == wire.ACCEPTED
        for first in range(0, FLOOD[site.kind], AT_ONCE):
            packets = (
                wire.publish_packet(f"devices/{device_id}/heartbeat", _beat(first + each), packet_id=each + 1)
                for each in range(AT_ONCE)
            )
            await client.send(*packets)
            for _ in range(AT_ONCE):
                await client.read_packet()


def _beat(number: int) -> bytes:
    return json.dumps(
        {"battery_percent": 50, "sent_at": f"2026-11-01T00:{number // 60 % 60:02}:{number % 60:02}.{number:06}Z"}
    ).encode()


@pytest.mark.parametrize("kind", BROKERS)
async def test_one_device_floods(tmp_path: Path, kind: BrokerKind) -> None:
    """It is told so and has its budget; another device lives and is reset meanwhile; memory levels off."""
    async with a_site(tmp_path, kind, "--device-messages-per-second", str(PER_SECOND)) as site:
        wild = (await site.http.post("/v1/devices", json={"serial_number": "WILD"})).json()["id"]
        token = (await site.post(f"{wild}/bind", {"end_user_id": "eu_1"}))["device_token"]
        device = site.device()
        device_id = (await device.provision(end_user_id="eu_2")).device_id
        async with alive(device):
            await flood(site, wild, token)
            before = memory_kib(site)
            flooding = asyncio.create_task(flood(site, wild, token))
            beats = device.counts["heartbeat"]
            await device.wait_for_fact("heartbeat", count=beats + 3)
            await site.reset(device_id)
            await device.wait_for("unprovisioned")
            await site.becomes(device_id, "executed")
            await flooding
        await eventually(lambda: site.gateway.logged("ingest.over_budget"), "the log tells of the flood")
        assert memory_kib(site) - before < 50 * MIB
        assert site.count("SELECT count(*) FROM heartbeats") < FLOOD[kind]
        assert site.count("SELECT count(*) FROM refusals") <= 1_000


async def test_one_key_at_its_limit(tmp_path: Path) -> None:
    """It hears when to come again; another key is served."""
    async with a_site(tmp_path, "embedded", "--rate-limit-per-minute", "30") as site:
        other = await site.gateway.new_key()
        answers = await asyncio.gather(*(site.http.get("/v1/devices") for _ in range(100)))
        refused = [answer for answer in answers if answer.status_code == httpx.codes.TOO_MANY_REQUESTS]
        assert len(refused) >= 100 - 2 * 30  # the minute may have ended between
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
        served = await site.http.get("/v1/devices", headers={"Authorization": f"Bearer {other}"})
        assert served.status_code == httpx.codes.OK


async def test_guesses_from_one_address(tmp_path: Path) -> None:
    """They hear when to come again, and the log of them is short; a good key at the same address is served."""
    async with a_site(tmp_path, "embedded", "--refused-credentials-per-minute", "30") as site:
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


async def test_idle_and_slow_connections(tmp_path: Path) -> None:
    """A thousand that say nothing, a thousand that never come to an end: there is a place for who has a request."""
    async with a_site(tmp_path, "embedded", "--http-connections", str(PLACES)) as site:
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


async def test_the_log_does_not_drown(tmp_path: Path) -> None:
    """Hundreds of requests of strangers: a bounded number of lines a second, and the next tells what is missing."""
    async with a_site(tmp_path, "embedded", "--log-lines-per-second", str(LINES)) as site:
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
