"""What a reset guarantees (contract, section 4): the rows of the table that need no broken process.

The tests share one gateway per broker; each uses a separate device.
"""

import hashlib
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from device_sim import ApiError, MemoryFlash, SeededFaults, SimulatedDevice
from tests.e2e.support import BROKERS, RESET, Site, details, running, running_site, token_of, topic
from tests.support import wire
from tests.support.mqtt_password import mqtt_password_of
from tests.support.receipts import receipt_of
from tests.support.wait import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=BROKERS)
async def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A gateway with each kind of broker."""
    async with running_site(tmp_path_factory.mktemp("site"), request.param) as running:
        yield running


@pytest.fixture
def serial(request: pytest.FixtureRequest) -> str:
    """A serial number of this test's own."""
    name: str = request.node.name
    return hashlib.sha256(name.encode()).hexdigest()[:12].upper()


async def reset_while_away(site: Site, serial: str) -> tuple[SimulatedDevice, str, dict[str, Any]]:
    """A device that was provisioned, is switched off, and is to be reset: the device, its id, the command."""
    device = site.device(serial)
    binding = await device.provision(end_user_id="eu_1")
    return device, binding.device_id, await site.reset(binding.device_id)


async def acknowledge(site: Site, token: str, command: dict[str, Any], status: str, **more: Any) -> dict[str, Any]:
    """Acknowledge over HTTP as the device does; the answer."""
    answer = await site.as_device(
        token,
        "POST",
        f"commands/{command['id']}/ack",
        {"command_id": command["id"], "status": status, "receipt": receipt_of(token, command, status), **more},
    )
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_a_second_reset_is_the_same_reset(site: Site, serial: str) -> None:
    """While a reset is open another one changes nothing: one command, one generation, one event."""
    device, device_id, command = await reset_while_away(site, serial)
    before = await site.get(device_id)
    again = await site.post(f"{device_id}/reset")
    assert again == before
    assert [each["id"] for each in await site.commands(device_id)] == [command["id"]]
    assert (await site.events(device_id)).count("reset.requested") == 1
    await site.broker_agrees()
    async with running(device):
        await device.wait_for("unprovisioned")
        await site.becomes(device_id, "executed")
    assert device.counts["reset_begun"] == 1


async def test_a_reset_cancels_the_other_commands(site: Site, serial: str) -> None:
    """What was open for the old owner is cancelled and cleared; the device gets the reset and nothing else."""
    device = site.device(serial)
    device_id = (await device.provision(end_user_id="eu_1")).device_id
    waiting = [
        await site.post(f"{device_id}/commands", {"type": kind}, status=201) for kind in ("reboot", "start_recording")
    ]
    await site.broker_agrees()
    await site.reset(device_id)
    statuses = {each["type"]: each["status"] for each in await site.commands(device_id)}
    assert statuses == {RESET: "pending", "reboot": "cancelled", "start_recording": "cancelled"}
    await site.broker_agrees()
    async with running(device):
        await device.wait_for("unprovisioned")
        await site.becomes(device_id, "executed")
    assert [each["type"] for each in details(device, "command_received")] == [RESET]
    assert {each["id"] for each in waiting}.isdisjoint(each["command_id"] for each in details(device, "acknowledged"))


@pytest.mark.guarantee("G9")
async def test_a_reset_can_be_cancelled_until_it_is_delivered(site: Site, serial: str) -> None:
    """Before: cancelled and cleared, the token stays dead, and the device works after another bind."""
    device, device_id, command = await reset_while_away(site, serial)
    token = token_of(device)
    cancelled = await site.post(f"{device_id}/commands/{command['id']}/cancel")
    assert cancelled["status"] == "cancelled"
    await site.token_is_dead(device_id, token)
    await site.broker_agrees()
    anew = site.device(serial, flash=MemoryFlash())
    await anew.provision(end_user_id="eu_2")
    async with running(anew):
        await anew.wait_for_fact("heartbeat", count=3)
    assert (anew.counts["command_received"], anew.counts["reset_begun"]) == (0, 0)
    assert anew.binding


