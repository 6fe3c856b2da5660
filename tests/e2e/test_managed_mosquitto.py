"""`gateway serve --broker mosquitto`: one command gives a real broker, which the gateway looks after."""

import asyncio
import json
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from device_sim import GatewayApi, MemoryFlash, Options, SimulatedDevice
from gateway.broker.mosquitto.orphan import find_orphan
from gateway.tls.ca import Authority
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.program import GUARD_SECONDS, clean_environment, run, script, started
from tests.support import wire
from tests.support.certificates import make_authority, restrict_to_cbc, server_pair, trusting_context
from tests.support.mosquitto import Mosquitto
from tests.support.wait import eventually

Json = dict[str, Any]


@dataclass
class ManagedGateway:
    """A gateway with its own Mosquitto, a client of its API, and the authority of its certificate, if it has one."""

    gateway: GatewayProcess
    http: httpx.AsyncClient
    key: str
    authority: Authority | None

    @property
    def config(self) -> Path:
        """What its Mosquitto is started with."""
        return (self.gateway.data / "mosquitto" / "mosquitto.conf").resolve()

    @property
    def pid(self) -> int:
        """The process of its Mosquitto."""
        (pid,) = find_orphan(self.config)
        return pid

    async def bound(self, serial: str = "SN1") -> Json:
        """Register and bind a device; the answer to the bind."""
        device = (await self.http.post("/v1/devices", json={"serial_number": serial})).json()
        answer = await self.http.post(f"/v1/devices/{device['id']}/bind", json={"end_user_id": "eu_1"})
        assert answer.status_code == httpx.codes.OK, answer.text
        bound: Json = answer.json()
        return bound

    async def answer(self, bound: Json) -> int:
        """What the broker says to this device."""
        async with self.wire() as client:
            return await client.connect(bound["id"], bound["id"], bound["mqtt"]["password"])

    @asynccontextmanager
    async def wire(self) -> AsyncIterator[wire.Wire]:
        """A connection to the broker."""
        tls = trusting_context(self.authority) if self.authority else None
        async with wire.Wire.open(self.gateway.host, self.gateway.port, tls=tls) as client:
            yield client

    async def ready(self) -> Json:
        """What `/ready` says."""
        report: Json = (await self.http.get("/ready")).json()
        return report

    async def settled(self) -> Json:
        """Wait until it is ready and nothing is due."""

        async def done() -> Json | None:
            report = await self.ready()
            return report if report["ready"] and not report["outbox"]["depth"] else None

        report: Json | None = await eventually(done, "the gateway is ready", guard_seconds=GUARD_SECONDS)
        assert report
        return report


