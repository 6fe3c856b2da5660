"""A restore begins a new epoch: on a real Mosquitto no reset from before it wipes a device that was bound after it.

The story: a backup while a device is unbound. It is bound, connects with its persistent session and goes away. Its
reset is queued in that session. The registry is lost and put back, and the operator binds the device again, as the
runbook says. That ends the session, and the reset in it. A broker that kept the reset hands it out all the same.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest

from device_sim import SimulatedDevice
from tests.e2e.program import run, script
from tests.e2e.support import Site, details, running, running_site, topic
from tests.support.wait import eventually

LOST_GENERATION = 1
STEP = 1 << 20


async def _gateway(site: Site, *arguments: str) -> None:
    outcome = await run(script("gateway"), *arguments, "--data-dir", str(site.gateway.data))
    assert outcome.code == 0, outcome.err


async def _restored(site: Site, copy: Path) -> None:
    """As the runbook says."""
    await _gateway(site, "restore", str(copy), "--yes")


async def _copied_back(site: Site, copy: Path) -> None:
    """With ``cp``."""
    for side in ("-wal", "-shm"):
        (site.gateway.data / f"gateway.db{side}").unlink(missing_ok=True)
    shutil.copyfile(copy, site.gateway.data / "gateway.db")


async def _on_another_machine(site: Site, copy: Path) -> None:
    """With nothing but the backup."""
    shutil.rmtree(site.gateway.data)
    await _restored(site, copy)


async def _as_a_snapshot(site: Site, copy: Path) -> None:
    """The whole data directory as it was at the backup: only the broker can tell."""
    shutil.rmtree(site.gateway.data)
    shutil.copytree(copy.parent / "snapshot", site.gateway.data)


@pytest.mark.parametrize("put_back", [_restored, _copied_back, _on_another_machine, _as_a_snapshot])
async def test_a_reset_of_the_lost_registry_wipes_no_device(tmp_path: Path, put_back: object) -> None:
    """The device that was bound after the restore refuses it, stays bound, and obeys a reset that is meant for it."""
    assert callable(put_back)
    async with running_site(tmp_path, "mosquitto") as site:
        device_id = (await site.http.post("/v1/devices", json={"serial_number": "SN1"})).json()["id"]
        copy = await _copy_of(site, tmp_path)
        old_reset, as_published = await _queued_in_its_session(site, device_id)
        await site.gateway.stop()
        await put_back(site, copy)
        await site.gateway.restart()
        await site.synced()
        device = site.device("SN1")  # reset by hand, as one has to whose token is refused
        binding = await device.provision(end_user_id="eu_2")
        assert binding.device_id == device_id
        async with running(device):
            await device.wait_for_fact("online")
            await site.publish(topic(device_id), as_published)
            refused = await _fact(device, "command_refused", old_reset)
            assert refused["code"] in ("grant_invalid", "stale_generation")
            assert binding.generation > LOST_GENERATION + STEP
            assert details(device, "reset_begun") == []
            assert device.binding == binding
            assert (await site.get(device_id))["end_user_id"] == "eu_2"
            await site.reset(device_id)
            await site.becomes(device_id, "executed")
        await site.broker_agrees()
        assert await site.retained() == {}


async def test_a_device_bound_in_the_backup_keeps_working(tmp_path: Path) -> None:
    """A bound device obeys the next reset, an open reset reaches its device, and the broker holds what is open."""
    async with running_site(tmp_path, "mosquitto") as site:
        bound, waiting = site.device("SN1"), site.device("SN2")
        for device in (bound, waiting):
            await device.provision(end_user_id="eu_1")
            async with running(device):
                await device.wait_for_fact("online")
        reset = await site.reset(_id(waiting))
        copy = await _copy_of(site, tmp_path)
        await site.gateway.stop()
        await site.broker.stop()
        shutil.rmtree(site.broker.files.persistence_dir)
        await _restored(site, copy)
        await site.broker.start()
        await site.gateway.restart()
        await site.synced()
        assert await site.open_commands() == {topic(_id(waiting)): reset["id"]}
        await site.broker_agrees()
        waiting_id, bound_id = _id(waiting), _id(bound)
        assert (await site.get(bound_id))["binding_generation"] > STEP
        async with running(bound, waiting):
            await site.becomes(waiting_id, "executed")
            await site.reset(bound_id)
            await site.becomes(bound_id, "executed")
        await site.broker_agrees()
        assert await site.retained() == {}


async def _copy_of(site: Site, folder: Path) -> Path:
    """A backup, and beside it a copy of the whole data directory as it is at the moment."""
    copy = folder / "copy.db"
    await _gateway(site, "backup", str(copy))
    await site.gateway.stop()
    shutil.copytree(site.gateway.data, folder / "snapshot")
    await site.gateway.restart()
    await site.synced()
    return copy


async def _queued_in_its_session(site: Site, device_id: str) -> tuple[str, bytes]:
    """Bind the device, let it connect and go away, and reset it.

    Returns the id of the reset that waits in its session, and the payload.
    """
    device = site.device("SN1")
    binding = await device.provision(end_user_id="eu_1")
    assert binding.generation == LOST_GENERATION
    async with running(device):
        await device.wait_for_fact("online")
    reset = await site.reset(device_id)
    await site.synced()
    return str(reset["id"]), (await site.retained())[topic(device_id)]


async def _fact(device: SimulatedDevice, name: str, command_id: str) -> dict[str, Any]:
    """The first fact of this name about this command."""

    async def there() -> dict[str, Any] | None:
        return next((each for each in details(device, name) if each["command_id"] == command_id), None)

    found: dict[str, Any] | None = await eventually(there, f"{device.serial} says {name} of {command_id}")
    assert found
    return found


def _id(device: SimulatedDevice) -> str:
    assert device.binding
    return device.binding.device_id
