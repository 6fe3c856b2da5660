"""Runs of `device-sim`: one device, and a fleet."""

import json
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.device_sim.program import device_sim, run_arguments
from tests.device_sim.support import API_KEY
from tests.device_sim.testbed import DeviceTestbed

# --- run --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_device_runs_until_it_is_stopped(testbed: DeviceTestbed, number: int) -> None:
    """It provisions, comes online, tells a line per fact, and a signal ends it cleanly with 0."""
    async with device_sim(*run_arguments(testbed)) as program:
        assert "bound to eu_simulated as dev_" in await program.line("bound")
        await program.line("online over wifi (mqtt)")
        await program.line("heartbeat: battery")
        assert await program.end(number) == 0
        await testbed.wait_for_message("/status", b'{"status":"offline"}')
    assert "Traceback" not in program.output
    assert "dtok_" not in program.output


async def test_until_reset_exits_after_the_reset(testbed: DeviceTestbed) -> None:
    """`--until-reset` ends with 0 after the reset; as JSON every fact is an object."""
    async with device_sim(*run_arguments(testbed, "--until-reset", "--json", "--recordings", "2")) as program:
        bound = json.loads(await program.line('"bound"'))
        assert json.loads(await program.line('"heartbeat"'))["pending_recordings"] == 2
        await reset(testbed, bound, params={"recordings": "wipe"})
        assert await program.finished() == 0
    facts: list[dict[str, Any]] = [json.loads(line) for line in program.output.splitlines()]
    wiped = ["device_token", "pairing", "wifi_networks", "recordings"]
    assert [fact["what"] for fact in facts if fact["fact"] == "wiped"] == wiped
    [begun] = [fact for fact in facts if fact["fact"] == "reset_begun"]
    assert (begun["wiped_recordings"], begun["kept_recordings"]) == (2, 0)
    assert all(fact["serial_number"] == "SN1" for fact in facts)


async def reset(testbed: DeviceTestbed, bound: dict[str, Any], params: dict[str, Any] | None = None) -> None:
    """Publish a reset for a device that was just bound."""
    device_id, generation = bound["device_id"], bound["generation"]
    payload = testbed.gateway.signer.command(
        command_id=f"cmd_{generation}", device_id=device_id, generation=generation, params=params
    )
    await testbed.observer.publish(f"devices/{device_id}/commands/factory_reset", payload, qos=1, retain=True)


async def test_a_reset_device_stays_unpaired(testbed: DeviceTestbed, tmp_path: Path) -> None:
    """After a reset it stays unpaired, and prints how to provision it again; the key is not in that line."""
    async with device_sim(*run_arguments(testbed, "--flash", str(tmp_path / "flash"))) as program:
        words = (await program.line("bound to")).split()
        await reset(testbed, {"device_id": words[words.index("as") + 1].rstrip(","), "generation": 1})
        line = await program.line("stays unpaired")
        assert await program.end() == 0
    hint = shlex.split(line.partition("--reprovision): ")[2])
    assert hint[:2] == ["device-sim", "run"]
    assert hint[hint.index("--key") + 1] == "sk_test_…"
    assert hint[hint.index("--interval") + 1] == "0.1"
    assert hint[-2:] == ["--serial", "SN1"]
    assert "--reprovision" in line
    assert str(tmp_path / "flash") in line
    assert API_KEY not in program.output
    assert "wiped device_token" in program.output


async def test_a_device_is_bound_again_after_a_reset(testbed: DeviceTestbed) -> None:
    """`--reprovision` binds again, at the next generation, and the old reset that is still retained wipes nothing."""
    async with device_sim(*run_arguments(testbed, "--reprovision", "--json", "--recordings", "1")) as program:
        bound = json.loads(await program.line('"bound"'))
        await reset(testbed, bound)
        again = json.loads(await program.line('"bound"'))
        await program.line('"already_done"')
        assert await program.end() == 0
    assert (bound["generation"], again["generation"]) == (1, 2)
    [begun] = [json.loads(line) for line in program.output.splitlines() if '"reset_begun"' in line]
    assert (begun["wiped_recordings"], begun["kept_recordings"]) == (0, 1)


async def test_a_killed_device_continues_from_its_flash(testbed: DeviceTestbed, tmp_path: Path) -> None:
    """Killed with SIGKILL, the broker says `offline`; started on its flash it needs no key and is not bound again."""
    flash = str(tmp_path / "flash")
    async with device_sim(*run_arguments(testbed, "--flash", flash)) as program:
        await program.line("heartbeat")
        program.process.kill()
        await testbed.wait_for_message("/status", b'{"status":"offline"}')
    async with device_sim("run", "--flash", flash, "--interval", "0.1", env={"GATEWAY_API_KEY": ""}) as program:
        await program.line("online over wifi")
        assert await program.end() == 0
    assert list(testbed.gateway.bound.values()) == [1]
    assert "SN1" in program.output


# --- fleet ------------------------------------------------------------------------------------------------------------


async def test_a_fleet_runs_and_prints_a_summary(testbed: DeviceTestbed) -> None:
    """A fleet lives for its time and is summed up, without a terminal."""
    arguments = [
        "fleet",
        "--url",
        testbed.gateway.url,
        "--key",
        API_KEY,
        "--count",
        "5",
        "--seed",
        "3",
        "--interval",
        "0.1",
    ]
    async with device_sim(*arguments, "--duration", "1") as program:
        assert await program.finished() == 0
    assert "fleet of seed 3" in program.output
    assert "heartbeats" in program.output
    assert "Traceback" not in program.output


async def test_a_fleet_prints_json(testbed: DeviceTestbed) -> None:
    """The same for a machine; a signal ends it and the summary comes all the same."""
    arguments = ["fleet", "--url", testbed.gateway.url, "--key", API_KEY, "--count", "5", "--interval", "0.1", "--json"]
    async with device_sim(*arguments, "--radio-mix", "wifi=1") as program:
        await testbed.wait_for_message("/heartbeat")
        assert await program.end() == 0
    summary = json.loads(program.output)
    assert summary["failures"] == {}
    assert [(row["radio"], row["devices"]) for row in summary["radios"]] == [("wifi", 5)]


async def test_a_fleet_waits_for_the_rate_limit(testbed: DeviceTestbed) -> None:
    """A refusal by the rate limit is no failure: the fleet waits as long as `Retry-After` says, and all are bound."""
    testbed.gateway.limit_binds = 3
    options = ("--count", "5", "--duration", "0.5", "--radio-mix", "wifi=1", "--json")
    async with device_sim("fleet", "--url", testbed.gateway.url, "--key", API_KEY, *options) as program:
        assert await program.finished() == 0
    assert testbed.gateway.limit_binds == 0
    assert len(testbed.gateway.bound) == 5
    assert json.loads(program.output)["failures"] == {}


async def test_a_fleet_that_cannot_be_provisioned_fails(testbed: DeviceTestbed) -> None:
    """If devices can't be provisioned, the exit code is 1 and the first reason is told with its remedy."""
    testbed.gateway.refuse_bind = (409, "device_already_bound")
    async with device_sim("fleet", "--url", testbed.gateway.url, "--key", API_KEY, "--count", "2") as program:
        assert await program.finished() == 1
    assert "error: 2 of 2 devices failed.\nerror: SIM-0-00000 and 1 more: " in program.output
    assert "another --serial or --seed" in program.output
