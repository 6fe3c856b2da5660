"""The fleet that outgrows its broker: said from 80 % on, again when the limit is passed, once a day, and not before."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker_config.sizes import DEFAULT_DEVICES
from gateway.broker.capacity import (
    EMBEDDED_BROKER,
    EXCEEDED,
    NEARLY_REACHED,
    PASSWORD_FILE,
    SAID_EVERY,
    CapacityMonitor,
    capacities,
    configuration,
    retained_states,
)
from gateway.broker.mosquitto import managed
from gateway.settings.loading import load
from gateway.store import Context, Store, Tx, account_sql, gauge_sql, home_sql, outbox_sql
from gateway.store.broker_sql import FIRST
from tests.domain.brokers import with_homes
from tests.domain.support import World

FLEET = 3
DOCS = Path(__file__).parents[2] / "docs"
STATES = frozenset({outbox_sql.STATE})
ALL = STATES | {outbox_sql.DISCOVERY}


async def test_capacity_warning_is_logged_once_a_day(tmp_path: Path) -> None:
    """With one bound device too many, at the first look and then a day later, with what to do."""
    with World(tmp_path) as world:
        for number in range(FLEET):
            world.bound(f"SN-{number}")
        world.register("SN-unbound")
    async with Store(tmp_path, Context()) as store:
        watch, content = (
            CapacityMonitor(store, "default", EMBEDDED_BROKER._replace(most=most)) for most in (FLEET - 1, 2 * FLEET)
        )
        with capture_logs() as logs:
            for _ in range(SAID_EVERY + 1):
                await watch.look()
            await content.look()
    assert [(each["event"], each["number"], each["most"]) for each in logs] == [(EXCEEDED, FLEET, FLEET - 1)] * 2
    assert "--broker mosquitto" in logs[0]["message"]


def _count(tx: Tx, bound: int) -> None:
    tx.run("UPDATE device_counts SET bound = ?", bound)


async def test_a_limit_that_is_near_is_said_before_it_is_passed(tmp_path: Path) -> None:
    """From 80 % on, with the same remedy. When the limit is passed that is said at once, not a day later."""
    with World(tmp_path) as world:
        for number in range(4):
            world.bound(f"SN-{number}")
    async with Store(tmp_path, Context()) as store:
        monitor = CapacityMonitor(store, "default", PASSWORD_FILE._replace(most=5))
        with capture_logs() as logs:
            await monitor.look()
            await monitor.look()
            for bound in (6, 3):
                await store.write(partial(_count, bound=bound))
                await monitor.look()
        await store.write(partial(_count, bound=4))
    assert [(each["event"], each["number"]) for each in logs] == [(NEARLY_REACHED, 4), (EXCEEDED, 6)]
    assert "There are 4 bound devices, 80 % of what Mosquitto's password file is good for (5)" in logs[0]["message"]
    assert "docs other-brokers" in logs[0]["message"]


@pytest.mark.parametrize(
    ("kind", "settings", "named"),
    [
        ("embedded", {}, ["size of the fleet"]),
        ("mosquitto", {}, ["size of the fleet", "retained states"]),
        ("mosquitto", {"publish_state": "false"}, ["size of the fleet"]),
        ("external", {"broker": "mqtt://u:p@127.0.0.1"}, []),
        (
            "external",
            {"broker": "mqtt://u:p@127.0.0.1", "mosquitto_password_file": "p"},
            ["size of the fleet", "retained states", "size in mosquitto.conf"],
        ),
        (
            "external",
            {"broker": "mqtt://u:p@127.0.0.1", "mosquitto_password_file": "p", "publish_state": "false"},
            ["size of the fleet"],
        ),
    ],
)
def test_each_kind_of_broker_has_its_limits(
    tmp_path: Path, kind: str, settings: dict[str, Any], named: list[str]
) -> None:
    """Of a broker that is not known to be Mosquitto no limit is known."""
    loaded = load({"data_dir": str(tmp_path), **settings}, {}).settings
    found = list(capacities(kind, loaded))
    assert [each.name for each in found] == named
    assert not named or found[0].most == (EMBEDDED_BROKER if kind == "embedded" else PASSWORD_FILE).most


def test_what_integrators_read_is_counted(tmp_path: Path) -> None:
    """A state for each device, bound or not, another for the account of its project, and its announcement."""
    with World(tmp_path) as world:
        world.bound()
        device_id = world.register("SN-2")
        assert [gauge_sql.mirrored_at(world.view, "default", each) for each in (STATES, ALL)] == [2, 4]
        world.run(account_sql.create, "integrator_ward", world.project_id)
        assert [gauge_sql.mirrored_at(world.view, "default", each) for each in (STATES, ALL)] == [4, 6]
        world.delete(device_id)
        assert gauge_sql.mirrored_at(world.view, "default", ALL) == 3
        world.run(account_sql.revoke, "integrator_ward")
        assert gauge_sql.mirrored_at(world.view, "default", ALL) == 2
        found = retained_states(ALL)._replace(most=1)
        warning = found.warning(found.counted(world.view, "default"))
    assert warning is not None
    assert warning.message.startswith("There are 2 retained states and announcements, and one Mosquitto is good for 1:")
    assert "publish_state = false" in found.remedy


def test_documented_sizes_hold() -> None:
    """The pages name what the gateway warns of."""
    scaling = (DOCS / "scaling.md").read_text(encoding="utf-8")
    for most, what in (
        (PASSWORD_FILE.most, "bound devices"),
        (retained_states(STATES).most, "retained states"),
        (configuration(DEFAULT_DEVICES).most, "devices"),
    ):
        assert f"| {most:,} {what}" in scaling
    assert f"more than {PASSWORD_FILE.most:,} bound devices" in scaling


@pytest.mark.parametrize(("devices", "near"), [(0, 30_000), (100_000, 120_000)])
def test_a_fleet_outgrows_what_the_gateway_wrote_at_its_start(tmp_path: Path, devices: int, near: int) -> None:
    """Its own mosquitto.conf says for how many it is; at a restart it is written for the fleet of that moment."""
    settings = load({"data_dir": str(tmp_path), "mqtt": "127.0.0.1:0", "broker": "mosquitto"}, {}).settings
    managed.prepared(settings, None, devices)
    found = list(capacities("mosquitto", settings))[-1]
    warnings = [found.warning(number) for number in (near - 1, near, near * 5 // 4 + 1)]
    assert [each and each.event for each in warnings] == [None, NEARLY_REACHED, EXCEEDED]
    assert "Restart the gateway" in found.remedy


async def test_devices_at_home_elsewhere_do_not_count(tmp_path: Path) -> None:
    """Each broker has two of four devices, and a fifth without a home is admitted by both."""
    with with_homes(tmp_path) as world:
        for number in range(4):
            world.bound(f"SN-{number}")
        assert [gauge_sql.bound_at(world.view, each) for each in ("default", "brk_b")] == [2, 2]
        world.run(home_sql.assign, [world.device(world.bound("SN-4")[0]).pk], FIRST, None)
        assert [gauge_sql.bound_at(world.view, each) for each in ("default", "brk_b")] == [3, 3]
        world.register("SN-5")
        assert [gauge_sql.devices_at(world.view, each) for each in ("default", "brk_b")] == [4, 4]
        assert [gauge_sql.mirrored_at(world.view, each, ALL) for each in ("default", "brk_b")] == [8, 8]
    async with Store(tmp_path, Context()) as store:
        with capture_logs() as logs:
            await CapacityMonitor(store, "brk_b", PASSWORD_FILE._replace(most=2)).look()
    assert [each["number"] for each in logs] == [3]


def test_documented_memory_size_holds() -> None:
    """Up to 399 bound devices nothing is said, at 500 that they are the limit; the documentation says the same."""
    warnings = [EMBEDDED_BROKER.warning(number) for number in (399, 400, 500, 501)]
    assert [each and each.event for each in warnings] == [None, NEARLY_REACHED, NEARLY_REACHED, EXCEEDED]
    assert "There are 501 bound devices, and the embedded broker is good for 500" in str(warnings[-1])
    page = DOCS / "embedded-broker.md"
    assert f"more than {EMBEDDED_BROKER.most} bound devices" in page.read_text(encoding="utf-8")
