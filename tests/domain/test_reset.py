"""What a reset guarantees: the table of the contract's section 4, as far as the registry alone can show it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.domain import commands, heartbeats
from gateway.errors import ConflictError
from gateway.models.heartbeats import Heartbeat
from gateway.models.states import Radio
from gateway.store import Tx, command_sql, health_sql, token_sql
from tests.domain.support import RESET, World, receipt


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with one project."""
    with World(tmp_path) as opened:
        yield opened


def test_a_reset_is_one_transaction(world: World) -> None:
    """Unbound, token reset_only, other commands cancelled, one reset without end, marked, all told in order."""
    device_id, token = world.bound()
    world.create(device_id, "start_recording")
    world.create(device_id, "reboot")
    seen = len(world.events())
    command = world.reset(device_id)
    device = world.device(device_id)
    assert (device.end_user_id, device.bound_at, device.binding_generation) == (None, None, 2)
    assert world.token_states(device_id) == ["reset_only"]
    assert (command.status, command.expires_at, command.binding_generation) == ("pending", None, 1)
    assert [row.type for row in command_sql.open_of_device(world.view, device.pk)] == [RESET]
    assert world.outbox() == [("command", "start_recording"), ("command", "reboot"), ("command", "factory_reset")]
    assert world.events(seen) == ["command.cancelled", "command.cancelled", "device.unbound", "reset.requested"]
    assert world.facts()["command_id"] == command.id
    assert token_sql.by_secret(world.view, token) is not None


def test_a_reset_keeps_the_record(world: World) -> None:
    """History, the device record and its metadata stay."""
    device_id = world.register(metadata={"ward": 3}, name="Bed 2")
    world.bind(device_id)
    world.beat(device_id, battery_percent=50)
    world.reset(device_id)
    device = world.device(device_id)
    assert (device.metadata, device.name, device.battery_percent) == ('{"ward": 3}', "Bed 2", 50)
    assert world.view.value("SELECT count(*) FROM heartbeats") == 1


@pytest.mark.parametrize("status", ["pending", "delivered"])
def test_a_second_reset_is_the_same_reset(world: World, status: str) -> None:
    """The open one is kept; nothing changes, to the byte."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    if status == "delivered":
        world.ack(command, "delivered", token)
    before = world.dump()
    assert world.reset(device_id).id == command.id
    assert world.dump() == before


def test_an_executed_reset_ends_binding_tokens_and_commands(world: World) -> None:
    """Final, token revoked, session to be cut, topic to be cleared, told in two events."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    world.ack(command, "delivered", token)
    world.settle()
    seen = len(world.events())
    world.now += 1_000
    result = {"wiped": ["device_token", "pairing", "wifi_networks"], "kept": ["serial_number"]}
    assert world.ack(command, "executed", token, result=result) is None
    done = world.again(command)
    assert (done.status, done.executed_at, done.final_at) == ("executed", world.now, world.now)
    assert command_sql.to_model(done, device_id).result == result
    assert world.token_states(device_id) == ["revoked"]
    assert world.outbox() == [("command", "factory_reset"), ("credential", ""), ("topic", "status")]
    assert world.events(seen) == ["reset.completed", "token.revoked"]
    of_the_device = world.device(device_id).binding_generation
    assert (world.facts()["binding_generation"], of_the_device) == (1, 2)  # the token's: it was that of the bind


def test_a_reset_may_be_executed_without_delivered(world: World) -> None:
    """The word ``delivered`` may be lost; ``executed`` says more."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    world.ack(command, "executed", token)
    assert (world.again(command).status, world.again(command).delivered_at) == ("executed", None)


@pytest.mark.guarantee("G3")
def test_a_reset_waits_for_a_device_that_is_away_for_a_month(world: World) -> None:
    """It never expires."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    world.now += 31 * 86_400_000
    assert world.run(commands.expire) == 0
    world.ack(command, "executed", token)
    assert world.again(command).status == "executed"


@pytest.mark.guarantee("G4")
def test_a_relayed_heartbeat_shows_presence_and_never_delivers(world: World) -> None:
    """BLE only: seen, and the reset stays pending until the device itself has said ``delivered``."""
    device_id, _ = world.bound()
    command = world.reset(device_id)

    def relay(tx: Tx) -> object:
        sender = health_sql.device_state(tx, device_id)
        assert sender is not None
        return heartbeats.record_heartbeat(tx, sender, Heartbeat(battery_percent=9), Radio.BLE)

    assert world.run(relay) is None
    device = world.device(device_id)
    assert (device.connection, device.last_seen_by, device.battery_percent) == ("online", "ble", None)
    assert world.again(command).status == "pending"


def test_a_lost_acknowledgement_is_accepted_after_the_next_binding(world: World) -> None:
    """Power went between wipe and word: superseded, bound again, and the first heartbeat's ``last_command`` is kept."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    world.supersede(device_id)
    world.settle()
    world.bind(device_id)
    seen = len(world.events())
    last = {"command_id": command.id, "status": "executed", "receipt": receipt(token, command.id, "executed", 1)}
    assert world.beat(device_id, last_command=last) is None
    told = command_sql.to_model(world.again(command), device_id)
    assert told.status == "cancelled"
    assert told.result == {"late_acknowledgement": {"status": "executed"}}
    assert world.events(seen) == ["device.online", "acknowledgement.late"]
    assert world.token_states(device_id) == ["revoked", "active"]
    for _ in range(3):
        assert world.beat(device_id, last_command=last) is None
    assert world.events(seen) == ["device.online", "acknowledgement.late"]


def test_a_repeated_last_command_records_nothing(world: World) -> None:
    """Firmware goes on telling of its wipe: the command stays to the byte, nothing is refused, audited or published."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    world.ack(command, "executed", token)
    world.settle()
    world.bind(device_id)
    last = {"command_id": command.id, "status": "executed", "receipt": receipt(token, command.id, "executed", 1)}
    world.beat(device_id, last_command=last)
    world.settle()
    seen, kept = len(world.events()), tuple(world.again(command))
    for _ in range(5):
        assert world.beat(device_id, last_command=last) is None
    assert world.events(seen) == []
    assert tuple(world.again(command)) == kept
    assert world.outbox() == []
    assert world.refusals() == []


