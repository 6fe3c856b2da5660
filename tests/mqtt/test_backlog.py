"""What is decided only after the gateway has taken in what the broker keeps for it."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.domain.backlog import BacklogRequests, ask
from gateway.domain.commands import RESET
from gateway.http.app import build
from gateway.http.services import HttpOptions, Services
from gateway.store import key_sql
from gateway.store.command_sql import CommandRecord
from gateway.workers.change_poller import ChangePoller
from tests.mqtt.devices import Device
from tests.mqtt.support import MqttTestbed, on_every_broker, on_mosquitto, open_testbed
from tests.support.wait import eventually

SHORT = 0.05
LONG = 60.0


@asynccontextmanager
async def api(testbed: MqttTestbed, seconds: float = LONG) -> AsyncIterator[httpx.AsyncClient]:
    """The HTTP API of this gateway, with a key of its project; a cancel waits for so many seconds."""

    async def nothing() -> dict[str, Any]:
        return {}

    async def synced(device_pk: int, wait: float) -> bool:
        return await testbed.wakeups.synced(testbed.store, device_pk, wait)

    _, key = await testbed.store.write(lambda tx: key_sql.create(tx, testbed.project_id, "back end"))
    services = Services(
        store=testbed.store,
        topics=testbed.topics,
        broker_address=lambda: ("127.0.0.1", testbed.proxy.port, False),
        synced=synced,
        readiness=nothing,
        wakeups=testbed.wakeups,
        taken_in=testbed.connection.barrier.passed,
        options=HttpOptions(bind_broker_wait_seconds=seconds, cancel_broker_wait_seconds=seconds),
    )
    transport = httpx.ASGITransport(build(services))
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
        yield client


async def cancel(
    testbed: MqttTestbed, device: Device, command: CommandRecord, seconds: float = LONG
) -> tuple[int, dict[str, Any]]:
    """Ask for a cancel; status and body of the answer."""
    async with api(testbed, seconds) as client:
        answer = await client.post(f"/v1/devices/{device.id}/commands/{command.id}/cancel")
    return answer.status_code, answer.json()


async def bulk_cancel(
    testbed: MqttTestbed, devices: Sequence[Device], seconds: float = LONG
) -> list[tuple[str, str | None]]:
    """Ask for many cancels; outcome and code of the error of each."""
    async with api(testbed, seconds) as client:
        body = {"device_ids": [each.id for each in devices]}
        data = (await client.post("/v1/devices/bulk/reset/cancel", json=body)).json()["data"]
    return [(each["outcome"], each["error"] and each["error"]["code"]) for each in data]


def acknowledgement(device: Device, command: CommandRecord, status: str) -> bytes:
    """The device's word, with its receipt."""
    said = f"{command.id}|{status}|{command.binding_generation}"
    digest = hmac.new(hashlib.sha256(device.token.encode()).digest(), said.encode(), hashlib.sha256).digest()
    receipt = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    return json.dumps({"command_id": command.id, "status": status, "receipt": receipt}).encode()


async def wiped(testbed: MqttTestbed, device: Device, *, said: str = "executed") -> CommandRecord:
    """Reset the device while it listens; it obeys, and what it says waits at the broker. The command."""
    async with testbed.join(device) as client:
        await client.subscribe(device.topic(f"commands/{RESET}"))
        command = await testbed.reset(device)
        await client.read_until(device.topic(f"commands/{RESET}"))
        await testbed.settled()
        testbed.proxy.stall()
        await client.say(device.topic(f"commands/{RESET}/ack"), acknowledgement(device, command, said))
    return command


async def status(testbed: MqttTestbed, command: CommandRecord) -> str:
    """How far the command is."""
    return str((await testbed.rows("SELECT status FROM commands WHERE id = ?", command.id))[0][0])


