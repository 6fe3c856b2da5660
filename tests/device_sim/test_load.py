"""The load: every heartbeat that was sent arrives, each its own, and what cannot be done is said."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiomqtt
import pytest

from device_sim import GatewayApi
from device_sim.binding import Endpoint
from device_sim.errors import UnreachableError
from device_sim.load import PAYLOAD_BYTES, Broker, LoadPlan, encode_heartbeat, run
from device_sim.load_devices import CredentialsError, read_devices, run_load, write_devices
from device_sim.tls import tls_context
from tests.device_sim.support import API_KEY
from tests.device_sim.testbed import open_testbed
from tests.support.mosquitto import GATEWAY_PASSWORD, Mosquitto
from tests.support.ports import closed_port

WHO = [(f"dev_{number}", "token") for number in range(20)]


def test_every_heartbeat_has_the_same_size() -> None:
    """The length stands in front of the topic, which is encoded once: another length would be a broken packet."""
    assert {len(encode_heartbeat(number)) for number in (*range(6_000), 65_534, 65_535, 1_000_000)} == {PAYLOAD_BYTES}


@pytest.mark.parametrize("rate", [0, 4_000])
async def test_every_heartbeat_is_acknowledged(tmp_path: Path, rate: float) -> None:
    """On a real broker, paced or not: as many as were acknowledged, of the right size, no two alike of one device."""
    async with Mosquitto(tmp_path, users=dict(WHO)) as mosquitto, _gateway(mosquitto) as observer:
        result = await run(Broker(mosquitto.host, mosquitto.port), WHO, LoadPlan(rate, 0.25))
        print(result)  # noqa: T201 - for the curious
        assert result.sent == result.acknowledged > 0
        assert result.devices == len(WHO)
        heard: set[tuple[str, str]] = set()
        async with asyncio.timeout(60):
            while len(heard) < result.sent:
                message = await anext(aiter(observer.messages))
                assert isinstance(message.payload, bytes)
                assert len(message.payload) == PAYLOAD_BYTES
                heard.add((str(message.topic), json.loads(message.payload)["sent_at"]))
    if rate:
        assert result.sent <= rate * 0.25 + len(WHO)


@contextlib.asynccontextmanager
async def _gateway(mosquitto: Mosquitto) -> AsyncIterator[aiomqtt.Client]:
    async with aiomqtt.Client(
        mosquitto.host, mosquitto.port, identifier="gateway", username="gateway", password=GATEWAY_PASSWORD
    ) as client:
        await client.subscribe("devices/+/heartbeat", qos=1)
        yield client


async def test_a_refused_password_is_an_error(tmp_path: Path) -> None:
    """The broker turns the device away: said so."""
    async with Mosquitto(tmp_path, users=dict(WHO)) as mosquitto:
        with pytest.raises(UnreachableError, match="is its password still good"):
            await run(Broker(mosquitto.host, mosquitto.port), [("dev_0", "guessed")], LoadPlan(1, 0.1))


async def test_a_closed_port_is_an_error() -> None:
    """No broker at that port: said so."""
    with closed_port() as port, pytest.raises(UnreachableError, match="no broker answers"):
        await run(Broker("127.0.0.1", port), WHO[:1], LoadPlan(1, 0.1))


async def test_devices_are_bound_once_and_stored(tmp_path: Path) -> None:
    """In a file of its owner's alone; the next load needs no gateway, and can use no more than lie there."""
    file = tmp_path / "load.json"
    async with open_testbed(tmp_path) as testbed:
        tls = tls_context(None)
        result = await run_load(testbed.api, LoadPlan(50, 0.1), devices=1, file=file, tls=tls)
        assert result.devices == 1
        assert file.stat().st_mode & 0o777 == 0o600
        nobody = GatewayApi("http://127.0.0.1:1", API_KEY)
        assert (await run_load(nobody, LoadPlan(50, 0.1), devices=1, file=file, tls=tls)).devices == 1
        with pytest.raises(CredentialsError, match="holds 1 devices"):
            await run_load(nobody, LoadPlan(50, 0.1), devices=2, file=file, tls=tls)


def test_an_invalid_credentials_file_is_an_error(tmp_path: Path) -> None:
    """What is kept comes back; anything else is named, with a way out."""
    file = tmp_path / "load.json"
    write_devices(file, Endpoint("127.0.0.1", 1883, topic_prefix="x/"), WHO)
    assert read_devices(file) == (Endpoint("127.0.0.1", 1883, topic_prefix="x/"), WHO)
    file.write_text("[]")
    with pytest.raises(CredentialsError, match="Remove it"):
        read_devices(file)
