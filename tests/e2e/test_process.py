"""`gateway serve` as a process: how it starts, refuses to start, and stops."""

import asyncio
import os
import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.program import Outcome, run, script, started
from tests.e2e.support import BROKERS, BrokerKind, running, running_site
from tests.support.wait import eventually

STOPS = (signal.SIGTERM, signal.SIGINT)
ANYWHERE = ("--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0")


async def serve(data: Path, *options: str) -> Outcome:
    """Try to start a gateway that cannot start."""
    return await run(script("gateway"), "serve", "--data-dir", str(data), *(options or ANYWHERE))


def is_a_clear_refusal(outcome: Outcome, *words: str, code: int = 1) -> None:
    """One `error:` line with these words, no traceback, nothing on stdout, the exit code of the documentation."""
    assert "Traceback" not in outcome.err, outcome.err
    [line] = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    for word in words:
        assert word in line, f"{word!r} is missing in: {line}"
    assert outcome.code == code
    assert outcome.out == ""


async def test_port_0_is_picked_and_printed(tmp_path: Path) -> None:
    """Two gateways start side by side, each says where it is, and each is there."""
    first, second = (GatewayProcess(tmp_path / name, keep_ports=False) for name in ("one", "two"))
    async with started(first), started(second), httpx.AsyncClient() as client:
        assert first.url != second.url
        assert first.port != second.port
        for gateway in (first, second):
            answer = await client.get(f"{gateway.url}/health")
            assert answer.text == '{"status":"healthy","database":"connected","billing":"disabled"}'
            _, writer = await asyncio.open_connection(gateway.host, gateway.port)
            writer.close()
            await writer.wait_closed()


async def test_the_first_start_prints_how_to_create_a_key(tmp_path: Path) -> None:
    """The hint can be pasted: it names program and data directory. Once a key is there it is gone."""
    gateway = GatewayProcess(tmp_path, keep_ports=False)
    async with started(gateway):
        [hint] = [line for line in gateway.out.splitlines() if line.startswith("Make an API key: ")]
        command = hint.removeprefix("Make an API key: ").replace("NAME", "first")
        made = await run("bash", "-c", command)
        assert made.code == 0, made.err
        key = made.out.strip()
        async with httpx.AsyncClient(base_url=gateway.url, headers={"Authorization": f"Bearer {key}"}) as client:
            assert (await client.get("/v1/devices")).json() == {"data": [], "has_more": False, "next_cursor": None}
        assert await gateway.stop() == 0
        await gateway.restart()
        assert "Make an API key" not in gateway.out