@asynccontextmanager
async def own(folder: Path, *, tls: bool = False) -> AsyncIterator[ManagedGateway]:
    """Run one."""
    options = ["--broker", "mosquitto", "--rate-limit-per-minute", "0"]
    authority = make_authority(folder / "tls") if tls else None
    if authority:
        pair = server_pair(authority)
        options += ["--mqtt-cert-file", str(pair.certificate), "--mqtt-key-file", str(pair.key)]
    gateway = GatewayProcess(folder / "gateway", *options)
    config = gateway.data.resolve() / "mosquitto" / "mosquitto.conf"
    try:
        async with started(gateway):
            key = gateway.new_key()
            headers = {"Authorization": f"Bearer {key}"}
            async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=GUARD_SECONDS) as http:
                site = ManagedGateway(gateway, http, key, authority)
                await site.settled()
                yield site
    finally:
        for pid in find_orphan(config):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_reset_works_over_the_managed_broker(tmp_path: Path, tls: bool) -> None:  # noqa: FBT001
    """One command: a device is bound, lives and is reset by a real Mosquitto; SIGTERM ends both, the broker last."""
    async with own(tmp_path, tls=tls) as site:
        scheme = "mqtts" if tls else "mqtt"
        assert f"MQTT  {scheme}://127.0.0.1:{site.gateway.port} (Mosquitto of its own)" in site.gateway.out
        report = await site.settled()
        assert report["broker"] | {"mqtt_version": "5"} == {
            "kind": "mosquitto",
            "connected": True,
            "reconciled": True,
            "mqtt_version": "5",
            "error": None,
        }
        async with GatewayApi(site.gateway.url, site.key) as api:
            ca_file = str(site.authority.files.certificate) if site.authority else None
            device = SimulatedDevice(
                serial="SN1", flash=MemoryFlash(), api=api, interval=0.2, options=Options(ca_file=ca_file)
            )
            binding = await device.provision(end_user_id="eu_1")
            assert binding.mqtt.tls == tls
            if site.authority:
                cbc = restrict_to_cbc(trusting_context(site.authority))
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await asyncio.open_connection("127.0.0.1", site.gateway.port, ssl=cbc)
            living = asyncio.create_task(device.run())
            await device.wait_for_fact("heartbeat")
            assert (await site.http.post(f"/v1/devices/{binding.device_id}/reset")).status_code == httpx.codes.OK
            await device.wait_for("unprovisioned")
            living.cancel()

        async def executed() -> bool:
            commands = (await site.http.get(f"/v1/devices/{binding.device_id}/commands")).json()["data"]
            return [each["status"] for each in commands] == ["executed"]

        await eventually(executed, "the reset is executed")
        pid = site.pid
        assert os.getsid(pid) == pid, "Ctrl-C on a terminal must reach the gateway alone"
        assert await site.gateway.stop() == 0
        assert find_orphan(site.config) == []
    order = [json.loads(line)["event"] for line in site.gateway.err.splitlines() if line.startswith("{")]
    assert order[-2:] == ["broker.stopped", "gateway.stopped"]
    assert "mosquitto.log" in order


async def test_a_broker_that_exits_is_restarted(tmp_path: Path) -> None:
    """The end is logged, and the broker restarts with current accounts: a token revoked meanwhile is refused."""
    async with own(tmp_path) as site:
        kept, revoked = await site.bound("SN1"), await site.bound("SN2")
        before = site.pid
        os.kill(before, signal.SIGKILL)
        answer = await site.http.post(f"/v1/devices/{revoked['id']}/unbind")
        assert answer.status_code == httpx.codes.OK
        await eventually(lambda: len(site.gateway.logged("broker.started")) == 2, "it was started again")
        assert "was ended by SIGKILL" in site.gateway.logged("broker.ended")[0]["reason"]
        await site.settled()
        assert site.pid != before
        assert await site.answer(kept) == wire.ACCEPTED
        assert await site.answer(revoked) == wire.NOT_AUTHORISED


async def test_the_orphaned_broker_of_a_killed_gateway_is_replaced(tmp_path: Path) -> None:
    """`kill -9`: its Mosquitto goes on alone; the next start ends it, runs its own, and gets what devices said."""
    async with own(tmp_path) as site:
        bound = await site.bound()
        before = site.pid
        await site.gateway.kill()
        assert find_orphan(site.config) == [before], "the broker goes on without the gateway"
        async with site.wire() as client:
            assert await client.connect(bound["id"], bound["id"], bound["mqtt"]["password"]) == wire.ACCEPTED
            await client.publish(f"devices/{bound['id']}/heartbeat", b'{"battery_percent": 41}')
        await site.gateway.restart()
        assert site.pid != before
        assert [each["pid"] for each in site.gateway.logged("broker.orphan_found")] == [before]

        async def stored() -> bool:
            return bool((await site.http.get(f"/v1/devices/{bound['id']}")).json()["battery_percent"] == 41)

        await eventually(stored, "what was said while the gateway was away is stored")
        assert await site.answer(bound) == wire.ACCEPTED


async def _serial_shown(site: ManagedGateway) -> str:
    assert site.authority
    _, writer = await asyncio.open_connection(
        site.gateway.host, site.gateway.port, ssl=trusting_context(site.authority)
    )
    serial: str = writer.get_extra_info("peercert")["serialNumber"]
    writer.transport.abort()
    return serial


