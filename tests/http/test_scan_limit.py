"""Searches and counts of one caller: bounded in number and time, and no other caller waits for them."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import pytest

from gateway.app import running
from gateway.core.addresses import Address
from gateway.http.scan_limit import MAX_OPEN, ScanLimiter
from gateway.running import Running
from gateway.settings.loading import Settings
from gateway.store import Purpose, Tx, View, device_search, key_sql
from gateway.store.readers import THREADS
from tests.http.support import TLS, Api, Json, body, error, serving
from tests.support.wait import eventually

GUARD_SECONDS = 60.0
MANY = 20_000
SEARCH = {"search": "a" * 63 + "b"}
HOSTILE = ("a" * 62 + "b") * 2
"""It has every piece of the search, and costs a comparison the most."""


@pytest.fixture(autouse=True)
async def _guard() -> AsyncIterator[None]:
    """Whatever is waited for here must happen."""
    async with asyncio.timeout(GUARD_SECONDS):
        yield


@asynccontextmanager
async def held(api: Api | Running, threads: int = THREADS[Purpose.SCANS]) -> AsyncIterator[None]:
    """So many threads for scans are busy until the block ends."""
    gate, reached = threading.Event(), threading.Semaphore(0)

    def wait(_: View) -> None:
        reached.release()
        assert gate.wait(GUARD_SECONDS), "nobody opened the gate"

    async with asyncio.TaskGroup() as group:
        for _ in range(threads):
            group.create_task(api.store.read(wait, Purpose.SCANS))
            assert await asyncio.to_thread(reached.acquire, timeout=GUARD_SECONDS)
        try:
            yield
        finally:
            gate.set()


def hostile_devices(tx: Tx, project_id: str) -> None:
    """As many devices with a hostile name."""
    row = ("m", HOSTILE, 1, 1)
    tx.connection.executemany(
        """INSERT INTO devices (id, project_id, serial_number, model, name, created_at, updated_at)
            VALUES (?, ?, ?, ?, ?, ?, ?)""",
        ((f"dev_{number}", project_id, f"SN-{number}", *row) for number in range(MANY)),
    )
    device_search.rebuild(tx)


async def several(ask: Callable[[], Any], number: int) -> list[httpx.Response]:
    """Ask so many times at once."""
    return list(await asyncio.gather(*(ask() for _ in range(number))))


async def test_concurrent_searches_of_a_caller_are_bounded(api: Api) -> None:
    """The next is a 429 that says when to come again; meanwhile all else is answered, and afterwards all of it."""
    await api.registered("BP-1")
    key = api.as_(await api.another_key("devices:read"))
    count = partial(key.get, "/v1/devices/stats")
    search = partial(key.get, "/v1/devices", params={"search": "BP"})
    async with held(api):
        waiting = [asyncio.create_task(ask()) for ask in [search, count] * (MAX_OPEN // 2)]
        await eventually(lambda: api.services.scans.open_of(newest_key(api)) == MAX_OPEN, "as many wait as may")
        for refused in await several(search, 4):
            told = error(refused, 429, "rate_limit_exceeded")
            assert told["details"] == {"limit": MAX_OPEN, "retry_after_seconds": 1}
            assert refused.headers["retry-after"] == "1"
        body(await key.get("/health"), 200)
        body(await key.get("/v1/events"), 200)
        assert not any(task.done() for task in waiting)
    for answer in await asyncio.gather(*waiting):
        body(answer, 200)
    assert {answer.status_code for answer in await several(search, MAX_OPEN)} == {200}


def newest_key(api: Api) -> str:
    """The id of the key that was made last."""
    newest = api.store.read_inline(lambda view: view.value("SELECT max(id) FROM api_keys"))
    return str(newest)


async def test_every_scan_of_many_rows_counts_as_a_search(api: Api) -> None:
    """Deliveries with one status, and streams that go on after an event that is no longer kept; without that none."""
    asked = {"url": "https://example.com/", "events": ["*"]}
    path = f"/v1/webhooks/{body(await api.back_end.post('/v1/webhooks', json=asked), 201)['id']}/deliveries"
    key_id, last = api.key_id, {"Last-Event-ID": "evt_0"}
    async with held(api):
        body(await api.back_end.get(path), 200)
        waiting = [asyncio.create_task(api.back_end.get(path, params={"status": "failed"}))]
        waiting.append(asyncio.create_task(api.back_end.head("/v1/events/stream", headers=last)))
        await eventually(lambda: api.services.scans.open_of(key_id) == len(waiting), "both wait for a thread")
        assert not any(task.done() for task in waiting)
    for answer in await asyncio.gather(*waiting):
        assert answer.status_code == httpx.codes.OK


async def test_callers_do_not_wait_behind_the_queue_of_another(api: Api) -> None:
    """One credential has one thread at a time."""
    await api.registered("BP-1")
    one, other = [api.as_(await api.another_key("devices:read")) for _ in range(2)]
    async with held(api, THREADS[Purpose.SCANS] - 1):
        waiting = [asyncio.create_task(one.get("/v1/devices", params={"search": "BP"})) for _ in range(MAX_OPEN)]
        body(await other.get("/v1/devices", params={"search": "BP"}), 200)
    for answer in await asyncio.gather(*waiting):
        body(answer, 200)


async def test_a_search_beyond_its_deadline_is_aborted(tmp_path: Path) -> None:
    """503 with the remedy, and its thread serves the next; a search that waits for too long is given up, too."""
    async with serving(tmp_path, scans=ScanLimiter(seconds=0.01)) as api:
        await api.store.write(lambda tx: hostile_devices(tx, api.project_id))
        for _ in range(THREADS[Purpose.SCANS] + 1):
            answer = await api.back_end.get("/v1/devices", params=SEARCH)
            told = error(answer, 503, "service_unavailable")
            assert "longer than 0.01 s" in told["message"]
            assert told["details"] == {"deadline_seconds": 0.01}
            assert answer.headers["retry-after"]
        async with held(api):
            error(await api.back_end.get("/v1/devices/stats"), 503, "service_unavailable")
        api.services.scans.seconds = GUARD_SECONDS
        body(await api.back_end.get("/v1/devices", params={"search": "SN-1"}), 200)
        assert api.store.trouble is None


@asynccontextmanager
async def whole_gateway(folder: Path) -> AsyncIterator[Running]:
    """A gateway with its own broker, on ports that the kernel picks."""
    anywhere = Address("127.0.0.1", 0)
    async with running(Settings(data_dir=folder, http=anywhere, mqtt=anywhere)) as site:
        yield site


async def test_searches_do_not_delay_logins_and_revocations(tmp_path: Path) -> None:
    """Twelve searches hang; a device connects, is unbound and loses its session; health and the device are answered."""
    async with whole_gateway(tmp_path) as site, AsyncExitStack() as stack:
        _, secret = await site.store.write(lambda tx: key_sql.create(tx, site.registry.project_id, "back end"))
        _, other = await site.store.write(
            lambda tx: key_sql.create(tx, site.registry.project_id, "ro", scopes=("devices:read",))
        )
        back_end, reader = [await stack.enter_async_context(client(site.http.url, key)) for key in (secret, other)]
        device = body(await back_end.post("/v1/devices", json={"serial_number": "BP-1"}), 201)
        path = f"/v1/devices/{device['id']}"
        async with held(site):
            search = partial(reader.get, "/v1/devices", params=SEARCH)
            searches = [asyncio.create_task(search()) for _ in range(12)]
            await eventually(lambda: sum(task.done() for task in searches) >= 12 - MAX_OPEN, "some are refused")
            bound = body(await back_end.post(f"{path}/bind", json={"end_user_id": "eu_1"}), 200)
            async with connected(bound) as cut:
                body(await back_end.post(f"{path}/unbind"), 200)
                await cut
            body(await back_end.get("/health"), 200)
            body(await back_end.get(f"{path}/commands"), 200)
        statuses = Counter(answer.status_code for answer in await asyncio.gather(*searches))
        assert statuses[429] == 12 - MAX_OPEN
        assert statuses.keys() <= {200, 429, 503}  # given up where all this took longer than a search may


def client(url: str, key: str) -> httpx.AsyncClient:
    """A client with this key."""
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=GUARD_SECONDS, verify=TLS)


@asynccontextmanager
async def connected(bound: Json) -> AsyncIterator[asyncio.Task[None]]:
    """A device at the broker; the task ends when the broker has closed its connection."""
    mqtt = bound["mqtt"]
    device = aiomqtt.Client(
        mqtt["host"],
        mqtt["port"],
        identifier=mqtt["client_id"],
        username=mqtt["username"],
        password=mqtt["password"],
    )

    async def until_cut() -> None:
        with pytest.raises(aiomqtt.MqttError):
            async for _ in device.messages:
                pass

    with suppress(aiomqtt.MqttError):
        async with device:
            yield asyncio.create_task(until_cut())
