"""`gateway broker init`: a real Mosquitto with TLS starts from what it wrote, a gateway beside it, and a reset goes."""

import asyncio
import getpass
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker_config import local
from device_sim import GatewayApi, MemoryFlash, Options, SimulatedDevice
from gateway.tls.certificates import client_context
from tests.e2e.program import GUARD_SECONDS, Program, run, script, started
from tests.support import wire
from tests.support.certificates import make_authority
from tests.support.ports import free_port
from tests.support.postgres import database
from tests.support.wait import eventually

ME = getpass.getuser()
USAGE = 2


class BrokerInitDeployment:
    """What `gateway broker init` wrote, with both processes running from it."""

    def __init__(self, directory: Path, broker: Program, gateway: Program, written: dict[str, Any]) -> None:
        self.directory = directory
        self.broker = broker
        self.gateway = gateway
        self.url = f"http://{written['http']}"
        self.port: int = written["broker"]["port"]
        self.settings: str = written["settings"]

    async def key(self) -> str:
        """An API key."""
        data = str(self.directory / "data")
        outcome = await run(script("gateway"), "keys", "create", "--name", "e2e", "--json", "--data-dir", data)
        key: str = json.loads(outcome.out)["key"]
        return key

    async def integrator_hears(self, topic: str) -> str:
        """The first message that an integrator gets on this topic."""
        lines = (self.directory / "accounts").read_text().splitlines()
        password = next(line.partition(" ")[2] for line in lines if line.startswith("integrator "))
        tls = client_context(self.directory / "ca.pem")
        tls.check_hostname = False  # the address is this machine's whatever the certificate is made out to
        async with wire.Wire.open("127.0.0.1", self.port, tls=tls) as client:
            assert await client.connect("integrator", "integrator", password) == wire.ACCEPTED
            await client.subscribe(topic)
            return (await client.read_publish()).payload.decode()

    async def doctor(self) -> tuple[int, dict[str, Any]]:
        """Its exit status, and its findings by area and name."""
        outcome = await run(script("gateway"), "doctor", "--json", "--config", self.settings)
        return outcome.code, {f"{each['area']}: {each['name']}": each for each in json.loads(outcome.out)["findings"]}


async def init(directory: Path, *options: str) -> dict[str, Any]:
    """Write the set for processes of this user, on free ports."""
    ports = ("--port", str(free_port()), "--http", f"127.0.0.1:{free_port()}")
    line = ("broker", "init", str(directory), "--user", ME, "--broker-user", ME, "--json", *ports, *options)
    outcome = await run(script("gateway"), *line)
    assert outcome.code == 0, outcome.err
    written: dict[str, Any] = json.loads(outcome.out)
    return written


@asynccontextmanager
async def beside(folder: Path, *options: str) -> AsyncIterator[BrokerInitDeployment]:
    """Write a set and start both, the broker first."""
    directory = folder / "site"
    written = await init(directory, *options)
    config = str(directory / "mosquitto" / "mosquitto.conf")
    broker = Program(folder, "mosquitto", local.binary(), "-c", config)
    gateway = Program(folder, "gateway", script("gateway"), "serve", "--config", written["settings"])
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(started(broker))
        await eventually(lambda: " running" in broker.err or not broker.runs, "Mosquitto is up")
        assert broker.runs, broker.err
        await stack.enter_async_context(started(gateway))
        await gateway.said("is ready")
        yield BrokerInitDeployment(directory, broker, gateway, written)


@pytest.mark.parametrize("prefix", ["", "plant/7/"])
async def test_a_reset_works_with_the_written_files(tmp_path: Path, prefix: str) -> None:
    """TLS by a private authority; the doctor finds nothing wrong; an integrator's account receives the events."""
    async with beside(tmp_path, "--prefix", prefix) as site:
        key = await site.key()
        headers = {"Authorization": f"Bearer {key}"}
        async with (
            httpx.AsyncClient(base_url=site.url, headers=headers, timeout=GUARD_SECONDS) as http,
            GatewayApi(site.url, key) as api,
        ):
            options = Options(ca_file=str(site.directory / "ca.pem"), backoff_first=0.05, backoff_longest=0.5)
            device = SimulatedDevice(serial="SN1", flash=MemoryFlash(), api=api, interval=0.2, options=options)
            binding = await device.provision(end_user_id="eu_1")
            assert (binding.mqtt.tls, binding.mqtt.port) == (True, site.port)
            living = asyncio.create_task(device.run())
            await device.wait_for_fact("heartbeat")
            assert '"online"' in await site.integrator_hears(f"{prefix}gateways/+/status")
            assert (await http.post(f"/v1/devices/{binding.device_id}/reset")).status_code == httpx.codes.OK
            await device.wait_for("unprovisioned")
            living.cancel()

            async def executed() -> bool:
                commands = (await http.get(f"/v1/devices/{binding.device_id}/commands")).json()["data"]
                ready = (await http.get("/ready")).json()
                return [each["status"] for each in commands] == ["executed"] and not ready["outbox"]["depth"]

            await eventually(executed, "the reset is executed")
        _, findings = await site.doctor()
        assert {name for name, each in findings.items() if each["level"] == "error"} == set()
        assert findings["gateway: ready"]["level"] == "ok"
        assert findings["broker: made-up device: publish"]["level"] == "ok"
        assert findings["certificates: broker's certificate"]["level"] == "ok"
        assert await site.gateway.stop() == 0
        assert await site.broker.stop() == 0


