"""The HAProxy of `broker_config/cells` before two of its cells: HTTP by readiness, MQTT by TCP.

The cells run with the settings of the compose file, on one registry on PostgreSQL.
"""

import asyncio
import contextlib
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from device_sim import GatewayApi, MemoryFlash, Options, SimulatedDevice
from gateway.core.postgres_address import PostgresAddress
from gateway.tls.certificates import client_context
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.program import GUARD_SECONDS, Program, clean_environment, started
from tests.e2e.support import running
from tests.e2e.test_cell_files import compose
from tests.e2e.test_container import environment as image_environment
from tests.support import wire
from tests.support.cells import CELLS, NAME, Secrets, own_secrets, program
from tests.support.ports import free_port
from tests.support.postgres import new_database, server, unreachable
from tests.support.wait import eventually

HERE = "127.0.0.1"
HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
"""Of the cells. At the last one nothing listens."""
_MOST_REFUSED, _AT_ONCE = 300, 30
_GIVEN_AS_OPTIONS = {
    *("GATEWAY_DATA_DIR", "GATEWAY_HTTP", "GATEWAY_MQTT", "GATEWAY_MQTT_ADVERTISE", "GATEWAY_ENCRYPTION_KEY_FILE"),
    *("GATEWAY_DATABASE", "GATEWAY_DATABASE_PASSWORD_FILE"),
}
_SESSIONS = re.compile(r'haproxy_server_current_sessions\{proxy="mqtt_of_ready_gateways",server="cell_(\d)"\} (\d+)')
_SERVER = re.compile(r'haproxy_server_status\{proxy="(\w+)",server="(\w+)",state="UP"\} (\d)')


@dataclass
class Ports:
    """Those of the cells, each at its own address, and those of the load balancer."""

    http: int
    mqtt: int
    public_http: int
    public_mqtt: int
    status: int

    @classmethod
    def free(cls) -> "Ports":
        """Ports at which nothing listens."""
        return cls(*(free_port(host) for host in (HOSTS[0], HOSTS[1], HERE, HERE, HERE)))


def haproxy_environment(secrets: Secrets, ports: Ports, hosts: tuple[str, ...] = HOSTS) -> dict[str, str]:
    """What the file reads from the environment."""
    return clean_environment(
        NAME=NAME,
        SECRETS=str(secrets.haproxy),
        CONNECTIONS="500",
        CHECK_EVERY="200ms",
        HTTP_PORT=str(ports.http),
        MQTT_PORT=str(ports.mqtt),
        PUBLIC_HTTP=f"{HERE}:{ports.public_http}",
        PUBLIC_MQTT=f"{HERE}:{ports.public_mqtt}",
        STATUS=f"{HERE}:{ports.status}",
        **{f"CELL_{number}": host for number, host in enumerate(hosts, start=1)},
    )


@dataclass
class Balanced:
    """Two cells behind the load balancer, and a client of that."""

    cells: tuple[GatewayProcess, GatewayProcess]
    secrets: Secrets
    http: httpx.AsyncClient
    api: GatewayApi
    ports: Ports

    async def metrics(self) -> str:
        """What the load balancer says of itself."""
        async with httpx.AsyncClient() as client:
            return (await client.get(f"http://{HERE}:{self.ports.status}/metrics")).text

    async def up(self, backend: str) -> set[str]:
        """The servers of a backend that the load balancer uses."""
        found = _SERVER.findall(await self.metrics())
        return {server for proxy, server, is_up in found if proxy == backend and is_up == "1"}

    async def cell_of_device(self) -> int:
        """The number of the cell that holds the one connection of a device."""
        found = dict(_SESSIONS.findall(await self.metrics()))
        (number,) = [int(number) for number, sessions in found.items() if sessions == "1"]
        return number

    async def uses(self, *servers: str) -> None:
        """Wait until the load balancer sends requests to these gateways alone."""

        async def is_so() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return await self.up("gateways") == set(servers) == await self.up("mqtt_of_ready_gateways")
            return False

        await eventually(is_so, f"the load balancer uses {servers}", guard_seconds=2 * GUARD_SECONDS)

    async def mqtt_answer(self) -> int:
        """What a broker behind the load balancer answers to a client that it does not know."""
        tls = client_context(self.secrets.authority)
        async with wire.Wire.open("localhost", self.ports.public_mqtt, tls=tls) as client:
            return await client.connect("unknown", "unknown", "a-password")


def cell_environment(name: str, secrets: Secrets) -> dict[str, str]:
    """The settings of a cell in the compose file, with files and addresses of this test."""
    given = {**image_environment(), **compose()["services"][name]["environment"]}
    files = {key: value.replace("/run/secrets", str(secrets.gateway)) for key, value in given.items()}
    return clean_environment(**{key: value for key, value in files.items() if key not in _GIVEN_AS_OPTIONS})


