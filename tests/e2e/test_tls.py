"""TLS everywhere: HTTPS, MQTTS, the link to a broker, certificates of devices, renewal; with `gateway serve`."""

import asyncio
import json
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from device_sim import GatewayApi, MemoryFlash, Options, SimulatedDevice
from gateway.tls.ca import Pair
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.program import clean_environment, run, script, started
from tests.e2e.support import running
from tests.support import wire
from tests.support.certificates import expired, make_authority, restrict_to_cbc, server_pair, trusting_context
from tests.support.mosquitto import GATEWAY_PASSWORD, Mosquitto
from tests.support.wait import eventually

Json = dict[str, Any]


class TlsGateway:
    """A gateway that shows a certificate of this authority on both listeners."""

    def __init__(self, folder: Path, *, client_certificates: bool = False) -> None:
        self.authority = make_authority(folder / "tls")
        self.pair = server_pair(self.authority)
        self.options = _files("http", self.pair) + _files("mqtt", self.pair)
        if client_certificates:
            authority = str(self.authority.files.certificate)
            self.options += ["--http-client-ca-file", authority, "--mqtt-client-ca-file", authority]
        self.gateway = GatewayProcess(folder / "gateway", *self.options)
        self.key = ""

    @property
    def ca_file(self) -> str:
        """Whom clients trust."""
        return str(self.authority.files.certificate)

    def client(self, pair: Pair | None = None, bearer: str | None = None) -> httpx.AsyncClient:
        """HTTPS as another machine speaks it."""
        headers = {"Authorization": f"Bearer {bearer or self.key}"}
        return httpx.AsyncClient(
            base_url=self.gateway.url, headers=headers, verify=trusting_context(self.authority, pair)
        )

    async def bound(self, serial: str) -> Json:
        """Register and bind a device; the answer to the bind."""
        async with self.client() as client:
            device = (await client.post("/v1/devices", json={"serial_number": serial})).json()
            answer = await client.post(f"/v1/devices/{device['id']}/bind", json={"end_user_id": "eu_1"})
            assert answer.status_code == httpx.codes.OK, answer.text
            bound: Json = answer.json()
            return bound

    async def ready(self) -> Json:
        """What `/ready` says."""
        async with self.client() as client:
            report: Json = (await client.get("/ready")).json()
            return report

    async def serial_shown(self) -> str:
        """The serial number of the certificate that a new client is shown by the broker."""
        _, writer = await asyncio.open_connection(
            self.gateway.host, self.gateway.port, ssl=trusting_context(self.authority)
        )
        serial: str = writer.get_extra_info("peercert")["serialNumber"]
        writer.transport.abort()
        return serial


def _files(listener: str, pair: Pair) -> list[str]:
    return [f"--{listener}-cert-file", str(pair.certificate), f"--{listener}-key-file", str(pair.key)]


@asynccontextmanager
async def secured(folder: Path, *, client_certificates: bool = False) -> AsyncIterator[TlsGateway]:
    """Run one, with an API key for it."""
    site = TlsGateway(folder, client_certificates=client_certificates)
    async with started(site.gateway):
        site.key = site.gateway.new_key()

        async def is_ready() -> bool:
            return bool((await site.ready())["ready"])

        await eventually(is_ready, "the gateway is ready")
        yield site


def _device(site: TlsGateway, api: GatewayApi, serial: str, **options: Any) -> SimulatedDevice:
    return SimulatedDevice(
        serial=serial,
        flash=MemoryFlash(),
        api=api,
        interval=0.2,
        options=Options(ca_file=site.ca_file, backoff_first=0.05, backoff_longest=0.5, **options),
    )


