"""What `gateway doctor` and `gateway serve` say of a fleet that comes near a limit of its broker, or has passed it."""

from pathlib import Path
from typing import Any

import pytest

from gateway.broker.capacity import NEARLY_REACHED
from gateway.doctor.findings import Finding, Level
from gateway.doctor.run_checks import examine
from gateway.settings.loading import load
from gateway.store import Tx
from tests.domain.support import World
from tests.e2e.support import running_site
from tests.support.ports import closed_port
from tests.support.wait import eventually

pytestmark = pytest.mark.damages_registry
"""The kept counts of a large fleet stand for it."""
_LIMITS = ("size of the fleet", "retained states", "size in mosquitto.conf")


def _count(tx: Tx, devices: int) -> None:
    tx.run("UPDATE device_counts SET total = ?, bound = ?", devices, devices)


def _grow(data: Path, devices: int) -> None:
    """Make a registry with so many bound devices, as far as its kept counts go."""
    with World(data) as world:
        world.bound()
        world.run(_count, devices)


async def _examined(data: Path, **settings: Any) -> dict[str, Finding]:
    loaded = load({"data_dir": str(data), **settings}, {})
    return {each.name: each async for each in examine(loaded, fix=False) if each.name in _LIMITS}


@pytest.mark.parametrize(
    ("devices", "level", "says"),
    [
        (399, Level.OK, "399 of 500 bound devices"),
        (400, Level.WARNING, "There are 400 bound devices, 80 % of what the embedded broker is good for (500)"),
        (501, Level.WARNING, "There are 501 bound devices, and the embedded broker is good for 500"),
    ],
)
async def test_the_doctor_warns_before_the_embedded_broker_is_full(
    tmp_path: Path, devices: int, level: Level, says: str
) -> None:
    """From 80 % on, while no gateway runs, too."""
    _grow(tmp_path, devices)
    found = (await _examined(tmp_path))["size of the fleet"]
    assert found.level is level
    assert found.says.startswith(says)
    assert level is Level.OK or "--broker mosquitto" in str(found.remedy)


@pytest.mark.parametrize(
    ("devices", "settings", "warned"),
    [
        (19_999, {}, set()),
        (20_000, {}, {"size in mosquitto.conf"}),
        (80_000, {"mosquitto_devices": "200000"}, {"size of the fleet"}),
        (160_000, {"mosquitto_devices": "1000000"}, {"size of the fleet", "retained states"}),
        (160_000, {"mosquitto_devices": "1000000", "publish_state": "false"}, {"size of the fleet"}),
    ],
)
async def test_the_doctor_warns_before_mosquitto_is_full(
    tmp_path: Path, devices: int, settings: dict[str, str], warned: set[str]
) -> None:
    """Of devices, of retained states, and of the size that its configuration was written for."""
    _grow(tmp_path, devices)
    with closed_port() as port:
        found = await _examined(
            tmp_path, broker=f"mqtt://u:p@127.0.0.1:{port}", mosquitto_password_file=str(tmp_path / "p"), **settings
        )
    assert {name for name, each in found.items() if each.level is Level.WARNING} == warned
    assert set(found) == {"size of the fleet"} if settings.get("publish_state") else set(_LIMITS)


async def test_serve_warns_before_the_embedded_broker_is_full(tmp_path: Path) -> None:
    """In its log, with the number and the remedy; the doctor says the same beside it."""
    data = tmp_path / "gateway" / "data"
    data.mkdir(mode=0o700, parents=True)
    _grow(data, 400)
    async with running_site(tmp_path, "embedded") as site:
        await eventually(lambda: bool(site.gateway.logged(NEARLY_REACHED)), "the gateway warns")
        (warning,) = site.gateway.logged(NEARLY_REACHED)
        assert (warning["number"], warning["most"], warning["level"]) == (400, 500, "warning")
        assert "gateway broker init" in warning["message"]
        assert (await _examined(site.gateway.data))["size of the fleet"].level is Level.WARNING
