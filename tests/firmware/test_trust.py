"""TLS of the firmware: only a server that the site's authority signed, under its name; else nothing, over no way."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.tls.ca import Authority
from tests.e2e.support import Site
from tests.firmware.device import FirmwareDevice, Json, powered
from tests.firmware.sites import secured_site
from tests.support.certificates import HOST, make_authority
from tests.support.proxy import Direction, ProxiedConnection, Proxy

pytestmark = pytest.mark.asyncio(loop_scope="module")

HANDSHAKE, ALERT = 0x16, 0x15
SHORT = "127.1"
"""Another name of this machine, to which no certificate is made out."""
REASONS = {
    "another authority": "not correctly signed by the trusted CA",
    "another name": "does not match with the expected CN",
    "no authority": "ca_file",
}


class FirstBytes(Proxy):
    """Keeps the first byte of each piece that a client sends."""

    def __init__(self, port: int) -> None:
        super().__init__(lambda: port)
        self.sent: set[int] = set()

    def record_incoming(self, line: ProxiedConnection, towards: Direction, piece: bytes) -> None:  # noqa: ARG002 - all lines count
        """Keep it."""
        if towards is Direction.SERVER:
            self.sent.add(piece[0])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Site, Authority]]:
    """A gateway that the tests share, and the authority of its certificates."""
    async with secured_site(tmp_path_factory.mktemp("site"), "embedded") as running:
        yield running


@pytest.mark.checklist("C13")
@pytest.mark.parametrize("fault", ["another authority", "another name", "no authority"])
async def test_an_untrusted_server_gets_no_data(secured: tuple[Site, Authority], tmp_path: Path, fault: str) -> None:
    """No CONNECT and no heartbeat leaves the device, over MQTT or HTTP, with TLS or without."""
    site, authority = secured
    async with FirstBytes(site.gateway.port) as proxy:
        other = make_authority(tmp_path / "other") if fault == "another authority" else authority
        config: Json = {} if fault == "no authority" else {"ca_file": str(other.files.certificate)}
        host = SHORT if fault == "another name" else HOST
        device = FirmwareDevice(
            tmp_path / "device", f"SN {fault}", api_url=site.gateway.url.replace(HOST, host), **config
        )
        known = await site.api.register(device.serial, model="bota_pin", name=None, firmware_version="1.0.0")
        answer = await site.post(f"{known['id']}/bind", {"end_user_id": "eu_1"})
        async with powered(device):
            await device.provision(
                site, answer={**answer, "mqtt": {**answer["mqtt"], "host": host, "port": proxy.port}}
            )
            await device.fact("not_sent", kind="heartbeat", count=2)  # over HTTP, after three failures of MQTT
            reasons = {each["reason"] for name in ("offline", "not_sent") for each in device.facts(name)}
        assert all(REASONS[fault] in each for each in reasons), reasons
        assert device.facts("sent") == []
        assert (await site.get(answer["id"]))["last_heartbeat_at"] is None
        assert proxy.sent <= {HANDSHAKE, ALERT}
