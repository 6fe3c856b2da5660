"""What may happen to a device: register, bind, unbind, and what they leave behind."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.core import credentials, ids
from gateway.domain import devices
from gateway.errors import ConflictError, GatewayError, InvalidRequestError, NotFoundError, UnavailableError
from gateway.store import key_sql, outbox_sql, token_sql
from tests.domain.support import World
from tests.support.outbox import outbox_depth


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with one project."""
    with World(tmp_path) as opened:
        yield opened


# --- register ---------------------------------------------------------------------------------------------------------


def test_a_registered_device_is_unbound_and_has_no_token(world: World) -> None:
    """Generation 0, the default model, one event."""
    device_id = world.register(name="Bed 2", firmware_version="1.0", metadata={"ward": 3})
    device = world.device(device_id)
    assert ids.is_id(ids.DEVICE, device_id)
    assert (device.binding_generation, device.bound_at, device.model) == (0, None, "bota_pin")
    assert (device.name, device.firmware_version, device.metadata) == ("Bed 2", "1.0", '{"ward": 3}')
    assert world.token_states(device_id) == []
    assert world.events() == ["device.registered"]
    assert world.facts() == {"device_id": device_id, "actor": "key_1", "serial_number": "SN-1", "model": "bota_pin"}


def test_a_known_serial_number_is_the_known_device(world: World) -> None:
    """The second registration finds the first; nothing of the device changes."""
    first = world.register(name="Bed 2")
    before = world.dump()
    assert world.register(name="Bed 3") == first
    assert world.dump() == before


def test_the_serial_number_of_a_deleted_device_is_taken(world: World) -> None:
    """409 with its id, so that it can be restored."""
    device_id = world.register()
    _delete(world, device_id)
    with pytest.raises(ConflictError) as refusal:
        world.register()
    assert refusal.value.code == "resource_already_exists"
    assert refusal.value.details == {"id": device_id}


def test_the_same_serial_number_in_another_project_is_another_device(world: World) -> None:
    """Projects see nothing of each other."""
    first = world.register()
    world.project_id = world.run(key_sql.create_project, "other ward")
    assert world.register() != first


def test_an_unknown_model_is_refused_with_the_known_ones(world: World) -> None:
    """The list is configurable, so the message tells it."""
    with pytest.raises(InvalidRequestError, match="bota_note") as refusal:
        world.register(model="bota_watch")
    assert refusal.value.details["field"] == "model"


# --- bind and unbind --------------------------------------------------------------------------------------------------


def test_a_binding_raises_the_generation_and_mints_its_token(world: World) -> None:
    """Generation 1, an active token of that generation, credential and status marked, one event."""
    device_id = world.register()
    binding = world.bind(device_id, "eu_7")
    assert (binding.device.end_user_id, binding.device.bound_at) == ("eu_7", world.now)
    token = token_sql.by_secret(world.view, binding.device_token)
    assert token is not None
    assert (token.generation, token.state, token.device_id) == (1, "active", device_id)
    assert token_sql.broker_entries(world.view) == [(device_id, token.broker_entry)]
    assert world.outbox() == [("credential", ""), ("topic", "status")]
    assert world.events() == ["device.registered", "device.bound"]
    assert world.facts()["binding_generation"] == 1


def test_the_secret_of_a_token_is_not_stored(world: World) -> None:
    """Only hashes are stored (section 1)."""
    secret = world.bind(world.register()).device_token
    assert not [line for line in world.dump() if secret[:12] in line]
    assert credentials.hash_secret(secret).hex().upper() in "".join(world.dump()).upper()


def test_a_bound_device_is_not_bound_again(world: World) -> None:
    """409, for every caller."""
    device_id, _ = world.bound()
    with pytest.raises(ConflictError) as refusal:
        world.bind(device_id, "eu_2")
    assert refusal.value.code == "device_already_bound"


def test_unbinding_revokes_the_token(world: World) -> None:
    """Generation 2, no device may connect; the audit trail has the token first, then the binding."""
    device_id, _ = world.bound()
    device = world.unbind(device_id)
    assert (device.binding_generation, device.end_user_id, device.bound_at) == (2, None, None)
    assert world.token_states(device_id) == ["revoked"]
    assert token_sql.broker_entries(world.view) == []
    assert world.outbox() == [("credential", ""), ("topic", "status")]
    assert world.events(2) == ["token.revoked", "device.unbound"]
    assert devices.token_state(world.view, device.pk) is None


def test_unbinding_an_unbound_device_does_nothing(world: World) -> None:
    """A no-op, to the byte."""
    device_id = world.register()
    before = world.dump()
    world.unbind(device_id)
    assert world.dump() == before