async def test_a_reset_works_over_https_and_mqtts(tmp_path: Path) -> None:
    """Nothing in a device's life needs a listener without TLS; devices receive the addresses with TLS."""
    async with secured(tmp_path) as site, site.client() as client:
        assert site.gateway.url.startswith("https://")
        assert f"mqtts://127.0.0.1:{site.gateway.port}" in site.gateway.out
        for path in ("/", "/health", "/v1/nowhere"):
            assert (await client.get(path)).headers["strict-transport-security"] == "max-age=31536000"
        async with GatewayApi(site.gateway.url, site.key, tls=trusting_context(site.authority)) as api:
            device = _device(site, api, "SN1")
            binding = await device.provision(end_user_id="eu_1")
            assert binding.mqtt.tls
            async with running(device):
                await device.wait_for_fact("heartbeat")
                answer = await client.post(f"/v1/devices/{binding.device_id}/reset")
                assert answer.status_code == httpx.codes.OK
                await device.wait_for("unprovisioned")

            async def executed() -> bool:
                commands = (await client.get(f"/v1/devices/{binding.device_id}/commands")).json()["data"]
                return [each["status"] for each in commands] == ["executed"]

            await eventually(executed, "the reset is executed")


async def test_plain_text_clients_are_refused(tmp_path: Path) -> None:
    """Plain HTTP and plain MQTT get nothing; who trusts another authority does not go on; TLS before 1.2 is refused."""
    async with secured(tmp_path) as site:
        host, port = site.gateway.host, site.gateway.port
        bound = await site.bound("SN1")
        async with wire.Wire.open(host, port) as client:
            assert await client.connect(bound["id"], bound["id"], bound["mqtt"]["password"]) == wire.CLOSED
        with pytest.raises(httpx.TransportError):
            async with httpx.AsyncClient() as client:
                await client.get(site.gateway.url.replace("https", "http") + "/health")
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(host, port, ssl=trusting_context(make_authority(tmp_path / "other")))
        old = trusting_context(site.authority)
        with pytest.warns(DeprecationWarning, match="deprecated"):
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(host, port, ssl=old)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(host, port, ssl=restrict_to_cbc(trusting_context(site.authority)))
        assert (await site.ready())["ready"]


async def test_the_gateways_own_listener_accepts_no_device(tmp_path: Path) -> None:
    """The listener without TLS, which the gateway uses, is on loopback, and a good token opens nothing there."""
    async with secured(tmp_path) as site:
        bound = await site.bound("SN1")
        lines = (site.gateway.data / "gateway.url").read_text().splitlines()
        host, _, port = next(line for line in lines if line.startswith("inner ")).removeprefix("inner ").partition(":")
        assert host == "127.0.0.1"
        async with wire.Wire.open(host, int(port)) as client:
            answer = await client.connect(bound["id"], bound["id"], bound["mqtt"]["password"])
            assert answer == wire.NOT_AUTHORISED
        async with wire.Wire.open(site.gateway.host, site.gateway.port, tls=trusting_context(site.authority)) as client:
            assert await client.connect(bound["id"], bound["id"], bound["mqtt"]["password"]) == wire.ACCEPTED


async def test_device_certificates_are_required_and_checked(tmp_path: Path) -> None:
    """Over both, a device needs its token and the certificate made out to its id; the one alone opens nothing."""
    async with secured(tmp_path, client_certificates=True) as site:
        bound, other = await site.bound("SN1"), await site.bound("SN2")
        own, foreign = site.authority.client(bound["id"]), site.authority.client(other["id"])
        answers = {}
        for name, pair in (("none", None), ("foreign", foreign), ("own", own)):
            answers[name] = await _mqtt_and_http(site, bound, pair)
        assert answers == {
            "none": (wire.CLOSED, httpx.codes.UNAUTHORIZED),
            "foreign": (wire.NOT_AUTHORISED, httpx.codes.UNAUTHORIZED),
            "own": (wire.ACCEPTED, httpx.codes.OK),
        }
        async with site.client(foreign, "dtok_" + "x" * 43) as client:
            assert (await client.post("/v1/devices/me/heartbeat", json={})).status_code == httpx.codes.UNAUTHORIZED