async def test_a_renewed_certificate_is_loaded(tmp_path: Path) -> None:
    """Mosquitto shows the new one to new clients, keeps those who are there, and the gateway still knows its broker.

    A broken renewal changes nothing, also when the broker is signalled for another reason.
    """
    async with own(tmp_path, tls=True) as site:
        bound, first = await site.bound(), await _serial_shown(site)
        assert site.authority
        chain = site.authority.directory / "server.pem"
        async with site.wire() as client:
            assert await client.connect(bound["id"], bound["id"], bound["mqtt"]["password"]) == wire.ACCEPTED
            chain.write_text("-----BEGIN CERTIFICATE-----\ncut off")
            site.gateway.send(signal.SIGHUP)
            await eventually(lambda: site.gateway.logged("certificate.not_taken_up"), "it was refused")
            await site.bound("SN2")
            assert await _serial_shown(site) == first
            server_pair(site.authority)
            site.gateway.send(signal.SIGHUP)
            await eventually(lambda: site.gateway.logged("certificate.taken_up"), "it was taken up")

            async def shown() -> bool:
                return await _serial_shown(site) != first

            await eventually(shown, "new clients are shown the new one")
            await client.ping()
        os.kill(site.pid, signal.SIGKILL)
        await eventually(lambda: len(site.gateway.logged("broker.connected")) == 2, "the gateway is back")
        assert (await site.settled())["certificates"][0]["error"] is None


async def test_doctor_checks_the_managed_broker(tmp_path: Path) -> None:
    """A healthy one is healthy to the doctor, who finds it by the data directory alone."""
    async with own(tmp_path, tls=True) as site:
        options = (*site.gateway.options, "--data-dir", str(site.gateway.data))
        outcome = await run(script("gateway"), "doctor", "--json", *options)
        findings = {f"{each['area']}: {each['name']}": each for each in json.loads(outcome.out)["findings"]}
        assert {name for name, each in findings.items() if each["level"] == "error"} == set()
        assert findings["limits: open files of Mosquitto"]["level"] == "ok"
        assert findings["broker: made-up device: read"]["level"] == "ok"
        assert findings["retained commands: comparison"]["level"] == "ok"


def _program(folder: Path, text: str) -> dict[str, str]:
    """An environment in which `mosquitto` is this shell script."""
    file = folder / "bin" / "mosquitto"
    file.parent.mkdir()
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return clean_environment(PATH=f"{file.parent}:{os.environ['PATH']}")


OLD = "echo 'mosquitto version 1.6.9'"
BROKEN = "case $1 in -h) echo 'mosquitto version 2.0.99';; *) echo 'Error: it is broken'; exit 3;; esac"


@pytest.mark.parametrize(("program", "why"), [(OLD, "is 1.6, and 2.0 or newer is needed"), (BROKEN, "it is broken")])
async def test_auto_selects_the_embedded_broker_otherwise(tmp_path: Path, program: str, why: str) -> None:
    """An old Mosquitto, or one that does not start: it says which and why. Asked for by name it is an error."""
    environment = _program(tmp_path, program)
    gateway = GatewayProcess(tmp_path / "auto", "--broker", "auto", environment=environment)
    async with started(gateway):
        assert "(embedded broker)" in gateway.out
        (chosen,) = gateway.logged("broker.chosen")
        assert (chosen["broker"], chosen["level"]) == ("embedded", "warning")
        assert why in chosen["why"]
        assert "kind embedded" in (gateway.data / "gateway.url").read_text().splitlines()
    options = ("--data-dir", str(tmp_path / "data"), "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0")
    outcome = await run(script("gateway"), "serve", "--broker", "mosquitto", *options, environment=environment)
    assert (outcome.code, why in outcome.err) == (1, True), outcome.err


