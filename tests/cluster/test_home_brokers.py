"""Two brokers, each the home of its devices: who is admitted where, and a move with a reset (contract, section 6)."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx

from tests.cluster.cells import SETTLES_SECONDS, Cells, Roaming, two_cells
from tests.domain.support import receipt
from tests.e2e.support import Site
from tests.support import wire
from tests.support.mqtt_password import mqtt_password_of
from tests.support.wait import eventually


async def test_a_device_has_one_broker_and_is_moved(tmp_path: Path) -> None:
    """A bind goes to the broker with the fewest devices; a reset from before the move is executed after it."""
    async with two_cells(tmp_path, "--cells", "home") as cells:
        first, second = await _bound(cells, "SN-1"), await _bound(cells, "SN-2")
        by_port = {each.broker.port: each for each in (cells.a, cells.b)}
        assert {first[1], second[1]} == set(by_port)
        device, old, new = first[0], by_port[first[1]], by_port[second[1]]
        assert [await _answer(each, device) for each in (old, new)] == [wire.ACCEPTED, wire.NOT_AUTHORISED]
        command = await _reset(cells, device)
        topic = device.topic("commands/factory_reset")
        await cells.holds(old, {topic})
        await cells.holds(new, set())
        async with device.on(old) as client:
            target = "brk_b" if new is cells.b else "brk_a"
            answer = await cells.a.http.post(f"/v1/cells/{target}/devices", json={"device_ids": [device.id]})
            assert answer.json()["moved"] == [device.id], answer.text
            async with asyncio.timeout(SETTLES_SECONDS):
                await client.closed()
        await cells.holds(old, set())
        await cells.holds(new, {topic})
        await eventually(lambda: _is_refused(old, device), "the old home refuses it", guard_seconds=SETTLES_SECONDS)
        signed = receipt(device.token, command["id"], "executed", command["binding_generation"])
        said = {"command_id": command["id"], "status": "executed", "receipt": signed}
        async with device.on(new) as client:
            await client.publish(f"{topic}/ack", json.dumps(said).encode())
            async with asyncio.timeout(SETTLES_SECONDS):
                await client.closed()  # its token is revoked
        await cells.holds(new, set())


async def _bound(cells: Cells, serial: str) -> tuple[Roaming, int]:
    """A device that is bound, and the port of its home."""
    registered = (await cells.a.http.post("/v1/devices", json={"serial_number": serial})).json()
    answer = await cells.a.http.post(f"/v1/devices/{registered['id']}/bind", json={"end_user_id": "eu_1"})
    assert answer.status_code == httpx.codes.OK, answer.text
    assert "X-Broker-Synced" not in answer.headers
    bound = answer.json()
    return Roaming(bound["id"], bound["device_token"]), bound["mqtt"]["port"]


async def _reset(cells: Cells, device: Roaming) -> dict[str, Any]:
    answer = await cells.b.http.post(f"/v1/devices/{device.id}/reset")
    assert answer.status_code == httpx.codes.OK, answer.text
    listed = (await cells.b.http.get(f"/v1/devices/{device.id}/commands")).json()
    command: dict[str, Any] = listed["data"][0]
    return command


async def _answer(cell: Site, device: Roaming) -> int:
    """What the broker of this cell answers to the device."""
    return await cell.broker.connect_answer(device.id, device.id, mqtt_password_of(device.token))


async def _is_refused(cell: Site, device: Roaming) -> bool:
    return await _answer(cell, device) == wire.NOT_AUTHORISED