@pytest.mark.guarantee("G9")
@on_every_broker
async def test_a_reset_with_an_unread_executed_cannot_be_cancelled(kind: str, tmp_path: Path) -> None:
    """503 while its word cannot be read, and then the 409 that the word asks for."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        command = await wiped(testbed, device)
        code, body = await cancel(testbed, device, command, SHORT)
        assert (code, body["error"]["code"]) == (503, "service_unavailable")
        assert "/ready" in body["error"]["message"]
        assert await status(testbed, command) == "pending"
        testbed.proxy.resume()
        code, body = await cancel(testbed, device, command)
        assert (code, body["error"]["code"]) == (409, "command_final")
        assert await status(testbed, command) == "executed"


@pytest.mark.guarantee("G9")
@on_mosquitto
async def test_a_reset_with_an_unread_delivered_cannot_be_cancelled(kind: str, tmp_path: Path) -> None:
    """The same for ``delivered``: 409 ``reset_pending``, after a gateway that was away has come back."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        command = await wiped(testbed, device, said="delivered")
        await testbed.stop()
        testbed.proxy.resume()
        await testbed.start(settled=False)
        code, body = await cancel(testbed, device, command)
        assert (code, body["error"]["code"]) == (409, "reset_pending")


@on_every_broker
async def test_many_cancels_read_the_backlog_once(kind: str, tmp_path: Path) -> None:
    """Who has said it is executed is left alone, the others are cancelled; without the broker only what never left."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        gone, here = await testbed.bound("SN-1"), await testbed.bound("SN-2")
        left = await testbed.reset(here)
        command = await wiped(testbed, gone)
        await testbed.stop()
        waiting = await testbed.bound("SN-3")
        await testbed.reset(waiting)
        said = await bulk_cancel(testbed, (gone, here, waiting), SHORT)
        assert said == [("failed", "service_unavailable"), ("failed", "service_unavailable"), ("cancelled", None)]
        assert [await status(testbed, each) for each in (command, left)] == ["pending", "pending"]
        testbed.proxy.resume()
        await testbed.start(settled=False)
        assert await bulk_cancel(testbed, (gone, here)) == [("none_open", None), ("cancelled", None)]
        assert [await status(testbed, each) for each in (command, left)] == ["executed", "cancelled"]


@on_mosquitto
async def test_an_unpublished_reset_is_cancelled_without_the_broker(kind: str, tmp_path: Path) -> None:
    """No device can have obeyed it."""
    async with open_testbed(kind, tmp_path) as testbed:
        device = await testbed.bound()
        command = await testbed.reset(device)
        assert (await cancel(testbed, device, command, 0))[0] == 200


@on_mosquitto
async def test_an_unacknowledged_publish_counts_as_sent(kind: str, tmp_path: Path) -> None:
    """The link is lost after the command may have left: it is in the outbox still, and yet the device may have it."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        await testbed.settled()
        testbed.proxy.stall()
        command = await testbed.reset(device)

        async def left() -> bool:
            return bool(await testbed.rows("SELECT 1 FROM commands WHERE id = ? AND sent_at IS NOT NULL", command.id))

        await eventually(left, "the command was noted as sent")
        assert (await cancel(testbed, device, command, SHORT))[0] == 503
        await testbed.stop()
        assert (await cancel(testbed, device, command, SHORT))[0] == 503
        assert await status(testbed, command) == "pending"


@on_mosquitto
async def test_a_superseding_bind_reads_the_report_of_the_wipe_first(kind: str, tmp_path: Path) -> None:
    """The word that waits is taken in first, so the reset is executed and not superseded."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        command = await wiped(testbed, device)
        testbed.proxy.resume()
        async with api(testbed) as client:
            body = {"end_user_id": "eu_2", "supersede_reset": True}
            assert (await client.post(f"/v1/devices/{device.id}/bind", json=body)).status_code == 200
        assert await status(testbed, command) == "executed"


@on_mosquitto
async def test_another_process_can_have_the_backlog_read(kind: str, tmp_path: Path) -> None:
    """The command line asks through the registry, and is answered once all is committed."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        watcher = ChangePoller(testbed.store, testbed.wakeups)
        await watcher.look()
        device = await testbed.bound()
        command = await wiped(testbed, device)
        assert not await ask(testbed.store, SHORT), "nobody serves it"
        requests = BacklogRequests(testbed.store, testbed.wakeups, testbed.connection.barrier.passed)
        work = [asyncio.create_task(each) for each in (watcher.run(), requests.run())]
        assert not await ask(testbed.store, SHORT), "the broker cannot be read"
        testbed.proxy.resume()
        assert await ask(testbed.store, LONG)
        assert await status(testbed, command) == "executed"
        for each in work:
            each.cancel()
        await asyncio.wait(work)
