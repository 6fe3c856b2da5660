"""The companion app's calls, and what it makes of answers that are not the contract's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from device_sim import AnswerError, ApiError, DirectoryFlash, GatewayApi, ProvisioningError, UnreachableError
from device_sim.binding import Binding, Endpoint
from device_sim.error_hints import remedy
from device_sim.errors import UntrustedError
from device_sim.tls import tls_context
from gateway.tls.ca import Pair
from tests.device_sim.support import API_KEY, GUARD_SECONDS
from tests.device_sim.testbed import open_testbed
from tests.support.certificates import expired, make_authority, server_pair
from tests.support.tls_server import tls_server


@asynccontextmanager
async def answering(raw: bytes) -> AsyncIterator[str]:
    """A server that answers everything with these bytes; gives its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, asyncio.timeout(GUARD_SECONDS):
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def http(status: str, body: bytes) -> bytes:
    """An answer on the wire."""
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (status.encode(), len(body), body)


async def test_provisioning_registers_and_binds(tmp_path: Path) -> None:
    """Register, bind, write: the flash then holds everything that a device needs, and facts say so."""
    async with open_testbed(tmp_path) as testbed:
        device = testbed.device(flash=DirectoryFlash(tmp_path / "flash"))
        binding = await device.provision(end_user_id="eu_1")
        wiped = device.flash.wiped_area
        assert wiped["device_token"] == binding.device_token == testbed.gateway.token(binding.device_id)
        assert wiped["pairing"]["grant_key"] == testbed.gateway.signer.jwk
        assert wiped["pairing"]["mqtt"]["port"] == testbed.broker.port
        assert [each["ssid"] for each in wiped["wifi_networks"]] == ["home"]
        assert {"registered", "bound", "provisioned"} <= set(device.counts)
        with pytest.raises(ProvisioningError, match="reset it before"):
            await device.provision(end_user_id="eu_2")
        other = testbed.device(flash=device.flash, serial="SN2")
        with pytest.raises(ProvisioningError, match="SN1"):
            await asyncio.wait_for(other.run(), GUARD_SECONDS)


async def test_a_ble_device_gets_no_network(tmp_path: Path) -> None:
    """Only a device with WiFi is given a network when it is provisioned."""
    async with open_testbed(tmp_path) as testbed:
        device = testbed.device(radio="ble")
        await device.provision(end_user_id="eu_1")
        assert device.flash.wiped_area["wifi_networks"] == []


async def test_an_error_of_the_gateway_is_an_api_error() -> None:
    """The contract's error becomes an exception with its code, message and status."""
    body = b'{"error":{"code":"reset_pending","message":"a reset is open","details":{}}}'
    async with answering(http("409 Conflict", body)) as url, GatewayApi(url, API_KEY) as api:
        with pytest.raises(ApiError, match="a reset is open") as caught:
            await api.bind("dev_1", "eu_1")
    assert (caught.value.status, caught.value.code, caught.value.message) == (409, "reset_pending", "a reset is open")


@pytest.mark.parametrize(
    "raw",
    [
        http("200 OK", b"<html>"),
        http("200 OK", b"[1]"),
        http("200 OK", b"{}"),
        http("200 OK", b'{"id":"dev_1","binding_generation":"x","device_token":"t","grant_key":{},"mqtt":{}}'),
        http("502 Bad Gateway", b"<html>nginx</html>"),
    ],
)
async def test_a_server_that_is_not_a_gateway_is_an_answer_error(raw: bytes) -> None:
    """Whatever else answers is told from a gateway that says no."""
    async with answering(raw) as url, GatewayApi(url, API_KEY) as api:
        with pytest.raises(AnswerError):
            await api.bind("dev_1", "eu_1")


@pytest.mark.parametrize("body", [b'{"error":"gone"}', b'{"error":null}', b"{}"])
async def test_an_error_of_another_format_is_still_an_api_error(body: bytes) -> None:
    """An error of another shape is still an error with its status."""
    async with answering(http("500 Oops", body)) as url, GatewayApi(url, API_KEY) as api:
        with pytest.raises(ApiError) as caught:
            await api.bind("dev_1", "eu_1")
    assert caught.value.status == 500


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "ftp://127.0.0.1"])
async def test_a_closed_port_is_unreachable(url: str) -> None:
    """No server, or no URL: the same exception, which names the URL."""
    async with GatewayApi(url, API_KEY) as api:
        with pytest.raises(UnreachableError, match=url):
            await api.register("SN1", model="bota_pin", name=None, firmware_version="1")


async def test_a_closed_connection_is_unreachable() -> None:
    """A connection that is closed without an answer is no answer."""
    async with answering(b"") as url, GatewayApi(url, API_KEY) as api:
        with pytest.raises(UnreachableError, match="begin with https://"):
            await api.bind("dev_1", "eu_1")


def test_bind_returns_the_binding() -> None:
    """The contract's bind answer, as JSON has it, becomes a binding, and comes back from the flash as it was."""
    answer = {
        "id": "dev_1",
        "binding_generation": 3,
        "end_user_id": "eu_1",
        "status": "bound",
        "device_token": "dtok_x",
        "grant_key": {"kty": "OKP", "crv": "Ed25519", "x": "AA"},
        "mqtt": {
            "host": "broker.example",
            "port": 8883,
            "tls": True,
            "username": "dev_1",
            "client_id": "dev_1",
            "topics": {"heartbeat": "acme/devices/dev_1/heartbeat"},
        },
    }
    binding = Binding.from_answer(answer)
    assert binding.mqtt == Endpoint("broker.example", 8883, tls=True, topic_prefix="acme/")
    assert (binding.device_id, binding.generation, binding.end_user_id) == ("dev_1", 3, "eu_1")
    flash = {"device_token": binding.device_token, "pairing": binding.pairing()}
    assert Binding.from_flash(flash) == binding
    assert Binding.from_flash({"pairing": binding.pairing()}) is None


async def test_untrusted_certificates_are_errors_with_a_hint(tmp_path: Path) -> None:
    """The remedy is on this side: the option that names the authority, the name in the URL, or that it is no TLS."""
    authority, pem = make_authority(tmp_path / "tls"), str(tmp_path / "tls" / "ca.pem")
    assert "--ca-file" in await remedy_at(server_pair(authority), None)
    assert "as its certificate does" in await remedy_at(authority.server("other", ["gateway.example"]), pem)
    pair = server_pair(authority, "old")
    expired(authority, pair)
    assert "have it renewed" in await remedy_at(pair, pem)
    assert "plain http://" in await remedy_at(None, None)


async def remedy_at(pair: Pair | None, ca_file: str | None) -> str:
    """What is advised where this certificate is shown."""
    with tls_server(pair) as port:
        async with GatewayApi(f"https://127.0.0.1:{port}", API_KEY, tls=tls_context(ca_file)) as api:
            with pytest.raises(UntrustedError) as caught:
                await api.register("SN1", model="bota_pin", name=None, firmware_version="1")
    return remedy(caught.value)
