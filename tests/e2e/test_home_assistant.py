"""Devices in a real Home Assistant, by its own MQTT client and schemas: announced, shown, changed, taken back."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.program import Program, clean_environment, run, script, started
from tests.e2e.support import Site, running_site
from tests.support import home_assistant, wire
from tests.support.snippets import ROOT, run_by
from tests.support.wait import eventually

HEARTBEAT = {
    "battery_percent": 81,
    "storage_used_mb": 512,
    "storage_total_mb": 8192,
    "signal_strength_dbm": -61,
    "firmware_version": "1.4.2",
}
SHOWN = {
    "sensor.ward_3_battery": "81",
    "sensor.ward_3_storage_used": "6.2",
    "sensor.ward_3_signal_strength": "-61",
    "binary_sensor.ward_3_connectivity": "on",
}
pytestmark = pytest.mark.home_assistant

SILENT = ("--heartbeat-interval-seconds", "0.2", "--offline-grace-seconds", "0.2")


class HomeAssistant:
    """What a running Home Assistant says."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def lines(self) -> list[dict[str, Any]]:
        """All of it."""
        return [json.loads(line) for line in self._program.out.splitlines() if line.startswith("{")]

    @property
    def states(self) -> dict[str, str | None]:
        """Entities and their newest states; None: gone."""
        return {line["entity"]: line["state"] for line in self.lines() if "entity" in line}

    @property
    def devices(self) -> list[Any]:
        """Calls of its device registry: what was done, and name, model, firmware and serial number then."""
        return [(line["device"], line["facts"]) for line in self.lines() if "device" in line]

    @property
    def error_lines(self) -> list[str]:
        """What it is not content with."""
        return [line["complaint"] for line in self.lines() if "complaint" in line]

    async def shows(self, **states: str | None) -> None:
        """Wait until these entities are in these states, `sensor__x` standing for `sensor.x`."""
        wanted = {name.replace("__", "."): state for name, state in states.items()}
        await self.has(wanted)

    async def has(self, wanted: dict[str, str | None] | dict[str, str]) -> None:
        """Wait until these entities are in these states."""
        await eventually(
            lambda: all(name in self.states and self.states[name] == state for name, state in wanted.items()),
            f"Home Assistant shows {wanted}; it said {self.states}, {self.error_lines}",
            guard_seconds=60,
        )


@contextlib.asynccontextmanager
async def running_home_assistant(site: Site, folder: Path) -> AsyncIterator[HomeAssistant]:
    """A Home Assistant with an account that the operator made for it."""
    (step,) = run_by("home-assistant", ROOT / "docs" / "home-assistant.md")
    path = f"{Path(script('gateway')).parent}:{clean_environment()['PATH']}"
    environment = clean_environment(GATEWAY_DATA_DIR=str(site.gateway.data), PATH=path)
    made = await run("bash", "-c", step.code, environment=environment)
    assert made.code == 0, made.err
    password = made.out.strip()
    where = site.mosquitto or site.gateway

    async def let_in() -> bool:
        async with wire.Wire.open(where.host, where.port) as client:
            return await client.connect("home_assistant", "home_assistant", password) == wire.ACCEPTED

    await eventually(let_in, "the broker lets it in")
    (folder / "home").mkdir()
    python = await asyncio.to_thread(home_assistant.python)
    program = Program(
        folder, "home", python, str(home_assistant.WATCH), str(folder / "home"), where.host, str(where.port), password
    )
    async with started(program):
        await program.said('"ready"')
        yield HomeAssistant(program)


async def test_home_assistant_shows_each_device(tmp_path: Path) -> None:
    """Found by itself; battery, storage, signal, connectivity, last heartbeat; renamed; gone when it is deleted.

    Nothing of what it is sent makes it complain.
    """
    async with (
        running_site(tmp_path, "embedded", "--home-assistant", *SILENT) as site,
        running_home_assistant(site, tmp_path) as home,
    ):
        device = (await site.http.post("/v1/devices", json={"serial_number": "SN-1", "name": "Ward 3"})).json()
        await home.has({name: "unknown" for name in SHOWN if name.startswith("sensor")})
        token = (await site.post(f"{device['id']}/bind", {"end_user_id": "eu_1"}))["device_token"]
        assert (await site.as_device(token, "POST", "heartbeat", HEARTBEAT)).status_code == 200
        await home.has(SHOWN)
        last = (await site.get(device["id"]))["last_heartbeat_at"]
        assert str(home.states["sensor.ward_3_last_heartbeat"])[:19] == last[:19]
        await home.shows(binary_sensor__ward_3_connectivity="off")
        changed = await site.http.patch(f"/v1/devices/{device['id']}", json={"name": "Ward 4"})
        assert changed.status_code == 200
        await eventually(
            lambda: ["Ward 4", "bota_pin", "1.4.2", "SN-1"] in [facts for _, facts in home.devices], "renamed"
        )
        await site.http.delete(f"/v1/devices/{device['id']}")
        await eventually(lambda: ("remove", None) in home.devices, "Home Assistant has forgotten the device")
        assert set(SHOWN) <= {name for name, state in home.states.items() if state is None}
        assert home.error_lines == []


async def test_switching_it_off_removes_all_entities(tmp_path: Path) -> None:
    """At the next start without the option: the device is gone there, and its state is still told."""
    data = tmp_path / "gateway" / "data"
    data.mkdir(parents=True, mode=0o700)
    (data / "gateway.toml").write_text("home_assistant = true\n")
    async with running_site(tmp_path, "mosquitto") as site, running_home_assistant(site, tmp_path) as home:
        await site.http.post("/v1/devices", json={"serial_number": "SN-1", "name": "Ward 3"})
        await home.has({"sensor.ward_3_battery": "unknown"})
        await site.gateway.stop()
        await home.has({"sensor.ward_3_battery": "unavailable"})
        (data / "gateway.toml").unlink()
        await site.gateway.restart()
        await eventually(lambda: ("remove", None) in home.devices, "Home Assistant has forgotten the device")
        assert home.error_lines == []