@pytest.mark.guarantee("G6")
def test_superseding_cancels_revokes_and_clears(world: World) -> None:
    """The reset is cancelled, the old token revoked and the topic marked, in one transaction and in this order."""
    device_id, _ = world.bound()
    command = world.reset(device_id)
    world.settle()
    seen = len(world.events())
    world.supersede(device_id)
    assert world.again(command).status == "cancelled"
    assert world.token_states(device_id) == ["revoked"]
    assert world.outbox() == [("command", "factory_reset"), ("credential", ""), ("topic", "status")]
    assert world.events(seen) == ["reset.superseded", "token.revoked"]
    assert world.device(device_id).binding_generation == 2


def test_superseding_what_is_not_open_does_nothing(world: World) -> None:
    """To the byte, also for a bound device."""
    device_id, _ = world.bound()
    before = world.dump()
    world.supersede(device_id)
    assert world.dump() == before


def test_a_device_with_a_newer_generation_refuses_an_older_reset(world: World) -> None:
    """``stale_generation``, signed with the newer token: only a newer binding of this device could say so."""
    device_id, _ = world.bound()
    command = world.reset(device_id)
    world.supersede(device_id)
    world.settle()
    newer = world.bind(device_id).device_token
    error = {"code": "stale_generation", "message": "holds 3, the command says 1"}
    assert world.ack(command, "failed", newer, error=error) is None
    told = command_sql.to_model(world.again(command), device_id)
    assert told.status == "cancelled"
    assert told.result == {"late_acknowledgement": {"status": "failed", "error": error}}
    assert world.token_states(device_id)[-1] == "active"


def test_a_token_of_an_earlier_binding_cannot_fail_a_reset(world: World) -> None:
    """A token of an older binding than the command's proves nothing about it."""
    device_id = world.register()
    former = world.bind(device_id).device_token
    world.unbind(device_id)
    world.bind(device_id)
    command = world.reset(device_id)
    answer = world.ack(command, "failed", former)
    assert answer is not None
    assert answer.refusal.code == "receipt_invalid"
    assert world.again(command).status == "pending"


def test_a_reset_of_an_unbound_device_without_a_token_waits(world: World) -> None:
    """Accepted and queued with the device's own generation; the device cannot connect to fetch it; bind says 409."""
    device_id = world.register()
    command = world.reset(device_id)
    assert (command.status, command.binding_generation) == ("pending", 1)
    assert world.device(device_id).binding_generation == 1
    assert token_sql.broker_entries(world.view) == []
    assert world.events() == ["device.registered", "reset.requested"]
    with pytest.raises(ConflictError, match="supersede_reset") as refusal:
        world.bind(device_id)
    assert refusal.value.code == "reset_pending"
    assert refusal.value.details == {"command_id": command.id, "status": "pending"}


@pytest.mark.guarantee("G9")
def test_a_reset_can_be_cancelled_until_it_is_delivered(world: World) -> None:
    """Then the token is revoked, and the device has to be bound again."""
    device_id, _ = world.bound()
    command = world.reset(device_id)
    world.settle()
    seen = len(world.events())
    assert world.cancel(device_id, command.id).status == "cancelled"
    assert world.token_states(device_id) == ["revoked"]
    assert world.outbox() == [("command", "factory_reset"), ("credential", ""), ("topic", "status")]
    assert world.events(seen) == ["command.cancelled", "token.revoked"]
    world.settle()
    assert world.bind(device_id).device.binding_generation == 3


@pytest.mark.guarantee("G9")
def test_a_delivered_reset_cannot_be_cancelled(world: World) -> None:
    """409, and nothing changes."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    world.ack(command, "delivered", token)
    before = world.dump()
    with pytest.raises(ConflictError) as refusal:
        world.cancel(device_id, command.id)
    assert refusal.value.code == "reset_pending"
    assert world.dump() == before


@pytest.mark.guarantee("G10")
def test_a_failed_reset_leaves_the_token_for_the_next(world: World) -> None:
    """Failed with its error, token reset_only; a new reset is a new command that the same token fetches."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    error = {"code": "flash_error", "message": "sector 7"}
    world.ack(command, "failed", token, error=error)
    failed = command_sql.to_model(world.again(command), device_id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.model_dump() == error
    assert world.token_states(device_id) == ["reset_only"]
    again = world.reset(device_id)
    assert again.id != command.id
    assert (again.binding_generation, world.device(device_id).binding_generation) == (1, 3)
    world.ack(again, "executed", token)
    assert world.token_states(device_id) == ["revoked"]


def test_a_device_is_bound_again_after_a_failed_reset(world: World) -> None:
    """No reset is open, so it may be; the token that was left is revoked, and that is told first."""
    device_id, token = world.bound()
    world.ack(world.reset(device_id), "failed", token)
    world.settle()
    seen = len(world.events())
    world.bind(device_id)
    assert world.token_states(device_id) == ["revoked", "active"]
    assert world.events(seen) == ["token.revoked", "device.bound"]
