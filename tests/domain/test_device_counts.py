"""Kept counts of devices: after any walk they are those of the devices, and a walk changes each of them."""

import random
from pathlib import Path

import pytest

from gateway.domain import devices, heartbeats
from gateway.models.devices import RegisterDevice
from gateway.store import device_count_sql, device_state_sql, device_stats, gauge_sql, key_sql
from gateway.store.device_count_sql import DeviceCounts
from tests.domain.support import MINUTE_MS, World

SEED = 20
STEPS = 250
SERIALS = 12
STORAGE_FULL = 4
"""The bit of ``flags``."""
OPEN_COMMANDS = """SELECT device_pk FROM commands WHERE type = 'factory_reset' AND status IN ('pending', 'delivered')
    ORDER BY device_pk"""
OPEN_RESETS = "SELECT device_pk FROM resets WHERE outcome IS NULL ORDER BY device_pk"


class Walk:
    """Random changes of devices of two projects, as the gateway makes them."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.random = world, random.Random(seed)  # noqa: S311 - a seeded walk
        self.projects = [world.project_id, world.run(key_sql.create_project, "other")]
        self.devices: list[tuple[str, str]] = []
        self.deleted: list[tuple[str, str]] = []

    def step(self) -> None:
        """Change something."""
        rare = (self.unbind, self.reset, self.silence, self.delete)
        often = (self.register, self.bind, self.bind, self.beat, self.beat, self.beat)
        self.random.choice((*rare, *often, *often) if self.devices else (self.register,))()

    def register(self) -> None:
        """Register a device, or a known one again; restore one instead."""
        if self.deleted and self.random.random() < 1 / 2:
            project_id, device_id = self.deleted.pop(self.random.randrange(len(self.deleted)))
            self.world.run(devices.restore, project_id, device_id, "key_1")
            self.devices.append((project_id, device_id))
            return
        body = RegisterDevice(serial_number=f"SN-{len(self.devices) + len(self.deleted)}-{self.world.now}")
        project_id = self.random.choice(self.projects)
        if len(self.devices) < SERIALS:
            device, _ = self.world.run(devices.register, project_id, body, "key_1")
            self.devices.append((project_id, device.id))

    def bind(self) -> None:
        """Bind one that is free."""
        project_id, device_id = self.random.choice(self.devices)
        if self.world.record(device_id).bound_at is None:
            self.free(project_id, device_id)
            self.world.run(devices.bind, project_id, device_id, "eu_1", "key_1")

    def free(self, project_id: str, device_id: str) -> None:
        """Let it have no open reset, and nothing at the broker."""
        self.world.run(devices.supersede_reset, project_id, device_id, "key_1")
        self.world.settle()

    def unbind(self) -> None:
        """Unbind one."""
        self.world.run(devices.unbind, *self.random.choice(self.devices), "key_1")

    def reset(self) -> None:
        """Ask for a reset of one."""
        self.world.run(devices.reset, *self.random.choice(self.devices), "key_1")

    def beat(self) -> None:
        """Hear one that is bound."""
        bound = [device for _, device in self.devices if self.world.record(device).bound_at is not None]
        if bound:
            self.world.now += 1_000
            battery, flags = self.random.choice((5, 90)), self.random.choice((0, STORAGE_FULL))
            said = {"battery_percent": battery, "storage_used_mb": 10, "storage_total_mb": 100, "flags": flags}
            self.world.beat(self.random.choice(bound), **said)

    def silence(self) -> None:
        """Let time pass, and set the silent ones offline."""
        self.world.now += MINUTE_MS
        self.world.run(heartbeats.sweep_presence)

    def delete(self) -> None:
        """Delete one."""
        found = self.random.choice(self.devices)
        self.devices.remove(found)
        self.deleted.append(found)
        self.free(*found)
        self.world.run(devices.delete, *found, "key_1")


def open_resets(world: World, query: str) -> list[int]:
    """Row numbers of devices with an open reset by this query."""
    return [row["device_pk"] for row in world.view.all(query)]


def test_kept_counts_are_those_of_the_devices(tmp_path: Path) -> None:
    """After each step of a random walk over two projects; at some time each count is at least two."""
    most = DeviceCounts()
    with World(tmp_path) as world:
        walk = Walk(world, SEED)
        for number in range(STEPS):
            walk.step()
            kept = device_count_sql.kept(world.view)
            assert kept == device_count_sql.counted(world.view), f"step {number} of the walk with seed {SEED}"
            assert device_state_sql.differing(world.view) == [], f"step {number} of the walk with seed {SEED}"
            assert open_resets(world, OPEN_COMMANDS) == open_resets(world, OPEN_RESETS)
            most = DeviceCounts(*map(max, zip(most, kept[world.project_id], strict=True)))
        assert min(most) >= 2, most
        fleet = gauge_sql.fleet(world.view)
        sums = DeviceCounts(*map(sum, zip(*device_count_sql.counted(world.view).values(), strict=True)))
        assert (fleet.devices, fleet.online, fleet.never_seen) == (sums.total, sums.online, sums.total - sums.seen)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE device_counts SET online = online + 1",
        "DELETE FROM device_counts",
        "UPDATE device_states SET state = 3",
        "DELETE FROM device_states",
        "INSERT INTO device_states SELECT project, 4, device_pk FROM device_states",
    ],
)
def test_wrong_counts_are_mended(tmp_path: Path, statement: str) -> None:
    """A recount names the projects whose counts were wrong, and makes them right."""
    with World(tmp_path) as world:
        world.bound()
        world.connection.execute(statement)
        assert world.run(device_count_sql.recount) == [world.project_id]
        assert device_stats.count(world.view, world.project_id).total_count == 1
        assert world.run(device_count_sql.recount) == []
