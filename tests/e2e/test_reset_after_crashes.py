"""What a reset guarantees (contract, section 4) when processes die: broker down, gateway killed, memory lost."""

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_sim import MemoryFlash, SimulatedDevice
from device_sim.options import wall_clock
from tests.e2e.support import BROKERS, RESET, BrokerKind, Site, details, running, running_site, token_of, topic
from tests.support.wait import eventually

SEED = 20
ROUNDS = 10
LONGEST_DELAY_SECONDS = 0.2


async def offline_device(
    site: Site, serial: str = "SN1", *, clock: Callable[[], int] = wall_clock
) -> tuple[SimulatedDevice, str]:
    """A device that was online once and is switched off; its id."""
    device = site.device(serial, clock=clock)
    binding = await device.provision(end_user_id="eu_1")
    async with running(device):
        await device.wait_for_fact("heartbeat")
    return device, binding.device_id


async def reconnect_and_wipe(site: Site, device: SimulatedDevice, device_id: str) -> None:
    """Switched on it obeys the reset, once, and afterwards both ends agree that nothing is open."""
    async with running(device):
        await device.wait_for("unprovisioned")
        await site.becomes(device_id, "executed")
    assert device.counts["reset_begun"] == 1
    assert device.flash.wiped_area == {}
    await site.broker_agrees()


@pytest.mark.guarantee("G1")
async def test_a_reset_during_a_broker_outage_is_published_afterwards(tmp_path: Path) -> None:
    """200 at once; when the broker is back the command lies there, and the device obeys."""
    async with running_site(tmp_path, "mosquitto") as site:
        device = site.device()
        device_id = (await device.provision(end_user_id="eu_1")).device_id
        async with running(device):
            await device.wait_for("online")
            await site.broker.stop()
            await device.wait_for_fact("offline")
            command = await site.reset(device_id)
            assert command["status"] == "pending"
            ready = await site.http.get("/ready")
            assert (ready.status_code, ready.json()["ready"]) == (503, False)
            assert (await site.http.get("/health")).status_code == 200
            await site.broker.start()
            await device.wait_for("unprovisioned")
            await site.becomes(device_id, "executed")
        assert device.counts["reset_begun"] == 1
        await site.broker_agrees()


async def test_a_bind_during_a_broker_outage_takes_effect_afterwards(tmp_path: Path) -> None:
    """The answer comes though the broker cannot be told, says so, and the token works later."""
    async with running_site(tmp_path, "mosquitto", "--bind-broker-wait-seconds", "0.2") as site:
        await site.broker.stop()
        device = site.device()
        device_id = (await device.provision(end_user_id="eu_1")).device_id
        await site.broker.start()
        async with running(device):
            await device.wait_for("online")
            await site.synced()
        assert (await site.get(device_id))["status"] == "bound"


@pytest.mark.guarantee("G2")
@pytest.mark.parametrize("kind", BROKERS)
async def test_a_reset_survives_a_kill_right_after_its_answer(tmp_path: Path, kind: BrokerKind) -> None:
    """`kill -9` some milliseconds after the 200, ten times over: what was accepted is executed, exactly once.

    The embedded broker dies with the gateway. What a device said to it in its last instant, and has no PUBACK for, is
    lost: the device is wiped all the same, but its command stays open until a bind supersedes it.
    """
    rng = random.Random(f"{SEED}/{kind}")  # noqa: S311 - repeatable delays
    print(f"seed {SEED}")  # noqa: T201 - to play it again
    async with running_site(tmp_path, kind) as site:
        device = site.device()
        for number in range(1, ROUNDS + 1):
            binding = await device.provision(end_user_id=f"eu_{number}", supersede_reset=kind == "embedded")
            async with running(device):
                await device.wait_for_fact("heartbeat", count=device.counts["heartbeat"] + 1)
                links = device.counts["online"]
                command = await site.reset(binding.device_id)
                await asyncio.sleep(rng.uniform(0, LONGEST_DELAY_SECONDS) ** 2)  # the fault: a kill at any instant
                await site.gateway.kill()
                await site.gateway.restart()
                await device.wait_for("unprovisioned")
                if kind == "mosquitto" or device.counts["online"] > links:
                    assert (await site.becomes(binding.device_id, "executed"))["id"] == command["id"]
            assert device.counts["reset_begun"] == number
            assert len(await site.commands(binding.device_id)) == number
            await site.broker_agrees()
        assert len({each["command_id"] for each in details(device, "reset_begun")}) == ROUNDS


