"""A fleet: repeatable from its seed, and what one device does does not disturb the others."""

import asyncio
from pathlib import Path

from device_sim import Fleet, GatewayApi, State, UnreachableError
from tests.device_sim.support import GUARD_SECONDS
from tests.device_sim.testbed import QUICK, DeviceTestbed, open_testbed


def a_fleet(testbed: DeviceTestbed, *, count: int = 6, seed: int = 7, flash_root: Path | None = None) -> Fleet:
    """A small fleet with quick heartbeats."""
    return Fleet(
        api=testbed.api,
        count=count,
        seed=seed,
        radio_mix={"wifi": 1, "cellular": 1, "ble": 1},
        interval=0.05,
        flash_root=flash_root,
        options=QUICK,
    )


async def run_until(fleet: Fleet, name: str) -> None:
    """Let a fleet live until each of its devices has seen a fact."""
    living = asyncio.create_task(fleet.run())
    async with asyncio.timeout(GUARD_SECONDS):
        for device in fleet.devices:
            await device.wait_for_fact(name)
    living.cancel()
    await asyncio.wait([living])


async def test_every_device_comes_online(tmp_path: Path) -> None:
    """Every device is bound to a separate end user, connects over its radio and sends heartbeats."""
    done: list[int] = []
    async with open_testbed(tmp_path) as testbed:
        fleet = a_fleet(testbed)
        await fleet.provision(on_done=lambda: done.append(1))
        await run_until(fleet, "heartbeat")
    rows = fleet.summary()
    assert len(done) == 6
    assert fleet.failures == {}
    assert sum(row.online for row in rows) == sum(row.devices for row in rows) == 6
    assert all(row.heartbeats >= row.devices for row in rows)
    users = {device.binding.end_user_id for device in fleet.devices if device.binding}
    assert users == {f"eu_sim7x{number}" for number in range(6)}


async def test_the_seed_determines_serials_and_radios(tmp_path: Path) -> None:
    """Serial numbers and radios follow from the seed."""
    async with open_testbed(tmp_path) as testbed:
        one, same, other = (
            [(device.serial, device.radio) for device in a_fleet(testbed, count=30, seed=seed).devices]
            for seed in (7, 7, 8)
        )
    assert one == same
    assert [radio for _, radio in one] != [radio for _, radio in other]
    assert one[0][0] == "SIM-7-00000"
    assert {radio for _, radio in one} == {"wifi", "cellular", "ble"}


async def test_a_reset_is_counted_in_the_summary(tmp_path: Path) -> None:
    """One device is reset; the summary counts it and the others go on."""
    async with open_testbed(tmp_path) as testbed:
        fleet = a_fleet(testbed)
        await fleet.provision()
        chosen = next(device for device in fleet.devices if device.radio == "wifi")
        await testbed.command(chosen, "factory_reset")
        living = asyncio.create_task(fleet.run())
        async with asyncio.timeout(GUARD_SECONDS):
            await chosen.wait_for_fact("rebooting")
            await chosen.wait_for(State.UNPROVISIONED)
        living.cancel()
        await asyncio.wait([living])
    [wifi] = [row for row in fleet.summary() if row.radio == "wifi"]
    assert (wifi.resets, wifi.executed, wifi.unpaired, wifi.refused) == (1, 1, 1, 0)


async def test_a_fleet_continues_from_its_flash(tmp_path: Path) -> None:
    """A fleet on disk is bound once; the next run uses the same tokens."""
    async with open_testbed(tmp_path) as testbed:
        first = a_fleet(testbed, flash_root=tmp_path / "fleet")
        await first.provision()
        again = a_fleet(testbed, flash_root=tmp_path / "fleet")
        await again.provision()
        assert set(testbed.gateway.bound.values()) == {1}
        assert [each.binding for each in again.devices] == [each.binding for each in first.devices]
        await run_until(again, "heartbeat")


async def test_failures_are_collected_by_serial_number(tmp_path: Path) -> None:
    """A device that can't be bound is named with its reason, and no exception ends the others."""
    async with open_testbed(tmp_path) as testbed, GatewayApi("http://127.0.0.1:9", "sk_test_x") as nowhere:
        fleet = Fleet(api=nowhere, count=3, seed=1, options=QUICK)
        await fleet.provision()
        assert len(fleet.failures) == 3
        assert all(isinstance(error, UnreachableError) for error in fleet.failures.values())
        fleet = a_fleet(testbed)
        testbed.gateway.refuse_bind = (409, "reset_pending")
        await fleet.provision()
        assert {str(error) for error in fleet.failures.values()} == {"refused as reset_pending (409 reset_pending)"}