async def _mqtt_and_http(site: TlsGateway, bound: Json, pair: Pair | None) -> tuple[int, int]:
    async with site.client(pair, bound["device_token"]) as client:
        status = (await client.post("/v1/devices/me/heartbeat", json={})).status_code
    tls = trusting_context(site.authority, pair)
    try:
        async with wire.Wire.open(site.gateway.host, site.gateway.port, tls=tls) as broker:
            return await broker.connect(bound["id"], bound["id"], bound["mqtt"]["password"]), status
    except (ssl.SSLError, ConnectionError):
        return wire.CLOSED, status


async def test_a_simulated_device_presents_its_certificate(tmp_path: Path) -> None:
    """`device-sim run --cert-file --key-file` lives where devices are asked for one."""
    async with secured(tmp_path, client_certificates=True) as site, site.client() as client:
        device_id = (await client.post("/v1/devices", json={"serial_number": "SN1"})).json()["id"]
        pair = site.authority.client(device_id)
        line = ("run", "--url", site.gateway.url, "--key", site.key, "--serial", "SN1", "--ca-file", site.ca_file)
        files = ("--cert-file", str(pair.certificate), "--key-file", str(pair.key))
        living = asyncio.create_task(run(script("device-sim"), *line, *files, "--interval", "0.2", "--until-reset"))

        async def online() -> bool:
            return bool((await client.get(f"/v1/devices/{device_id}")).json()["connection"] == "online")

        await eventually(online, "the device is online")
        await client.post(f"/v1/devices/{device_id}/reset")
        assert (await living).code == 0


async def test_a_renewed_certificate_is_loaded(tmp_path: Path) -> None:
    """New clients get the new one, those who are connected stay; after SIGHUP at once."""
    async with secured(tmp_path) as site:
        bound = await site.bound("SN1")
        tls = trusting_context(site.authority)
        async with wire.Wire.open(site.gateway.host, site.gateway.port, tls=tls) as client:
            assert await client.connect(bound["id"], bound["id"], bound["mqtt"]["password"]) == wire.ACCEPTED
            before = await site.serial_shown()
            server_pair(site.authority)
            site.gateway.send(signal.SIGHUP)
            await eventually(lambda: len(site.gateway.logged("certificate.taken_up")) == 2, "both were taken up")
            assert await site.serial_shown() != before
            await client.ping()
        assert (await site.ready())["ready"]


async def test_a_broken_renewal_changes_nothing(tmp_path: Path) -> None:
    """The certificate that works stays, and log and /ready say which file is wrong; a good one heals it."""
    async with secured(tmp_path) as site:
        before = await site.serial_shown()
        site.pair.certificate.write_text("-----BEGIN CERTIFICATE-----\ncut off")
        site.gateway.send(signal.SIGHUP)
        await eventually(lambda: len(site.gateway.logged("certificate.not_taken_up")) == 2, "both were refused")
        report = await site.ready()
        assert report["ready"], "it serves as well as before"
        assert {each["listener"] for each in report["certificates"]} == {"http", "mqtt"}
        assert all(str(site.pair.certificate) in each["error"] for each in report["certificates"])
        assert await site.serial_shown() == before
        outcome = await run(script("gateway"), "doctor", "--data-dir", str(site.gateway.data), *site.options)
        assert outcome.code == 7
        assert str(site.pair.certificate) in outcome.out
        server_pair(site.authority)
        site.gateway.send(signal.SIGHUP)
        await eventually(lambda: len(site.gateway.logged("certificate.taken_up")) == 2, "both were taken up")
        assert [each["error"] for each in (await site.ready())["certificates"]] == [None, None]