@pytest.mark.guarantee("G9")
async def test_a_delivered_reset_cannot_be_cancelled(site: Site, serial: str) -> None:
    """After `delivered` a cancel is 409 and changes nothing; the device carries the reset out."""
    device, device_id, command = await reset_while_away(site, serial)
    assert (await acknowledge(site, token_of(device), command, "delivered"))["status"] == "delivered"
    refused = await site.post(f"{device_id}/commands/{command['id']}/cancel", status=409)
    assert refused["error"]["code"] == "reset_pending"
    assert (await site.newest(device_id))["status"] == "delivered"
    async with running(device):
        await device.wait_for("unprovisioned")
        await site.becomes(device_id, "executed")


@pytest.mark.guarantee("G10")
async def test_a_failed_reset_can_be_requested_again(site: Site, serial: str) -> None:
    """`failed` ends the command with its error and leaves the token its way; a new reset is a new command."""
    device, device_id, first = await reset_while_away(site, serial)
    token = token_of(device)
    error = {"code": "flash_worn_out", "message": "sector 7 does not erase"}
    failed = await acknowledge(site, token, first, "failed", error=error)
    assert (failed["status"], failed["error"]) == ("failed", error)
    await site.broker_agrees()
    assert (await site.as_device(token, "POST", "heartbeat", {})).json() == {"status": "ok"}
    second = await site.reset(device_id)
    assert second["id"] != first["id"]
    assert second["binding_generation"] == first["binding_generation"]
    await site.broker_agrees()
    async with running(device):
        await device.wait_for("unprovisioned")
        await site.becomes(device_id, "executed")
    assert [each["status"] for each in await site.commands(device_id)] == ["executed", "failed"]
    await site.token_is_dead(device_id, token)


@pytest.mark.guarantee("G6")
async def test_the_reset_of_an_unbound_device_waits_for_a_binding(site: Site, serial: str) -> None:
    """It is queued though no device can fetch it; a bind then answers 409 unless it asks to supersede the reset."""
    registered = await site.http.post("/v1/devices", json={"serial_number": serial})
    device_id = registered.json()["id"]
    command = await site.reset(device_id)
    assert (command["status"], command["binding_generation"]) == ("pending", 1)
    await site.broker_agrees()
    refused = await site.post(f"{device_id}/bind", {"end_user_id": "eu_1"}, status=409)
    assert refused["error"]["code"] == "reset_pending"
    device = site.device(serial)
    await device.provision(end_user_id="eu_1", supersede_reset=True)
    async with running(device):
        await device.wait_for_fact("heartbeat", count=3)
    assert device.counts["command_received"] == 0
    assert (await site.newest(device_id))["status"] == "cancelled"
    await site.broker_agrees()


async def test_an_unknown_device_cannot_be_reset(site: Site) -> None:
    """404 for an unknown id and for an invalid one, 400 for a path that hides something, and nothing is queued."""
    before = site.fingerprint()
    answer = await site.http.post("/v1/devices/dev_%00/reset")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    for device_id in ("dev_01ARZ3NDEKTSV4RRFFQ69G5FAV", "nonsense", ".."):
        answer = await site.http.post(f"/v1/devices/{device_id}/reset")
        assert answer.status_code == 404, answer.text
        assert answer.json()["error"]["code"] == "not_found"
    assert site.fingerprint() == before


@pytest.mark.guarantee("G5")
async def test_a_power_cut_between_wipe_and_acknowledgement_is_reported_later(site: Site, serial: str) -> None:
    """Bound again with `supersede_reset`, the device says late that it obeyed; its command stays cancelled."""
    device = site.device(serial, faults=SeededFaults(random.Random(1), power_cuts=["publish:ack:executed"]))  # noqa: S311 - faults
    binding = await device.provision(end_user_id="eu_1")
    device_id, old = binding.device_id, binding.device_token
    async with running(device):
        await device.wait_for("online")
        command = await site.reset(device_id)
        await device.wait_for_fact("power_cut")
        await device.wait_for("unprovisioned")
        await site.becomes(device_id, "delivered")
        with pytest.raises(ApiError) as refused:
            await device.provision(end_user_id="eu_2")
        assert (refused.value.status, refused.value.code) == (409, "reset_pending")
        await device.provision(end_user_id="eu_2", supersede_reset=True)
        beats = device.counts["heartbeat"]
        await device.wait_for_fact("heartbeat", count=beats + 3)
        shown = await _with_late_word(site, device_id)
    assert (shown["id"], shown["status"]) == (command["id"], "cancelled")
    assert shown["result"]["late_acknowledgement"]["status"] == "executed"
    events = await site.events(device_id)
    assert events.index("reset.superseded") < events.index("acknowledgement.late")
    assert events.count("acknowledgement.late") == 1
    assert device.counts["reset_begun"] == 1
    assert (await site.get(device_id))["status"] == "bound"
    await site.token_is_dead(device_id, old)
    await site.broker_agrees()


