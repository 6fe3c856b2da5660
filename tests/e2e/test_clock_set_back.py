"""A clock that was set back: the gateway and the command line both number from where the registry ends."""

import asyncio
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from device_sim.wire import receipt
from gateway.store import DATABASE_NAME
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.program import Outcome, run, script, started

SET_BACK = (sys.executable, str(Path(__file__).with_name("clock_set_back.py")), "3600")
DEVICES = 24


async def _beside(gateway: GatewayProcess, *arguments: str) -> Outcome:
    """The command line on the data directory, with the gateway's clock."""
    outcome = await run(*SET_BACK, script("gateway"), *arguments, "--data-dir", str(gateway.data))
    assert outcome.code == 0, outcome.out + outcome.err
    return outcome


async def _bound(http: httpx.AsyncClient, serial: str) -> dict[str, Any]:
    device = (await http.post("/v1/devices", json={"serial_number": serial})).raise_for_status().json()
    answer = await http.post(f"/v1/devices/{device['id']}/bind", json={"end_user_id": "eu_1"})
    return dict(answer.raise_for_status().json())


async def _executed(http: httpx.AsyncClient, device: dict[str, Any]) -> int:
    """The device fetches its reset and says that it has wiped itself; the status of the answer."""
    token = {"Authorization": f"Bearer {device['device_token']}"}
    beat = await http.post("/v1/devices/me/heartbeat", headers=token, json={})
    command = beat.raise_for_status().json()["commands"][0]
    body = {
        "command_id": command["id"],
        "status": "executed",
        "result": {"wiped": ["device_token", "pairing", "wifi_networks"], "kept": ["serial_number"]},
        "receipt": receipt(device["device_token"], command["id"], "executed", command["binding_generation"]),
    }
    answer = await http.post(f"/v1/devices/me/commands/{command['id']}/ack", headers=token, json=body)
    return answer.status_code


def _ids(gateway: GatewayProcess, table: str, order: str) -> list[str]:
    with closing(sqlite3.connect(gateway.data / DATABASE_NAME)) as registry:
        return [row[0] for row in registry.execute(f"SELECT id FROM {table} ORDER BY {order}")]  # noqa: S608 - constants


@pytest.mark.parametrize("beside", ["cancel-resets", "reset"])
async def test_command_line_and_gateway_never_create_the_same_id(tmp_path: Path, beside: str) -> None:
    """Both write at once behind the newest id: nothing is refused, and ids rise in the order of the commits."""
    gateway = GatewayProcess(tmp_path / "gateway")
    async with started(gateway):
        key = {"Authorization": f"Bearer {gateway.new_key()}"}
        async with httpx.AsyncClient(base_url=gateway.url, headers=key) as http:
            devices = [await _bound(http, f"SN-{number}") for number in range(DEVICES)]
            if beside == "cancel-resets":
                for device in devices:
                    (await http.post(f"/v1/devices/{device['id']}/reset")).raise_for_status()
        await gateway.stop()
    # The loop below asks as often as it can while the command line works: a slow machine has time for many requests.
    behind = GatewayProcess(tmp_path / "gateway", "--rate-limit-per-minute", "0", by=SET_BACK)
    async with started(behind), httpx.AsyncClient(base_url=behind.url, headers=key) as http:
        shell = asyncio.create_task(_in_the_shell(behind, devices, beside))
        answers: list[int] = []
        while not shell.done():
            answers.append((await http.post("/v1/devices", json={"serial_number": f"NEW-{len(answers)}"})).status_code)
        await shell
        answers += [(await http.post(f"/v1/devices/{device['id']}/reset")).status_code for device in devices]
        assert set(answers) <= {200, 201}
        # What the gateway mints now follows what the command line has minted meanwhile.
        await _beside(behind, "devices", "register", "LAST")
        again = await _bound(http, "AGAIN")
        (await http.post(f"/v1/devices/{again['id']}/reset")).raise_for_status()
        await _beside(behind, "devices", "register", "VERY-LAST")
        assert await _executed(http, again) == 200
        commands = (await http.get(f"/v1/devices/{again['id']}/commands")).json()["data"]
        assert [command["status"] for command in commands] == ["executed"]
    for table, order in (("events", "seq"), ("devices", "pk"), ("commands", "rowid")):
        minted = _ids(behind, table, order)
        assert minted == sorted(set(minted)), table


async def _in_the_shell(gateway: GatewayProcess, devices: list[dict[str, Any]], what: str) -> None:
    if what == "cancel-resets":
        await _beside(gateway, "devices", "cancel-resets", "--all", "--yes")
    else:
        for device in devices[:4]:
            await _beside(gateway, "devices", "reset", device["id"], "--yes")
