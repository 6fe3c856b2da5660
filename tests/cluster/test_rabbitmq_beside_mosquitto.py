"""A Mosquitto and a RabbitMQ at one registry: each serves every device, in its own way (contract, section 6)."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.cells import SETTLES_SECONDS, Cells, Roaming, two_cells
from tests.domain.support import receipt
from tests.e2e.support import RESET, Site
from tests.e2e.test_rabbitmq import retained
from tests.support import wire
from tests.support.mqtt_password import mqtt_password_of
from tests.support.rabbitmq import RabbitMq
from tests.support.wait import eventually

REFUSED = (wire.BAD_CREDENTIALS, wire.NOT_AUTHORISED)


async def test_both_brokers_take_heartbeats_and_cut_a_revoked_token(tmp_path: Path, rabbitmq: RabbitMq) -> None:
    """The answer to a bind has waited for both, and so has nothing of the token when it is revoked."""
    async with two_cells(tmp_path, node=rabbitmq) as cells:
        device = await cells.bound("SN-1")
        assert [await _answer(cell, device) for cell in (cells.a, cells.b)] == [wire.ACCEPTED] * 2
        async with device.on(cells.a) as at_a, device.on(cells.b) as at_b:
            await device.beat(at_a, 81)
            first = await cells.heard(device, 81)
            await device.beat(at_b, 82)
            second = await cells.heard(device, 82)
            assert first["broker_pk"] != second["broker_pk"]
            await _post(cells.a, f"{device.id}/unbind")
            await _cut(at_a, at_b)
        for cell in (cells.a, cells.b):
            await eventually(lambda cell=cell: _is_refused(cell, device), "it is refused")  # type: ignore[misc]
        answer = await _post(cells.b, f"{device.id}/bind", {"end_user_id": "eu_2"})
        new = Roaming(device.id, answer["device_token"])
        assert [await _answer(cell, new) for cell in (cells.a, cells.b)] == [wire.ACCEPTED] * 2


@pytest.mark.parametrize("taken_at", ["mosquitto", "rabbitmq"])
async def test_a_reset_is_taken_at_either_broker(tmp_path: Path, rabbitmq: RabbitMq, taken_at: str) -> None:
    """It is retained at both. Its report at one clears it at both, revokes the token, and ends both sessions."""
    async with two_cells(tmp_path, node=rabbitmq) as cells:
        device = await cells.bound("SN-1")
        topic = device.topic(f"commands/{RESET}")
        await _post(cells.a, f"{device.id}/reset")
        command = (await cells.a.http.get(f"/v1/devices/{device.id}/commands")).json()["data"][0]
        here, there = (cells.a, cells.b) if taken_at == "mosquitto" else (cells.b, cells.a)
        await _holds(cells, topic, command["id"])
        async with device.on(here) as client, device.on(there) as other:
            await client.subscribe(topic)
            assert json.loads((await client.read_publish()).payload)["id"] == command["id"]
            for status in ("delivered", "executed"):
                await client.publish(f"{topic}/ack", _ack(device, command, status))
            await _cut(client, other)
        await _holds(cells, topic, None)
        shown = (await cells.b.http.get(f"/v1/devices/{device.id}/commands")).json()["data"][0]
        assert shown["status"] == "executed"
        for cell in (cells.a, cells.b):
            await eventually(lambda cell=cell: _is_refused(cell, device), "it is refused")  # type: ignore[misc]


async def test_what_ended_while_the_gateway_of_rabbitmq_was_away_ends_there(tmp_path: Path, rabbitmq: RabbitMq) -> None:
    """RabbitMQ keeps sessions and commands meanwhile. When its gateway is back, it compares both with the registry."""
    async with two_cells(tmp_path, node=rabbitmq) as cells:
        device, other = await cells.bound("SN-1"), await cells.bound("SN-2")
        topic = other.topic("commands/reboot")
        asked = await cells.a.http.post(f"/v1/devices/{other.id}/commands", json={"type": "reboot"})
        assert asked.status_code == httpx.codes.CREATED, asked.text
        await _holds(cells, topic, asked.json()["id"])
        async with device.on(cells.b) as client:
            await eventually(lambda: rabbitmq.connections(device.id), "RabbitMQ lists the connection")
            await cells.b.gateway.kill()
            await _post(cells.a, f"{device.id}/unbind")
            await _post(cells.a, f"{other.id}/commands/{asked.json()['id']}/cancel")
            await cells.holds(cells.a, set())
            await client.ping()
            await cells.b.gateway.restart()
            await _cut(client)
        await cells.ready()
        await _holds(cells, topic, None)
        assert await _answer(cells.b, other) == wire.ACCEPTED


@pytest.mark.parametrize("to", ["brk_a", "brk_b"])
async def test_a_device_is_moved_between_them(tmp_path: Path, rabbitmq: RabbitMq, to: str) -> None:
    """With home brokers one of them admits it. A move cuts its session, and takes its open reset along."""
    async with two_cells(tmp_path, "--cells", "home", node=rabbitmq) as cells:
        places = {"brk_a": cells.a, "brk_b": cells.b}
        devices = [await cells.bound("SN-1"), await cells.bound("SN-2")]
        homes = [(await cells.a.http.get(f"/v1/cells/{each}/devices")).json()["data"] for each in places]
        assert [len(each) for each in homes] == [1, 1]
        new, (old, device) = (
            places[to],
            next(
                (cell, each)
                for (name, cell), listed in zip(places.items(), homes, strict=True)
                for each in devices
                if name != to and each.id in listed
            ),
        )
        assert await _answer(old, device) == wire.ACCEPTED
        assert await _answer(new, device) in REFUSED
        await _post(old, f"{device.id}/reset")
        topic = device.topic(f"commands/{RESET}")
        async with device.on(old) as client:
            moved = await old.http.post(f"/v1/cells/{to}/devices", json={"device_ids": [device.id]})
            assert moved.json()["moved"] == [device.id], moved.text
            await _cut(client)
        await eventually(lambda: _is_refused(old, device), "its former home refuses it", guard_seconds=SETTLES_SECONDS)
        await cells.in_step(device)
        async with device.on(new) as client:
            await client.subscribe(topic)
            command = json.loads((await client.read_publish()).payload)
            for status in ("delivered", "executed"):
                await client.publish(f"{topic}/ack", _ack(device, command, status))
            await _cut(client)
        await _holds(cells, topic, None)


def _ack(device: Roaming, command: dict[str, Any], status: str) -> bytes:
    signed = receipt(device.token, command["id"], status, command["binding_generation"])
    return json.dumps({"command_id": command["id"], "status": status, "receipt": signed}).encode()


async def _post(cell: Site, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = await cell.http.post(f"/v1/devices/{path}", json=body or {})
    assert answer.status_code == httpx.codes.OK, answer.text
    assert "X-Broker-Synced" not in answer.headers
    found: dict[str, Any] = answer.json()
    return found


async def _cut(*clients: wire.Wire) -> None:
    async with asyncio.timeout(SETTLES_SECONDS):
        await asyncio.gather(*(client.closed() for client in clients))


async def _holds(cells: Cells, topic: str, command_id: str | None) -> None:
    """Wait until both brokers retain this command on its topic, or nothing."""
    await cells.holds(cells.a, set() if command_id is None else {topic})

    async def held() -> bool:
        payload = await retained(cells.b, topic)
        return (json.loads(payload)["id"] if payload else None) == command_id

    await eventually(held, f"RabbitMQ holds {command_id or 'nothing'}", guard_seconds=SETTLES_SECONDS)


async def _answer(cell: Site, device: Roaming) -> int:
    async with wire.Wire.open(cell.gateway.host, cell.gateway.port) as client:
        return await client.connect(device.id, device.id, mqtt_password_of(device.token))


async def _is_refused(cell: Site, device: Roaming) -> bool:
    return await _answer(cell, device) in REFUSED