async def _with_late_word(site: Site, device_id: str) -> dict[str, Any]:
    async def told() -> dict[str, Any] | None:
        command = await site.newest(device_id)
        return command if command["result"] else None

    command: dict[str, Any] | None = await eventually(told, "the late word stands in the command")
    assert command
    return command


@pytest.mark.guarantee("G6")
async def test_a_device_that_was_reset_by_hand_is_bound_again(site: Site, serial: str) -> None:
    """409 while the reset is open; superseded it is cancelled and cleared, and the new binding is never wiped."""
    device, device_id, command = await reset_while_away(site, serial)
    old = token_of(device)
    await site.broker_agrees()
    reset_by_hand = site.device(serial, flash=MemoryFlash())
    with pytest.raises(ApiError) as refused:
        await reset_by_hand.provision(end_user_id="eu_2")
    assert (refused.value.status, refused.value.code) == (409, "reset_pending")
    await reset_by_hand.provision(end_user_id="eu_2", supersede_reset=True)
    await site.broker_agrees()
    await site.token_is_dead(device_id, old)
    async with running(reset_by_hand):
        await reset_by_hand.wait_for_fact("heartbeat", count=3)
        shown = await site.get(device_id)
    assert (shown["end_user_id"], shown["binding_generation"]) == ("eu_2", command["binding_generation"] + 2)
    assert (await site.newest(device_id))["status"] == "cancelled"
    assert (reset_by_hand.counts["command_received"], reset_by_hand.counts["reset_begun"]) == (0, 0)


async def test_a_retained_command_is_readable_by_its_device_alone(site: Site, serial: str) -> None:
    """Another device, authenticated, that asks for everything is handed nothing of this device's reset."""
    _, device_id, _ = await reset_while_away(site, serial)
    await site.synced()
    spy = await site.device(f"{serial}SPY").provision(end_user_id="eu_spy")
    await site.synced()
    async with wire.Wire.open(site.gateway.host, site.gateway.port) as raw:
        assert await raw.connect(spy.device_id, spy.device_id, spy.mqtt_password) == wire.ACCEPTED
        await raw.subscribe("#", "devices/+/commands/+", topic(device_id), f"devices/{spy.device_id}/commands/reboot")
        reboot = await site.post(f"{spy.device_id}/commands", {"type": "reboot"}, status=201)
        message = await raw.read_publish()
    assert json.loads(message.payload)["id"] == reboot["id"]


@pytest.mark.guarantee("G12")
async def test_a_reset_only_token_can_only_fetch_its_reset(site: Site, serial: str) -> None:
    """Telemetry over MQTT is not stored any more; HTTP says 401 to all but heartbeat, acknowledgement and refresh."""
    device, device_id, _ = await reset_while_away(site, serial)
    token = token_of(device)
    await site.synced()
    async with wire.Wire.open(site.gateway.host, site.gateway.port) as raw:
        assert await raw.connect(device_id, device_id, mqtt_password_of(token)) == wire.ACCEPTED
        await raw.publish(f"devices/{device_id}/heartbeat", b'{"battery_percent": 42}')
    for method, path in (("GET", "commands/pending"), ("GET", "state")):
        answer = await site.as_device(token, method, path)
        assert answer.status_code in (401, 404, 405), f"{method} {path}: {answer.status_code}"
    assert (await site.as_device(token, "GET", "commands/pending")).status_code == 401
    shown = await site.get(device_id)
    assert shown["battery_percent"] is None