async def test_a_cell_works_with_the_written_files(tmp_path: Path) -> None:
    """Mosquitto and gateway start with a registry on PostgreSQL, under the ids that were asked for."""
    where, word = database(tmp_path), tmp_path / "word"
    word.write_text("known-to-the-server\n")
    cell = ("--cell", "cell_1", "--database", where.url, "--database-password-file", str(word))
    async with beside(tmp_path, *cell) as site, httpx.AsyncClient(base_url=site.url) as http:
        ready = (await http.get("/ready")).json()
        assert {each["name"]: each["owner"] for each in ready["leases"]}["broker:cell_1"] == "gw_cell_1"

        async def serves() -> bool:
            return bool((await http.get("/ready")).json()["ready"])

        await eventually(serves, "the gateway is ready")
        assert '"online"' in await site.integrator_hears("gateways/+/status")
        (hint,) = [line for line in site.gateway.out.splitlines() if line.startswith("Make an API key: ")]
        made = await run("sh", "-c", hint.partition(": ")[2])
        assert made.out.startswith("sk_"), made.err
        headers = {"Authorization": f"Bearer {made.out.strip()}"}
        assert (await http.get("/v1/devices", headers=headers)).status_code == httpx.codes.OK


async def test_a_certificate_of_another_authority_is_used(tmp_path: Path) -> None:
    """The operator's chain and key are what the broker shows, and their authority is whom the gateway trusts."""
    authority = make_authority(tmp_path / "ca")
    pair = authority.server("own", ["localhost"])
    files = ("--cert-file", str(pair.certificate), "--key-file", str(pair.key))
    trust = ("--ca-file", str(authority.files.certificate))
    async with (
        beside(tmp_path, "--name", "localhost", *files, *trust) as site,
        httpx.AsyncClient(base_url=site.url) as http,
    ):

        async def ready() -> bool:
            return bool((await http.get("/ready")).json()["ready"])

        await eventually(ready, "the gateway is ready")
        assert '"online"' in await site.integrator_hears("gateways/+/status")


async def test_the_next_steps_are_printed(tmp_path: Path) -> None:
    """For people: what became of each file, where the passwords are (and no password), how both are started."""
    line = (script("gateway"), "broker", "init", str(tmp_path / "site"), "--user", ME, "--broker-user", ME)
    outcome = await run(*line)
    assert outcome.code == 0, outcome.err
    assert "mosquitto/mosquitto.conf" in outcome.out
    assert f"{tmp_path}/site/accounts" in outcome.err
    assert f"gateway doctor --config {tmp_path}/site/gateway/gateway.toml" in outcome.err
    secrets = [each.split(" ")[1] for each in (tmp_path / "site/accounts").read_text().splitlines() if each[0] != "#"]
    assert not [each for each in secrets if each in outcome.out + outcome.err]
    (tmp_path / "site/mosquitto/acl").write_text("user gateway\ntopic readwrite #\n")
    outcome = await run(*line, "--prefix", "plant/")
    assert "changed by you, left alone" in outcome.out
    assert "FILE.new" in outcome.err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it writes for another user")
async def test_an_unreadable_program_for_the_units_user_is_reported(tmp_path: Path) -> None:
    """Called from a directory that only root may enter, as after an installation into root's home."""
    (tmp_path / "closed").mkdir(mode=0o700)
    shutil.copy(script("gateway"), tmp_path / "closed" / "gateway")
    site = ("broker", "init", str(tmp_path / "site"), "--user", "nobody", "--broker-user", "nobody")
    outcome = await run(str(tmp_path / "closed" / "gateway"), *site)
    assert outcome.code == 0, outcome.err
    assert f"device-gateway.service starts {tmp_path}/closed/gateway" in outcome.err
    assert "warning: " in outcome.err
    assert "the user nobody cannot run that" in outcome.err
    written = json.loads((await run(str(tmp_path / "closed" / "gateway"), *site, "--json")).out)
    assert any("cannot run that" in each for each in written["problems"])


async def test_refusals_are_one_line(tmp_path: Path) -> None:
    """Without a traceback, and without a file."""
    options = ("--user", ME, "--broker-user", ME, "--tls", "none", "--host", "0.0.0.0")  # noqa: S104 - it is refused
    outcome = await run(script("gateway"), "broker", "init", str(tmp_path / "site"), *options)
    assert outcome.code == USAGE
    assert "host: other machines would reach it without TLS" in outcome.err
    assert not (tmp_path / "site").exists()