async def test_a_reset_executed_during_a_gateway_outage_is_recorded_afterwards(tmp_path: Path) -> None:
    """Mosquitto keeps the word of the device for the gateway's session; started again, it completes the reset."""
    async with running_site(tmp_path, "mosquitto") as site:
        device, device_id = await offline_device(site)
        token = token_of(device)
        command = await site.reset(device_id)
        await site.synced()
        await site.gateway.kill()
        async with running(device):
            await device.wait_for("unprovisioned")
        assert [each["status"] for each in details(device, "acknowledged")] == ["delivered", "executed"]
        assert set(await site.retained()) == {topic(device_id)}
        await site.gateway.restart()
        done = await site.becomes(device_id, "executed")
        assert done["id"] == command["id"]
        await site.token_is_dead(device_id, token)
        await site.broker_agrees()
        assert await site.retained() == {}


async def test_heartbeats_during_a_gateway_outage_are_stored_afterwards(tmp_path: Path) -> None:
    """A persistent session: each heartbeat that the broker took is in the history once the gateway is back."""
    async with running_site(tmp_path, "mosquitto") as site:
        device, device_id = await offline_device(site)
        await site.gateway.kill()
        async with running(device):
            await device.wait_for_fact("heartbeat", count=device.counts["heartbeat"] + 5)
        sent = device.counts["heartbeat"]
        await site.gateway.restart()
        await eventually(lambda: site.count("SELECT count(*) FROM heartbeats") >= sent, f"all {sent} are stored")
        assert (await site.get(device_id))["status"] == "bound"


@pytest.mark.guarantee("G7")
async def test_lost_retained_commands_are_published_again(tmp_path: Path) -> None:
    """Restarted with an empty store it is given the open commands again, and only those."""
    async with running_site(tmp_path, "mosquitto") as site:
        away, away_id = await offline_device(site, "AWAY")
        await site.reset(away_id)
        done, done_id = await offline_device(site, "DONE")
        await site.reset(done_id)
        await reconnect_and_wipe_only(site, done, done_id)
        before = await site.retained()
        assert set(before) == {topic(away_id)}
        await site.broker.restart(forget_retained=True)
        await eventually(lambda: _are_retained(site, before), "the open command is on the broker again")
        await reconnect_and_wipe(site, away, away_id)


async def reconnect_and_wipe_only(site: Site, device: SimulatedDevice, device_id: str) -> None:
    """One of several devices obeys."""
    async with running(device):
        await device.wait_for("unprovisioned")
        await site.becomes(device_id, "executed")
    await site.broker_agrees()


async def _are_retained(site: Site, wanted: dict[str, bytes]) -> bool:
    return await site.retained() == wanted


@pytest.mark.guarantee("G7")
async def test_retained_commands_that_are_closed_are_cleared(tmp_path: Path) -> None:
    """Left overs of a command that is final, of a command that is another one now, and of a stranger are put right."""
    async with running_site(tmp_path, "mosquitto") as site:
        over, over_id = await offline_device(site, "OVER")
        first = await site.reset(over_id)
        await site.synced()
        old = (await site.retained())[topic(over_id)]
        await reconnect_and_wipe(site, over, over_id)
        _, open_id = await offline_device(site, "OPEN")
        second = await site.reset(open_id)
        await site.synced()
        await site.gateway.kill()
        await site.publish(topic(over_id), old, retain=True)
        await site.publish(topic(open_id), b'{"id": "cmd_forged"}', retain=True)
        await site.publish(topic("dev_nobody"), old, retain=True)
        await site.gateway.restart()
        await site.broker_agrees()
        lying = await site.retained()
        assert set(lying) == {topic(open_id)}
        assert json.loads(lying[topic(open_id)])["id"] == second["id"] != first["id"]