@pytest.mark.parametrize("kind", BROKERS)
@pytest.mark.parametrize("number", STOPS)
async def test_it_stops_with_devices_connected_and_requests_open(
    tmp_path: Path, kind: BrokerKind, number: signal.Signals
) -> None:
    """Exit 0 within 5 s, in spite of devices connected over MQTT, idle HTTP connections and half a request."""
    async with running_site(tmp_path, kind) as site:
        devices = [site.device(f"SN{each}") for each in range(3)]
        for device in devices:
            await device.provision(end_user_id="eu_1")
        address = httpx.URL(site.gateway.url)
        async with running(*devices):
            for device in devices:
                await device.wait_for_fact("heartbeat")
            _, half = await asyncio.open_connection(address.host, address.port)
            half.write(b"POST /v1/devices HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            await half.drain()
            site.gateway.send(number)
            async with asyncio.timeout(5):
                assert await site.gateway.ended() == 0
            half.close()
        assert "Traceback" not in site.gateway.err
        assert site.gateway.logged("gateway.stopped")


@pytest.mark.parametrize("number", STOPS)
async def test_it_stops_while_the_broker_hangs(tmp_path: Path, number: signal.Signals) -> None:
    """A Mosquitto that is stopped in its tracks (SIGSTOP) answers nothing; the gateway ends with 0 within 5 s."""
    async with running_site(tmp_path, "mosquitto") as site:
        with suspended(site.broker.pid):
            site.gateway.send(number)
            async with asyncio.timeout(5):
                assert await site.gateway.ended() == 0
        assert "Traceback" not in site.gateway.err


async def test_it_stops_while_the_broker_is_down(tmp_path: Path) -> None:
    """While it tries to reconnect, too."""
    async with running_site(tmp_path, "mosquitto") as site:
        await site.broker.kill()
        await eventually(lambda: site.gateway.logged("broker.disconnected"), "the gateway has noticed")
        async with asyncio.timeout(5):
            assert await site.gateway.stop() == 0
        assert "Traceback" not in site.gateway.err


@contextmanager
def suspended(pid: int) -> Iterator[None]:
    """SIGSTOP, and SIGCONT at the end, so that it can be ended."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_second_start_on_the_same_data_is_refused(tmp_path: Path) -> None:
    """Exit 3 with the process id of the first, which goes on; once that is gone, however it went, one can start."""
    first = GatewayProcess(tmp_path, keep_ports=False)
    async with started(first):
        second = await serve(first.data)
        is_a_clear_refusal(second, str(first.pid), str(first.data), "--data-dir", code=3)
        assert first.runs
        await first.kill()
        await first.restart()
        assert await first.stop() == 0


@pytest.mark.parametrize(("taken", "free"), [("--http", "--mqtt"), ("--mqtt", "--http")])
async def test_a_port_in_use_is_an_error(tmp_path: Path, taken: str, free: str) -> None:
    """The error names the address, the option and what to do; nothing is left running."""
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        address = f"127.0.0.1:{somebody.getsockname()[1]}"
        outcome = await serve(tmp_path / "data", taken, address, free, "127.0.0.1:0")
    is_a_clear_refusal(outcome, address, f"{taken} HOST:PORT")


async def test_an_unusable_data_directory_is_an_error(tmp_path: Path) -> None:
    """A path below a file: an error that names it and the way out (root may write anywhere else)."""
    (tmp_path / "file").write_text("in the way")
    outcome = await serve(tmp_path / "file" / "data")
    is_a_clear_refusal(outcome, str(tmp_path / "file" / "data"), "--data-dir")


@pytest.mark.damages_registry
async def test_a_file_that_is_no_registry_is_an_error(tmp_path: Path) -> None:
    """A file that is no database is left alone and named."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "gateway.db").write_bytes(b"this is not SQLite" * 1000)
    outcome = await serve(data)
    is_a_clear_refusal(outcome, str(data / "gateway.db"))
    assert (data / "gateway.db").read_bytes().startswith(b"this is not SQLite")


@pytest.mark.damages_registry
async def test_a_damaged_registry_is_an_error(tmp_path: Path) -> None:
    """Pages overwritten in the middle: an error and no traceback, however far the start gets."""
    gateway = GatewayProcess(tmp_path, keep_ports=False)
    async with started(gateway):
        assert await gateway.stop() == 0
    file = gateway.data / "gateway.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        pages = database.execute("PRAGMA page_count").fetchone()[0]
    with file.open("r+b") as raw:
        for page in range(1, pages):
            raw.seek(page * 4096)
            raw.write(b"\xa5" * 4096)
    is_a_clear_refusal(await serve(gateway.data), "gateway.db")


async def test_a_registry_of_a_newer_version_is_refused_unchanged(tmp_path: Path) -> None:
    """What an unknown table holds is still there after a run."""
    gateway = GatewayProcess(tmp_path, keep_ports=False)
    async with started(gateway):
        assert await gateway.stop() == 0
        with closing(sqlite3.connect(gateway.data / "gateway.db")) as database, database:
            database.execute("CREATE TABLE of_tomorrow (fact TEXT)")
            database.execute("INSERT INTO of_tomorrow VALUES ('kept')")
        await gateway.restart()
        assert await gateway.stop() == 0
    with closing(sqlite3.connect(gateway.data / "gateway.db")) as database:
        assert database.execute("SELECT fact FROM of_tomorrow").fetchall() == [("kept",)]


async def test_keys_are_created_and_listed_while_the_gateway_runs(tmp_path: Path) -> None:
    """A new key works at once; the list shows its name and scopes and never the key."""
    async with running_site(tmp_path, "embedded") as site:
        key = site.gateway.new_key("devices:read")
        reader = {"Authorization": f"Bearer {key}"}
        assert (await site.http.get("/v1/devices", headers=reader)).status_code == 200
        refused = await site.http.post("/v1/devices", json={"serial_number": "X"}, headers=reader)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_scope")
        listed = await run(script("gateway"), "keys", "list", "--data-dir", str(site.gateway.data))
        assert "devices:read" in listed.out
        assert key not in listed.out
        assert key[:12] in listed.out


async def test_keys_of_a_missing_registry_are_an_error(tmp_path: Path) -> None:
    """Listing says so and makes nothing; a key without a name is refused."""
    listed = await run(script("gateway"), "keys", "list", "--data-dir", str(tmp_path / "typo"))
    is_a_clear_refusal(listed, str(tmp_path / "typo"), "--data-dir", code=4)
    assert not (tmp_path / "typo").exists()
    nameless = await run(script("gateway"), "keys", "create", "--name", " ", "--data-dir", str(tmp_path / "typo"))
    is_a_clear_refusal(nameless, "--name", code=2)
    assert not (tmp_path / "typo").exists()


async def test_no_secret_is_logged(tmp_path: Path) -> None:
    """Neither keys nor device tokens nor the broker's password stand in what a whole story writes, at debug level."""
    async with running_site(tmp_path, "mosquitto", "--log-level", "debug") as site:
        device = site.device()
        binding = await device.provision(end_user_id="eu_1")
        async with running(device):
            await device.wait_for("online")
            await site.reset(binding.device_id)
            await device.wait_for("unprovisioned")
            await site.becomes(binding.device_id, "executed")
        await site.http.get("/v1/devices", headers={"Authorization": f"Bearer {site.key}x"})
        command = await site.newest(binding.device_id)
        assert await site.gateway.stop() == 0
        said = site.gateway.err + site.gateway.out
    secrets = (
        site.key,
        binding.device_token,
        binding.mqtt_password,
        site.broker.users["gateway"],
        command["grant_token"],
    )
    assert [secret[:12] for secret in secrets if secret in said] == []
