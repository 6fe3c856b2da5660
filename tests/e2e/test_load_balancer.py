"""The HAProxy of `broker_config/cells` before two gateways of one broker: HTTP by readiness, MQTT by TCP."""

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
from tests.e2e.support import mosquitto_options, running
from tests.support import wire
from tests.support.cells import CELLS, NAME, Secrets, own_secrets, program
from tests.support.mosquitto import INTEGRATOR_PASSWORD, Mosquitto
from tests.support.ports import free_port
from tests.support.postgres import database, unreachable
from tests.support.wait import eventually

HERE = "127.0.0.1"
HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
"""Of the cells. At the last one nothing listens."""
_MOST_REFUSED = 300
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
        HTTP_PORT=str(ports.http),
        MQTT_PORT=str(ports.mqtt),
        PUBLIC_HTTP=f"{HERE}:{ports.public_http}",
        PUBLIC_MQTT=f"{HERE}:{ports.public_mqtt}",
        STATUS=f"{HERE}:{ports.status}",
        **{f"CELL_{number}": host for number, host in enumerate(hosts, start=1)},
    )


@dataclass
class Balanced:
    """Two gateways behind the load balancer, and a client of that."""

    gateways: tuple[GatewayProcess, GatewayProcess]
    http: httpx.AsyncClient
    api: GatewayApi
    ports: Ports

    async def up(self, backend: str) -> set[str]:
        """The servers of a backend that the load balancer uses."""
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"http://{HERE}:{self.ports.status}/metrics")).text
        return {server for proxy, server, is_up in _SERVER.findall(text) if proxy == backend and is_up == "1"}

    async def uses(self, *servers: str) -> None:
        """Wait until the load balancer sends requests to these gateways alone."""

        async def is_so() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return await self.up("gateways") == set(servers) == await self.up("mqtt_of_ready_gateways")
            return False

        await eventually(is_so, f"the load balancer uses {servers}", guard_seconds=2 * GUARD_SECONDS)

    async def mqtt_answer(self) -> int:
        """What the broker behind the load balancer answers to an integrator."""
        async with wire.Wire.open(HERE, self.ports.public_mqtt) as client:
            return await client.connect("integrator", "integrator", INTEGRATOR_PASSWORD)


@asynccontextmanager
async def balanced(folder: Path, where: PostgresAddress) -> AsyncIterator[Balanced]:
    """One Mosquitto that listens at both addresses, two gateways with its lease among them, and HAProxy."""
    secrets, ports = own_secrets(folder / "secrets"), Ports.free()
    listeners = "\n".join(f"listener {ports.mqtt} {host}\nuse_username_as_clientid true" for host in HOSTS[:2])
    chain = str(secrets.gateway / "tls.pem")
    files = ("--http-cert-file", chain, "--http-key-file", f"{chain}.key")
    rates = ("--refused-credentials-per-minute", "0", "--rate-limit-per-minute", "0", "--lease-seconds", "2")
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(folder, settings=listeners))
        gateways = []
        for number, host in enumerate(HOSTS[:2], start=1):
            registry = ("--database", where.url, "--gateway-id", f"gw_{number}", *files, *rates)
            told = ("--http", f"{host}:{ports.http}", "--mqtt-advertise", f"{HERE}:{ports.public_mqtt}")
            gateway = GatewayProcess(folder / f"gw_{number}", *registry, *mosquitto_options(broker), *told)
            await stack.enter_async_context(started(gateway))
            gateways.append(gateway)
        environment = haproxy_environment(secrets, ports)
        line = (program("haproxy", "haproxy"), "-db", "-f", str(CELLS / "haproxy.cfg"))
        await stack.enter_async_context(started(Program(folder, "haproxy", *line, environment=environment)))
        tls = client_context(secrets.authority)
        key, url = gateways[0].new_key(), f"https://localhost:{ports.public_http}"
        headers = {"Authorization": f"Bearer {key}"}
        client = httpx.AsyncClient(base_url=url, headers=headers, verify=tls, timeout=GUARD_SECONDS)
        http = await stack.enter_async_context(client)
        api = await stack.enter_async_context(GatewayApi(url, key, tls=tls))
        yield Balanced((gateways[0], gateways[1]), http, api, ports)


async def test_requests_go_to_gateways_that_are_ready(tmp_path: Path) -> None:
    """A device lives behind it. A gateway that dies, or a database that is away, is noticed, and comes back."""
    where = database(tmp_path)
    async with balanced(tmp_path, where) as site:
        one = site.gateways[0]
        await site.uses("cell_1", "cell_2")
        options = Options(backoff_first=0.05, backoff_longest=0.5)
        device = SimulatedDevice(serial="SN1", flash=MemoryFlash(), api=site.api, interval=0.2, options=options)
        binding = await device.provision(end_user_id="eu_1")
        assert (binding.mqtt.host, binding.mqtt.port) == (HERE, site.ports.public_mqtt)
        async with running(device):
            await device.wait_for_fact("heartbeat")

            await one.kill()
            await site.uses("cell_2")
            answers = [await site.http.get(f"/v1/devices/{binding.device_id}") for _ in range(10)]
            assert {each.status_code for each in answers} == {200}
            assert (await site.http.post(f"/v1/devices/{binding.device_id}/reset")).status_code == httpx.codes.OK
            await device.wait_for("unprovisioned")

        await one.restart()
        await site.uses("cell_1", "cell_2")

        with unreachable(where):
            await site.uses()
            away = await site.http.get("/v1/devices")
            assert (away.status_code, away.headers["retry-after"]) == (503, "5")
            assert away.json()["error"]["code"] == "unavailable"
            assert await site.mqtt_answer() == wire.ACCEPTED, "MQTT goes on while no gateway is ready"
        await site.uses("cell_1", "cell_2")

        wrong = {"Authorization": "Bearer sk_live_wrong"}
        refused = [(await site.http.get("/v1/devices", headers=wrong)).status_code for _ in range(_MOST_REFUSED + 2)]
        assert (refused[0], refused[-1]) == (401, 429)


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
