"""`device-sim` as a process against `gateway serve`."""

import json
import re
import signal
from pathlib import Path

import pytest

from tests.e2e.program import Outcome, Program, clean_environment, error_lines, run, script, started
from tests.e2e.support import BROKERS, BrokerKind, Site, running_site
from tests.support.ports import closed_port
from tests.support.wait import eventually


def simulator(site: Site, folder: Path, *options: str) -> Program:
    """A device of its own process; the key stands in the environment, as the help advises."""
    environment = clean_environment(GATEWAY_API_KEY=site.key, GATEWAY_URL=site.gateway.url)
    return Program(folder, "device-sim", script("device-sim"), *options, environment=environment)


def is_a_helpful_failure(outcome: Outcome, *words: str, code: int = 1) -> None:
    """Lines that begin with `error: ` and say what can be done; no traceback."""
    assert outcome.code == code, outcome
    assert "Traceback" not in outcome.err
    assert outcome.err.startswith("error: ")
    for word in words:
        assert word in outcome.err, f"{word!r} is missing in: {outcome.err}"


@pytest.mark.parametrize("kind", BROKERS)
@pytest.mark.parametrize("radio", ["wifi", "cellular"])
async def test_a_device_runs_until_it_is_reset(tmp_path: Path, kind: BrokerKind, radio: str) -> None:
    """`run --until-reset`: registered, bound, online; reset over HTTP it has wiped its flash and exits with 0."""
    async with running_site(tmp_path, kind) as site:
        flash = tmp_path / "flash"
        device = simulator(
            site, tmp_path, "run", "--until-reset", "--interval", "0.2", "--radio", radio, "--flash", str(flash)
        )
        async with started(device):
            await device.said("heartbeat: battery")
            [registered] = (await site.http.get("/v1/devices")).json()["data"]
            assert "device_token" in {each.stem for each in (flash / "wiped").iterdir()}
            await site.reset(registered["id"])
            assert await device.ended() == 0
            await site.becomes(registered["id"], "executed")
        assert error_lines(device.err) == ""
        for word in ("wiped device_token", "wiped pairing", "wiped wifi_networks", "acknowledged: executed"):
            assert word in device.out
        assert list((flash / "wiped").iterdir()) == []
        await site.broker_agrees()


async def test_a_device_continues_from_its_flash(tmp_path: Path) -> None:
    """Stopped and started again it needs no key, is the same device, and is not bound a second time."""
    async with running_site(tmp_path, "embedded") as site:
        options = ("run", "--interval", "0.2", "--flash", str(tmp_path / "flash"), "--json")
        first = simulator(site, tmp_path / "first", *options)
        async with started(first):
            await first.said('"fact": "heartbeat"')
            assert await first.stop() == 0
        again = Program(tmp_path / "again", "device-sim", script("device-sim"), *options)
        async with started(again):
            await again.said('"fact": "heartbeat"')
            await again.kill()
        facts = [json.loads(line) for line in again.out.splitlines()]
        assert {"registered", "bound"}.isdisjoint(fact["fact"] for fact in facts)
        [device] = (await site.http.get("/v1/devices")).json()["data"]
        assert (device["status"], device["binding_generation"]) == ("bound", 1)