def test_generations_rise_by_one_per_bind(world: World) -> None:
    """Section 1: one more at each bind, unbind, reset; bound at 3, reset at 4, the command says 3, bound again at 5."""
    device_id = world.register()
    world.bind(device_id)
    world.unbind(device_id)
    token = world.bind(device_id).device_token
    assert world.device(device_id).binding_generation == 3
    command = world.reset(device_id)
    assert world.device(device_id).binding_generation == 4
    assert command.binding_generation == 3
    world.reset(device_id)
    assert world.device(device_id).binding_generation == 4
    world.ack(command, "executed", token)
    world.settle()
    assert world.device(device_id).binding_generation == 4
    assert world.bind(device_id).device.binding_generation == 5


# --- nothing is half done ---------------------------------------------------------------------------------------------


def _delete(world: World, device_id: str) -> None:
    world.connection.execute("UPDATE devices SET deleted_at = ? WHERE id = ?", (world.now, device_id))


def _elsewhere(world: World) -> str:
    home = world.project_id
    world.project_id = world.run(key_sql.create_project, "other ward")
    device_id = world.register("SN-9")
    world.project_id = home
    return device_id


def _deleted(world: World) -> str:
    device_id, _ = world.bound("SN-8")
    _delete(world, device_id)
    return device_id


VERBS: dict[str, Callable[[World, str], object]] = {
    "bind": World.bind,
    "unbind": World.unbind,
    "reset": World.reset,
    "supersede": World.supersede,
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("whose", [_elsewhere, _deleted, lambda _: "dev_unknown", lambda _: "dtok_" + "a" * 34])
def test_another_projects_device_is_not_found(world: World, verb: str, whose: Callable[[World], str]) -> None:
    """404, never 403; a deleted device is not there; nothing changes; a token in the path is not repeated."""
    device_id = whose(world)
    before = world.dump()
    with pytest.raises(NotFoundError) as refusal:
        VERBS[verb](world, device_id)
    assert "a" * 8 not in refusal.value.message
    assert world.dump() == before


def _bound_already(world: World) -> str:
    return world.bound()[0]


def _with_open_reset(world: World) -> str:
    device_id, _ = world.bound()
    world.reset(device_id)
    return device_id


def _with_old_reset_on_the_broker(world: World) -> str:
    device_id = _with_open_reset(world)
    world.supersede(device_id)
    return device_id


@pytest.mark.parametrize(
    ("prepare", "error", "code"),
    [
        (_bound_already, ConflictError, "device_already_bound"),
        (_with_open_reset, ConflictError, "reset_pending"),
        (_with_old_reset_on_the_broker, UnavailableError, "service_unavailable"),
    ],
)
def test_a_bind_that_is_refused_changes_nothing(
    world: World, prepare: Callable[[World], str], error: type[GatewayError], code: str
) -> None:
    """Before and after are the same, to the byte."""
    device_id = prepare(world)
    before = world.dump()
    with pytest.raises(error) as refusal:
        world.bind(device_id)
    assert refusal.value.code == code
    assert world.dump() == before


def test_a_bind_waits_until_the_old_reset_is_cleared(world: World) -> None:
    """503 while the outbox says that the broker holds it; a row of another kind or type is no reason to wait."""
    device_id = _with_old_reset_on_the_broker(world)
    with pytest.raises(UnavailableError):
        world.bind(device_id)
    pk = world.device(device_id).pk
    reset_row = next(row for row in outbox_sql.pending(world.view, outbox_sql.COMMAND, 10) if row.device_pk == pk)
    world.run(outbox_sql.done, [reset_row.seq])
    assert world.outbox() == [("credential", ""), ("topic", "status")]
    world.run(outbox_sql.mark_command, pk, "reboot")
    assert world.bind(device_id).device.binding_generation == 3


def test_the_publisher_keeps_a_row_that_was_marked_again(world: World) -> None:
    """A row that is marked again while it is worked off has another number then, and stays."""
    device_id, _ = world.bound()
    world.reset(device_id)
    at_work = [row.seq for row in outbox_sql.pending(world.view, outbox_sql.COMMAND, 10)]
    world.supersede(device_id)
    world.run(outbox_sql.done, at_work)
    assert ("command", "factory_reset") in world.outbox()
    world.now += 5_000
    assert outbox_depth(world.view) == (3, world.now - 5_000)


def test_an_empty_outbox_has_depth_zero(world: World) -> None:
    """Nothing waits, since never."""
    assert outbox_depth(world.view) == (0, None)