async def test_auto_selects_mosquitto_if_available(tmp_path: Path) -> None:
    """Here it is installed, so that is what runs."""
    gateway = GatewayProcess(tmp_path, "--broker", "auto")
    async with started(gateway):
        assert "(Mosquitto of its own)" in gateway.out
        (chosen,) = gateway.logged("broker.chosen")
        assert chosen["broker"] == "mosquitto"
        assert await gateway.stop() == 0


async def test_an_address_in_use_is_an_error(tmp_path: Path) -> None:
    """It is said in a line, with what to do; the program ends with 1."""
    async with Mosquitto(tmp_path) as other:
        where = ("--data-dir", str(tmp_path / "data"), "--http", "127.0.0.1:0", "--mqtt", f"{other.host}:{other.port}")
        outcome = await run(script("gateway"), "serve", "--broker", "mosquitto", *where)
    assert outcome.code == 1
    assert "Mosquitto cannot listen (Address already in use). Stop what does, or choose another" in outcome.err


async def test_each_integrator_has_an_account_of_its_own(tmp_path: Path) -> None:
    """Made by one command while it serves: two programs read the fleet at once, and nothing but what they may."""
    async with own(tmp_path) as site, AsyncExitStack() as stack:
        bound = await site.bound()
        of = f"projects/{bound['project_id']}/devices"
        for name, options in {"integrator_wall": ("--all-projects",), "integrator_door": ()}.items():
            state = f"{of if not options else 'devices'}/{bound['id']}/state"
            where = ("--broker", "mosquitto", "--data-dir", str(site.gateway.data))
            made = await run(script("gateway"), "accounts", "create", name, *options, *where)
            assert (made.code, made.err.count("ACL")) == (0, 0), made.err
            client = await eventually(partial(_is_accepted, site, stack, name, made.out.strip()), f"{name} is let in")
            assert client
            await client.subscribe("devices/+/commands/+", "devices/+/state", "gateways/+/status", f"{of}/+/state")
            heard: set[str] = set()
            while state not in heard:
                heard.add((await client.read_publish()).topic)
            assert {topic for topic in heard if not topic.startswith("gateways/")} == {state}


async def _is_accepted(site: ManagedGateway, stack: AsyncExitStack, name: str, password: str) -> wire.Wire | None:
    client = await stack.enter_async_context(site.wire())
    return client if await client.connect(name, name, password) == wire.ACCEPTED else None


def _owner_of(pid: int) -> set[int]:
    """The users of a process: real, effective, saved, and for files."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {int(each) for line in lines if line.startswith("Uid:") for each in line.split()[1:]}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to drop")
async def test_started_by_root_it_drops_privileges(tmp_path: Path) -> None:
    """Below folders of root alone it reads its files again, saves, and finds what it saved as root before."""
    gateway = GatewayProcess(tmp_path, "--broker", "mosquitto")
    left = gateway.data / "mosquitto" / "persistence" / "mosquitto.db"
    left.parent.mkdir(parents=True, mode=0o700)
    gateway.data.chmod(0o700)
    async with started(gateway):
        site = ManagedGateway(gateway, httpx.AsyncClient(base_url=gateway.url), gateway.new_key(), None)
        site.http.headers["Authorization"] = f"Bearer {site.key}"
        async with site.http:
            assert 0 not in _owner_of(site.pid)
            bound = await site.bound()
            assert await site.answer(bound) == wire.ACCEPTED, "it has read the password file again"
            assert await gateway.stop() == 0
            os.chown(left, 0, 0)
            await gateway.restart()
            assert 0 not in _owner_of(site.pid)
            assert await site.answer(bound) == wire.ACCEPTED
            assert await gateway.stop() == 0
    assert left.stat().st_uid != 0, "it was given away, and saved again"
    assert {each.stat().st_uid for each in left.parents[1].iterdir() if each.is_file()} == {0, left.stat().st_uid}
    readable_by_all = {each.name for each in left.parents[1].iterdir() if each.stat().st_mode & 0o007}
    assert readable_by_all == {"mosquitto.pid"}