@pytest.mark.parametrize("kind", BROKERS)
async def test_a_fleet_runs_and_prints_a_summary(tmp_path: Path, kind: BrokerKind) -> None:
    """Twenty devices of one seed: all bound, all heard, none failed; the table and the JSON say so."""
    async with running_site(tmp_path, kind) as site:
        environment = clean_environment(GATEWAY_API_KEY=site.key, GATEWAY_URL=site.gateway.url)
        fleet = (script("device-sim"), "fleet", "--count", "20", "--seed", "1", "--duration", "3", "--interval", "1")
        outcome = await run(*fleet, "--json", environment=environment)
        assert outcome.code == 0, outcome.err
        summary = json.loads(outcome.out)
        assert summary["failures"] == {}
        assert sum(row["devices"] for row in summary["radios"]) == 20
        assert sum(row["online"] for row in summary["radios"]) == 20
        listed = (await site.http.get("/v1/devices?limit=100")).json()["data"]
        assert len(listed) == 20
        assert {device["status"] for device in listed} == {"bound"}
        assert all(device["last_heartbeat_at"] for device in listed)
        again = await run(*fleet, environment=environment)
        is_a_helpful_failure(again, "20 of 20 devices failed", "--seed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_fleet_with_missing_devices_reports_them_at_the_end(tmp_path: Path, number: signal.Signals) -> None:
    """One of three could not be bound: the others live, and the signal ends it with the reason and exit code 1."""
    async with running_site(tmp_path, "embedded") as site:
        taken = (await site.http.post("/v1/devices", json={"serial_number": "SIM-5-00001"})).json()["id"]
        await site.post(f"{taken}/bind", {"end_user_id": "eu_before"})
        options = ("fleet", "--count", "3", "--seed", "5", "--radio-mix", "wifi=1", "--interval", "0.2")
        fleet = simulator(site, tmp_path, *options)

        async def two_online() -> bool:
            return bool((await site.http.get("/v1/devices/stats")).json()["online_count"] == 2)

        async with started(fleet):
            await eventually(two_online, "the two others are online")
            assert await fleet.stop(number) == 1
        assert "error: 1 of 3 devices failed.\nerror: SIM-5-00001: " in fleet.err
        assert "Unbind it first" in fleet.err
        assert "Traceback" not in fleet.err


async def test_a_fleet_stopped_during_provisioning_reports_it(tmp_path: Path) -> None:
    """Ctrl-C before all devices were bound is no success: the exit code is 1 and the message has the number."""
    async with running_site(tmp_path, "embedded", "--rate-limit-per-minute", "20") as site:
        fleet = simulator(site, tmp_path, "fleet", "--count", "40", "--radio-mix", "wifi=1")

        async def limited() -> bool:
            return any(each["status"] == 429 for each in site.gateway.logged("http.request"))

        async with started(fleet):
            await eventually(limited, "the fleet waits for the rate limit")
            assert await fleet.stop(signal.SIGINT) == 1
        assert re.search(r"error: Stopped before \d+ of 40 devices were provisioned\.", fleet.err)


async def test_a_wrong_key_is_an_error(tmp_path: Path) -> None:
    """401, and how a key is made; the same for a key that may only read."""
    async with running_site(tmp_path, "embedded") as site:
        one = (script("device-sim"), "run", "--url", site.gateway.url, "--key")
        is_a_helpful_failure(await run(*one, "sk_test_wrong"), "401", "gateway keys create")
        reader = site.gateway.new_key("devices:read")
        is_a_helpful_failure(await run(*one, reader), "403", "devices:write")
        assert (await site.http.get("/v1/devices")).json()["data"] == []


async def test_a_missing_key_is_an_error() -> None:
    """Wrong usage, and both ways to name one."""
    outcome = await run(script("device-sim"), "run")
    is_a_helpful_failure(outcome, "--api-key-file", "GATEWAY_API_KEY", code=2)


async def test_an_unreachable_gateway_is_an_error() -> None:
    """No server at the URL: the message has the URL, and how to start one."""
    with closed_port() as port:
        url = f"http://127.0.0.1:{port}"
        outcome = await run(script("device-sim"), "run", "--url", url, "--key", "sk_test_any")
    is_a_helpful_failure(outcome, url, "gateway serve")


async def test_a_bound_serial_number_is_an_error(tmp_path: Path) -> None:
    """Without its flash it cannot go on: 409, and the ways out."""
    async with running_site(tmp_path, "embedded") as site:
        await site.device("SN1").provision(end_user_id="eu_1")
        one = (script("device-sim"), "run", "--url", site.gateway.url, "--key", site.key, "--serial", "SN1")
        is_a_helpful_failure(await run(*one), "409", "unbind", "--flash")
        [device] = (await site.http.get("/v1/devices")).json()["data"]
        await site.reset(device["id"])
        is_a_helpful_failure(await run(*one), "409", "--supersede-reset")
