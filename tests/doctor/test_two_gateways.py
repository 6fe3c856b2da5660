"""Two gateways at one Mosquitto and prefix: what the doctor finds, and what the second one leaves alone."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.program import GUARD_SECONDS, clean_environment, run, script, started
from tests.e2e.support import Site, mosquitto_options, running_site
from tests.support import registries, wire
from tests.support.mqtt_password import mqtt_password_of
from tests.support.wait import eventually

Json = dict[str, Any]

OTHERS = "broker: other gateways"
FIRST = "gw_first"


@pytest.mark.parametrize("gateway_id", [FIRST, "gw_second"])
async def test_the_second_gateway_changes_nothing_at_the_broker(tmp_path: Path, gateway_id: str) -> None:
    """Devices of the first one keep their accounts and sessions, and those of the second one have none."""
    async with running_site(tmp_path, "mosquitto", "--gateway-id", FIRST) as site:
        bound, entry = await _bound(site.http, "SN1")
        async with wire.Wire.open(site.gateway.host, site.gateway.port) as device:
            assert await device.connect(bound["id"], bound["id"], mqtt_password_of(entry)) == wire.ACCEPTED
            before = site.broker.password_file.read_bytes()
            async with _second(tmp_path, site, "--gateway-id", gateway_id) as (second, http):
                other, token = await _bound(http, "SN2")
                report = (await http.get("/ready")).json()
                assert (report["ready"], report["broker"]["connected"]) == (False, False)
                assert report["access"]["error"]
                assert site.broker.password_file.read_bytes() == before
                assert await site.retained() == {}
                await device.ping()
                assert await site.connect_answer(other["id"], token) != wire.ACCEPTED
                findings = await _examined(second)
                assert "Another gateway, 'gw_first'" in " ".join(findings["gateway: ready"]["details"])


async def test_the_second_gateway_serves_after_the_first(tmp_path: Path) -> None:
    """It looks again by itself. Then its devices may connect, and those of the first one may not."""
    async with running_site(tmp_path, "mosquitto", "--gateway-id", FIRST) as site:
        bound, entry = await _bound(site.http, "SN1")
        async with _second(tmp_path, site, "--gateway-id", "gw_second") as (_, http):
            other, token = await _bound(http, "SN2")
            await site.gateway.stop()
            await eventually(lambda: _is_ready(http), "the second gateway serves the broker")
            await eventually(lambda: _is_accepted(site, other["id"], token), "its device may connect")
            assert not await _is_accepted(site, bound["id"], entry)


async def test_a_copy_beside_the_original_is_found(tmp_path: Path) -> None:
    """It has the same ids, of gateway and registry; the process that says online is another one."""
    async with running_site(tmp_path, "mosquitto") as site:
        await site.gateway.stop()
        shutil.copytree(site.gateway.data, tmp_path / "second" / "data")
        await site.gateway.restart()
        await site.synced()
        async with _second(tmp_path, site) as (second, _):
            found = (await _examined(second))[OTHERS]
            assert found["level"] == "error"
            assert "another process, on this registry or on a copy of it" in found["says"]
        assert (await _examined(site.gateway))[OTHERS]["level"] == "ok"


async def test_other_registries_under_the_prefix_are_found(tmp_path: Path) -> None:
    """One with a different gateway id by its topic, one with the same by the registry that its status names."""
    async with running_site(tmp_path, "mosquitto", "--gateway-id", FIRST) as site:
        assert (await _examined(site.gateway))[OTHERS]["level"] == "ok"
        said = {"status": "online", "registry_id": "reg_other", "instance": "another"}
        await site.publish("gateways/gw_second/status", json.dumps(said).encode(), retain=True)
        found = (await _examined(site.gateway))[OTHERS]
        assert (found["level"], "gw_second says online" in found["says"]) == ("error", True)
        await site.publish("gateways/gw_second/status", b"", retain=True)
        await site.publish(f"gateways/{FIRST}/status", json.dumps(said).encode(), retain=True)
        findings = await _examined(site.gateway)
        assert findings[OTHERS]["level"] == findings["broker: gateway's rights"]["level"] == "error"
        assert "another registry (reg_other) says online as 'gw_first'" in findings[OTHERS]["says"]


@contextlib.asynccontextmanager
async def _second(folder: Path, site: Site, *options: str) -> AsyncIterator[tuple[GatewayProcess, httpx.AsyncClient]]:
    """A gateway of another data directory with the same broker and password file, once it has met the first one."""
    second = GatewayProcess(
        folder / "second", *mosquitto_options(site.broker), "--rate-limit-per-minute", "0", *options
    )
    if not second.data.exists():
        registries.place(second.data)
    async with started(second):
        key = second.new_key()
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=second.url, headers=headers, timeout=GUARD_SECONDS) as http:
            await eventually(lambda: _has_met_another(http), "the second gateway has met the first one")
            yield second, http


async def _has_met_another(http: httpx.AsyncClient) -> bool:
    return "Another gateway" in ((await http.get("/ready")).json()["broker"]["error"] or "")


async def _is_ready(http: httpx.AsyncClient) -> bool:
    return bool((await http.get("/ready")).json()["ready"])


async def _is_accepted(site: Site, device_id: str, token: str) -> bool:
    return await site.connect_answer(device_id, token) == wire.ACCEPTED


async def _bound(http: httpx.AsyncClient, serial: str) -> tuple[Json, str]:
    """A device that is bound, and its token."""
    device: Json = (await http.post("/v1/devices", json={"serial_number": serial})).json()
    bound = (await http.post(f"/v1/devices/{device['id']}/bind", json={"end_user_id": "eu_1"})).json()
    return device, str(bound["device_token"])


async def _examined(gateway: GatewayProcess) -> dict[str, Json]:
    """Findings by area and name."""
    options, environment = list(gateway.options), clean_environment()
    at = options.index("--broker")
    environment["GATEWAY_BROKER"] = options[at + 1]
    del options[at : at + 2]
    outcome = await run(
        script("gateway"), "doctor", "--json", "--data-dir", str(gateway.data), *options, environment=environment
    )
    document = json.loads(outcome.out)
    return {f"{each['area']}: {each['name']}": each for each in document["findings"]}