@asynccontextmanager
async def balanced(folder: Path, where: PostgresAddress) -> AsyncIterator[Balanced]:
    """Two of the three cells, each with the Mosquitto that it runs, and HAProxy."""
    secrets, ports = own_secrets(folder / "secrets"), Ports.free()
    async with AsyncExitStack() as stack:
        cells = []
        for number, host in enumerate(HOSTS[:2], start=1):
            key_file = str(secrets.gateway / "encryption.key")
            options = ("--database", where.url, "--encryption-key-file", key_file, "--lease-seconds", "2")
            at = ("--http", f"{host}:{ports.http}", "--mqtt", f"{host}:{ports.mqtt}")
            told = ("--mqtt-advertise", f"localhost:{ports.public_mqtt}")
            environment = cell_environment(f"cell-{number}", secrets)
            cell = GatewayProcess(folder / f"cell_{number}", *options, *at, *told, environment=environment)
            cells.append(cell)
        await asyncio.gather(*(stack.enter_async_context(started(each)) for each in cells))
        environment = haproxy_environment(secrets, ports)
        line = (program("haproxy", "haproxy"), "-db", "-f", str(CELLS / "haproxy.cfg"))
        await stack.enter_async_context(started(Program(folder, "haproxy", *line, environment=environment)))
        tls = client_context(secrets.authority)
        key, url = cells[0].new_key(), f"https://localhost:{ports.public_http}"
        headers = {"Authorization": f"Bearer {key}"}
        client = httpx.AsyncClient(base_url=url, headers=headers, verify=tls, timeout=GUARD_SECONDS)
        http = await stack.enter_async_context(client)
        api = await stack.enter_async_context(GatewayApi(url, key, tls=tls))
        yield Balanced((cells[0], cells[1]), secrets, http, api, ports)


async def test_devices_and_requests_go_to_cells_that_are_ready(tmp_path: Path) -> None:
    """Cells begin together on an empty database. A device whose cell stops is served by the other one.

    A database that is away is noticed, and comes back.
    """
    where = new_database(server(), "first_start_of_cells")
    async with balanced(tmp_path, where) as site:
        await site.uses("cell_1", "cell_2")
        options = Options(backoff_first=0.05, backoff_longest=0.5, ca_file=str(site.secrets.authority))
        device = SimulatedDevice(serial="SN1", flash=MemoryFlash(), api=site.api, interval=0.2, options=options)
        binding = await device.provision(end_user_id="eu_1")
        assert (binding.mqtt.host, binding.mqtt.port) == ("localhost", site.ports.public_mqtt)
        async with running(device):
            await device.wait_for_fact("heartbeat")
            left = await site.cell_of_device()
            assert await site.cells[left - 1].stop() == 0
            (other,) = {1, 2} - {left}
            await site.uses(f"cell_{other}")
            answers = [await site.http.get(f"/v1/devices/{binding.device_id}") for _ in range(10)]
            assert {each.status_code for each in answers} == {200}
            assert (await site.http.post(f"/v1/devices/{binding.device_id}/reset")).status_code == httpx.codes.OK
            await device.wait_for("unprovisioned")

            async def executed() -> bool:
                commands = (await site.http.get(f"/v1/devices/{binding.device_id}/commands")).json()["data"]
                return [each["status"] for each in commands] == ["executed"]

            await eventually(executed, "the reset is executed")
        assert device.counts["reset_begun"] == 1

        await site.cells[left - 1].restart()
        await site.uses("cell_1", "cell_2")

        with unreachable(where):
            await site.uses()
            away = await site.http.get("/v1/devices")
            assert (away.status_code, away.headers["retry-after"]) == (503, "5")
            assert away.json()["error"]["code"] == "unavailable"
            assert await site.mqtt_answer() == wire.NOT_AUTHORISED, "a broker answers while no gateway is ready"
        await site.uses("cell_1", "cell_2")

        wrong = {"Authorization": "Bearer sk_live_wrong"}
        for _ in range(0, _MOST_REFUSED, _AT_ONCE):
            refused = [site.http.get("/v1/devices", headers=wrong) for _ in range(_AT_ONCE)]
            assert {each.status_code for each in await asyncio.gather(*refused)} == {401}
        await site.http.get("/v1/devices", headers=wrong)
        assert (await site.http.get("/v1/devices", headers=wrong)).status_code == httpx.codes.TOO_MANY_REQUESTS


def test_a_wrong_file_is_refused(tmp_path: Path) -> None:
    """HAProxy accepts the file as it stands, also with a cell that has no address, and names a line that is wrong."""
    secrets, ports = own_secrets(tmp_path / "secrets"), Ports(1, 2, 3, 4, 5)
    environment = haproxy_environment(secrets, ports, ("cell.invalid", *HOSTS[1:]))
    text = (CELLS / "haproxy.cfg").read_text("utf-8")
    for name, content, code in (("good", text, 0), ("wrong", text.replace("balance leastconn", "balance best"), 1)):
        file = tmp_path / f"{name}.cfg"
        file.write_text(content)
        line = [program("haproxy", "haproxy"), "-c", "-f", str(file)]
        checked = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
        assert checked.returncode == code, checked.stderr
        warned = [each for each in checked.stderr.splitlines() if "[WARNING]" in each and "cell.invalid" not in each]
        assert not warned
