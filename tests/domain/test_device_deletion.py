"""Deleted devices: out of the fleet, kept on record, brought back unbound."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.domain import heartbeats
from gateway.errors import ConflictError, NotFoundError
from gateway.store import command_sql, key_sql, token_sql
from tests.domain.support import RESET, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with one project."""
    with World(tmp_path) as opened:
        yield opened


def test_deleting_ends_everything_but_the_record(world: World) -> None:
    """Unbound, token revoked, commands cancelled, offline; each told, in order; the device is sent no wipe."""
    device_id, token = world.bound()
    world.beat(device_id, battery_percent=50)
    reboot = world.create(device_id, "reboot")
    world.settle()
    told = len(world.events())
    world.now += 1_000
    device = world.delete(device_id)
    assert (device.deleted_at, device.updated_at) == (world.now, world.now)
    assert (device.bound_at, device.end_user_id, device.connection) == (None, None, "offline")
    assert (device.binding_generation, device.battery_percent) == (2, 50)
    assert world.token_states(device_id) == ["revoked"]
    assert token_sql.by_secret(world.view, token) is None
    assert token_sql.broker_entries(world.view) == []
    assert world.again(reboot).status == "cancelled"
    assert command_sql.open_of_type(world.view, device.pk, RESET) is None
    assert set(world.outbox()) == {("command", "reboot"), ("credential", ""), ("topic", "status")}
    assert world.events(told) == [
        "command.cancelled",
        "token.revoked",
        "device.unbound",
        "device.offline",
        "device.deleted",
    ]
    assert world.facts() == {"device_id": device_id, "actor": "key_1", "serial_number": "SN-1"}


def test_deleting_an_unbound_device_leaves_its_generation(world: World) -> None:
    """Nothing is unbound, so nothing rises; one event."""
    device_id = world.register()
    assert world.delete(device_id).binding_generation == 0
    assert world.events() == ["device.registered", "device.deleted"]


def test_a_device_with_an_open_reset_is_not_deleted(world: World) -> None:
    """409 that names the command and both ways on; nothing changes."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    before = world.dump()
    with pytest.raises(ConflictError, match=f"{command.id}/cancel") as refusal:
        world.delete(device_id)
    assert refusal.value.code == "reset_pending"
    assert refusal.value.details == {"command_id": command.id, "status": "pending"}
    assert world.dump() == before
    world.ack(command, "executed", token)
    assert world.delete(device_id).deleted_at == world.now


def test_messages_of_a_deleted_device_are_refused(world: World) -> None:
    """Heartbeats and acknowledgements over MQTT are refused; it comes online no more, goes offline no second time."""
    device_id, token = world.bound()
    world.beat(device_id, battery_percent=50)
    command = world.create(device_id, "reboot")
    world.delete(device_id)
    told = world.events()
    world.beat(device_id, battery_percent=49)
    world.ack(command, "executed", token)
    assert [row["code"] for row in world.refusals()] == ["unknown_device", "unknown_device"]
    assert world.again(command).status == "cancelled"
    world.now += 600_000
    assert world.run(heartbeats.sweep_presence) == 0
    assert world.events() == told


def test_a_restored_device_is_as_it_was_and_unbound(world: World) -> None:
    """Its record, its settings and its history; a new binding raises the generation as ever."""
    device_id, token = world.bound()
    world.update(device_id, name="Bed 2", metadata={"ward": 3}, settings={"audio": {"codec": "wav"}})
    world.beat(device_id, battery_percent=50)
    before = world.device(device_id)._asdict()
    world.delete(device_id)
    world.now += 1_000
    device = world.restore(device_id)._asdict()
    gone = {"end_user_id": None, "bound_at": None, "connection": "offline", "binding_generation": 2}
    assert device == before | gone | {"updated_at": world.now}
    assert world.events()[-1] == "device.restored"
    assert token_sql.by_secret(world.view, token) is not None
    assert world.token_states(device_id) == ["revoked"]
    assert world.bind(device_id).device.binding_generation == 3


def test_restoring_what_is_not_deleted_does_nothing(world: World) -> None:
    """A no-op, to the byte, also for a bound one."""
    device_id, _ = world.bound()
    before = world.dump()
    assert world.restore(device_id).id == device_id
    assert world.dump() == before


def test_an_unknown_device_is_neither_deleted_nor_restored(world: World) -> None:
    """404 for unknown and for another project's devices, deleted or not; a deleted one is not deleted again."""
    home = world.project_id
    world.project_id = world.run(key_sql.create_project, "other ward")
    elsewhere, deleted_elsewhere = world.register("SN-8"), world.register("SN-9")
    world.delete(deleted_elsewhere)
    world.project_id = home
    deleted = world.register()
    world.delete(deleted)
    before = world.dump()
    for device_id in (elsewhere, deleted_elsewhere, "dev_unknown", deleted):
        with pytest.raises(NotFoundError):
            world.delete(device_id)
    for device_id in (elsewhere, deleted_elsewhere, "dev_unknown"):
        with pytest.raises(NotFoundError):
            world.restore(device_id)
    assert world.dump() == before