async def test_an_expired_certificate_is_reported(tmp_path: Path) -> None:
    """`/ready` is not, and the doctor names the file, although the listener still shows it."""
    async with secured(tmp_path) as site:
        expired(site.authority, site.pair)
        site.gateway.send(signal.SIGHUP)
        await eventually(lambda: len(site.gateway.logged("certificate.taken_up")) == 2, "both were taken up")
        async with httpx.AsyncClient(base_url=site.gateway.url, verify=_anybody()) as client:
            answer = await client.get("/ready")
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert "expired" in answer.json()["certificates"][0]["error"]
        outcome = await run(script("gateway"), "doctor", "--data-dir", str(site.gateway.data), *site.options)
        assert outcome.code == 7
        assert "it expired at" in outcome.out


def _anybody() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.mark.parametrize("way", ["data directory", "--ca-file"])
async def test_the_command_line_trusts_the_gateway(tmp_path: Path, way: str) -> None:
    """On its machine by the certificate that its data directory names, from elsewhere by the authority; else no."""
    async with secured(tmp_path) as site:
        environment = clean_environment(GATEWAY_API_KEY=site.key)
        line = (script("gateway"), "devices", "register", "SN1", "--json")
        where = ("--data-dir", str(site.gateway.data)) if way == "data directory" else ("--url", site.gateway.url)
        trust = () if way == "data directory" else ("--ca-file", site.ca_file)
        outcome = await run(*line, *where, *trust, environment=environment)
        assert outcome.code == 0, outcome.err
        assert json.loads(outcome.out)["serial_number"] == "SN1"
        if way == "--ca-file":
            outcome = await run(*line, *where, environment=environment)
            assert (outcome.code, "certificate" in outcome.err) == (1, True)


async def test_doctor_works_over_tls(tmp_path: Path) -> None:
    """A healthy gateway with TLS and device certificates is healthy to the doctor, who sees how long they are valid."""
    async with secured(tmp_path, client_certificates=True) as site:
        outcome = await run(script("gateway"), "doctor", "--json", "--data-dir", str(site.gateway.data), *site.options)
        findings = {f"{each['area']}: {each['name']}": each for each in json.loads(outcome.out)["findings"]}
        assert {name for name, each in findings.items() if each["level"] == "error"} == set()
        assert findings["certificates: http_cert_file"]["says"].startswith("valid until")
        assert findings["broker: anonymous"]["level"] == "ok"
        assert findings["retained commands: comparison"]["level"] == "ok"


@pytest.mark.parametrize(
    ("authority", "own", "connected"),
    [("right", True, True), ("right", False, False), ("wrong", True, False), ("none", True, False)],
)
async def test_the_connection_to_a_broker_uses_tls(tmp_path: Path, authority: str, own: bool, connected: bool) -> None:  # noqa: FBT001
    """The broker is verified by the authority that is named, and shown our certificate where it asks; else no link."""
    right, wrong = make_authority(tmp_path / "tls"), make_authority(tmp_path / "wrong")
    pair = server_pair(right)
    asks = f"cafile {right.files.certificate}\nrequire_certificate true"
    settings = f"certfile {pair.certificate}\nkeyfile {pair.key}\n{asks}"
    async with Mosquitto(tmp_path, settings=settings) as broker:
        client = right.client("gateway")
        options = ["--broker", f"mqtts://gateway:{GATEWAY_PASSWORD}@{broker.host}:{broker.port}"]
        if authority != "none":
            trusted = right if authority == "right" else wrong
            options += ["--broker-ca-file", str(trusted.files.certificate)]
        if own:
            options += _files("broker", client)
        gateway = GatewayProcess(tmp_path / "gateway", *options)
        async with started(gateway):

            async def report() -> Json | None:
                async with httpx.AsyncClient(base_url=gateway.url) as http:
                    told: Json = (await http.get("/ready")).json()["broker"]
                    return told if told["reconciled"] or told["error"] else None

            told = await eventually(report, "the link is up, or says why not")
            assert told
            assert told["connected"] is connected, told
            if authority != "right":
                assert "certificate" in told["error"].lower()