async def test_an_old_reset_does_not_wipe_a_device_that_was_bound_again(tmp_path: Path) -> None:
    """Its flash erased, it knows no command ids; the generation alone makes it refuse, and it says why."""
    async with running_site(tmp_path, "mosquitto") as site:
        device, device_id = await offline_device(site)
        command = await site.reset(device_id)
        await site.synced()
        old = (await site.retained())[topic(device_id)]
        await reconnect_and_wipe(site, device, device_id)
        anew = site.device(flash=MemoryFlash())
        await anew.provision(end_user_id="eu_2")
        async with running(anew):
            await anew.wait_for("online")
            await site.publish(topic(device_id), old)
            await anew.wait_for_fact("acknowledged")
            beats = anew.counts["heartbeat"]
            await anew.wait_for_fact("heartbeat", count=beats + 2)
            late = await eventually(
                lambda: _late_acknowledgement(site, device_id), "the late word stands in the command"
            )
        [said] = details(anew, "acknowledged")
        assert (said["command_id"], said["status"]) == (command["id"], "failed")
        assert said["error"]["code"] == "stale_generation"
        assert anew.counts["reset_begun"] == 0
        assert anew.binding
        assert (await site.newest(device_id))["status"] == "executed"
        assert late == "failed"
        assert (await site.get(device_id))["status"] == "bound"


async def _late_acknowledgement(site: Site, device_id: str) -> str | None:
    result: dict[str, Any] = (await site.newest(device_id))["result"]
    word: str | None = result.get("late_acknowledgement", {}).get("status")
    return word


async def test_a_command_that_is_delivered_again_is_executed_once(tmp_path: Path) -> None:
    """A broker that comes back with an old store hands out an executed reset: the device repeats its word, no more."""
    async with running_site(tmp_path, "mosquitto") as site:
        device, device_id = await offline_device(site)
        await site.reset(device_id)
        await site.synced()
        old = (await site.retained())[topic(device_id)]
        await reconnect_and_wipe(site, device, device_id)
        await device.provision(end_user_id="eu_2")
        async with running(device):
            await device.wait_for("online")
            for _ in range(3):
                await site.publish(topic(device_id), old)
            await device.wait_for_fact("already_done", count=3)
            await device.wait_for_fact("heartbeat", count=device.counts["heartbeat"] + 2)
        assert device.counts["reset_begun"] == 1
        assert device.binding
        shown = await site.get(device_id)
        assert (shown["status"], shown["end_user_id"]) == ("bound", "eu_2")


async def test_a_forged_reset_is_refused(tmp_path: Path) -> None:
    """A client that may publish on the broker still cannot sign: the device refuses, and stays as it is."""
    async with running_site(tmp_path, "mosquitto") as site:
        device = site.device()
        binding = await device.provision(end_user_id="eu_1")
        where = topic(binding.device_id)
        async with running(device):
            await device.wait_for("online")
            command = await site.post(f"{binding.device_id}/commands", {"type": "start_recording"}, status=201)
            await device.wait_for_fact("acknowledged", count=2)
            forged = {**_payload(command), "type": RESET, "id": "cmd_01ARZ3NDEKTSV4RRFFQ69G5FAV"}
            await site.publish(where, json.dumps(forged).encode())
            refused = await device.wait_for_fact("command_refused")
            await site.publish(where, b"\xff\x00 not a command")
            await device.wait_for_fact("command_ignored")
        assert refused.details["code"] == "grant_invalid"
        assert device.counts["reset_begun"] == 0
        assert device.binding == binding


def _payload(command: dict[str, Any]) -> dict[str, Any]:
    fields = ("id", "type", "params", "binding_generation", "created_at", "expires_at", "grant_token")
    return {name: command[name] for name in fields}


@pytest.mark.parametrize("kind", BROKERS)
async def test_a_restarted_gateway_keeps_its_state(tmp_path: Path, kind: BrokerKind) -> None:
    """Devices, tokens and open commands are there after a restart; the embedded broker holds them again too."""
    async with running_site(tmp_path, kind) as site:
        device, device_id = await offline_device(site)
        await site.reset(device_id)
        assert await site.gateway.stop() == 0
        before = site.fingerprint()
        await site.gateway.restart()
        await site.synced()
        assert site.fingerprint() == before
        await reconnect_and_wipe(site, device, device_id)
