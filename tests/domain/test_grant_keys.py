"""A new signing key for bound devices: the firmware of the simulator and the gateway's rules, message by message."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from device_sim.device import State
from gateway.domain import administration, commands, grant_keys
from gateway.errors import ConflictError, NotFoundError
from gateway.store import command_sql, grant_key_sql
from tests.domain.key_change import (
    SET_GRANT_KEY,
    KeyChangeBench,
    ask_all,
    deliver_key,
    restore,
    rotate,
    signed_with,
    snapshot,
)
from tests.domain.support import RESET, World

MONTH_MS = 31 * 86_400_000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with one project."""
    with World(tmp_path) as opened:
        yield opened


@pytest.fixture
def pair(world: World) -> KeyChangeBench:
    """A bound device that is online."""
    return KeyChangeBench.bound(world)


def test_a_device_takes_the_key_and_drops_the_old_one(world: World, pair: KeyChangeBench) -> None:
    """Two commands: the old key announces the new one, and the new one shows that it signs."""
    old, new = rotate(world)
    assert deliver_key(world) == 1
    assert (pair.signer, pair.obeys) == (old, [old])
    pair.deliver()
    assert (pair.signer, pair.obeys) == (old, [new, old])
    pair.process_device_messages()
    assert (pair.signer, pair.obeys) == (new, [new, old])
    pair.exchange()
    assert (pair.signer, pair.obeys, pair.statuses()) == (new, [new], ["executed", "executed"])
    assert world.events()[-7:] == [
        "command.created",
        "command.delivered",
        "command.executed",
        "device.grant_key_changed",
        "command.created",
        "command.delivered",
        "command.executed",
    ]


def test_only_a_reset_under_the_new_key_is_obeyed(world: World, pair: KeyChangeBench) -> None:
    """The old key signs nothing more for this device."""
    old, _ = rotate(world)
    deliver_key(world)
    pair.exchange()
    reset = world.reset(pair.id)
    pair.feed(signed_with(world, old, reset))
    assert (pair.said["error"]["code"], pair.bench.device.state) == ("grant_invalid", State.ONLINE)
    pair.exchange()
    assert (pair.bench.device.state, pair.statuses(RESET)) == (State.UNPROVISIONED, ["executed"])


@pytest.mark.parametrize("step", range(30))
def test_a_power_cut_at_any_step_ends_with_the_new_key(world: World, pair: KeyChangeBench, step: int) -> None:
    """Whatever the flash holds then, the device obeys the key with which the gateway signs, and comes to the end."""
    _, new = rotate(world)
    deliver_key(world)
    pair.bench.power_for = step
    for _ in range(10):
        open_now = pair.deliver()
        assert pair.signer in pair.obeys
        pair.process_device_messages()
        assert pair.signer in pair.obeys
        if not open_now:
            break
    assert (pair.signer, pair.obeys, set(pair.statuses())) == (new, [new], {"executed"})
    world.reset(pair.id)
    pair.exchange()
    assert pair.statuses(RESET) == ["executed"]


@pytest.mark.parametrize("step", range(30))
def test_a_reset_after_a_power_cut_is_obeyed(world: World, pair: KeyChangeBench, step: int) -> None:
    """A reset instead of another try: it is signed with a key that the device obeys, whatever was heard of it."""
    rotate(world)
    deliver_key(world)
    pair.bench.power_for = step
    pair.deliver()
    if step % 2:
        pair.process_device_messages()
        pair.deliver()
    world.reset(pair.id)
    pair.exchange()
    assert (pair.statuses(RESET), pair.bench.device.state) == (["executed"], State.UNPROVISIONED)


def test_the_power_cuts_cover_every_step(world: World, pair: KeyChangeBench) -> None:
    """The power cuts of these tests go through every step of the device."""
    rotate(world)
    deliver_key(world)
    pair.exchange()
    assert pair.bench.steps.count("write:pairing") == 2
    assert len(pair.bench.steps) < 30


def test_a_lost_acknowledgement_is_repeated(world: World, pair: KeyChangeBench) -> None:
    """The command stays retained; with the next link the device says again what it did."""
    _, new = rotate(world)
    deliver_key(world)
    pair.deliver()
    pair.read = len(pair.bench.sent)
    pair.exchange()
    assert (pair.signer, pair.obeys) == (new, [new])


def test_a_reset_during_the_change_is_signed_with_the_known_key(world: World, pair: KeyChangeBench) -> None:
    """The device has both keys and its word is unread: the reset withdraws the command, and the old key signs it."""
    old, new = rotate(world)
    deliver_key(world)
    pair.deliver()
    reset = world.reset(pair.id)
    pair.process_device_messages()
    assert (pair.signer, pair.obeys, pair.statuses()) == (old, [new, old], ["cancelled"])
    assert world.again(reset).status == "pending"
    pair.exchange()
    assert (pair.statuses(RESET), pair.obeys) == (["executed"], [])


def test_open_commands_are_signed_again(world: World, pair: KeyChangeBench) -> None:
    """They keep id and number. A copy under the old key that comes late is refused, and that ends nothing."""
    rotate(world)
    waits = world.create(pair.id, "trigger_upload", ttl_seconds=3600)
    deliver_key(world)
    pair.feed(world.command(pair.id, SET_GRANT_KEY))
    pair.process_device_messages()
    pair.feed(world.command(pair.id, SET_GRANT_KEY))
    pair.process_device_messages()
    again = world.again(waits)
    assert (again.id, again.seq) == (waits.id, waits.seq)
    assert again.grant_token != waits.grant_token
    pair.feed(waits)
    assert pair.said["error"]["code"] == "grant_invalid"
    pair.process_device_messages()
    assert world.again(waits).status == "pending"
    pair.exchange()
    assert world.again(waits).status == "executed"


def test_a_late_copy_under_the_old_key_repeats_the_outcome(world: World, pair: KeyChangeBench) -> None:
    """The device repeats what it did: ids are known before keys are looked at."""
    rotate(world)
    waits = world.create(pair.id, "trigger_upload")
    deliver_key(world)
    pair.exchange()
    pair.feed(waits)
    assert pair.said["status"] == "executed"


def test_a_device_offline_for_a_month_takes_the_key(world: World, pair: KeyChangeBench) -> None:
    """The command never expires."""
    _, new = rotate(world)
    deliver_key(world)
    world.now += MONTH_MS
    world.run(commands.expire)
    pair.exchange()
    assert (pair.signer, pair.obeys) == (new, [new])


def test_firmware_without_the_command_keeps_its_key(
    world: World, pair: KeyChangeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, keeps its key and is not asked again until an operator wants that. Then newer firmware takes it."""
    old, new = rotate(world)
    known = ("factory_reset", "start_recording", "stop_recording", "trigger_upload", "reboot")
    with monkeypatch.context() as older:
        older.setattr("device_sim.grant.COMMAND_TYPES", known)
        deliver_key(world)
        pair.exchange()
    assert pair.said["error"]["code"] == "unknown_command"
    assert (pair.signer, pair.obeys, pair.statuses()) == (old, [old], ["failed"])
    assert ask_all(world) == 0
    assert grant_key_sql.progress(world.view, new).kept == 1
    done = world.create(pair.id, "trigger_upload")
    pair.exchange()
    assert world.again(done).status == "executed"
    assert deliver_key(world) == 1
    pair.exchange()
    assert (pair.signer, pair.obeys) == (new, [new])


def test_unknown_command_needs_no_receipt(world: World, pair: KeyChangeBench) -> None:
    """Old firmware makes no receipt for it; and it only says that the device keeps its key."""
    rotate(world)
    deliver_key(world)
    command = world.command(pair.id, SET_GRANT_KEY)
    world.ack(command, "failed", error={"code": "unknown_command", "message": ""})
    assert pair.statuses() == ["failed"]


def test_executed_without_a_receipt_is_refused(world: World, pair: KeyChangeBench) -> None:
    """Without it another client of the broker could have the gateway sign with a key that the device does not have."""
    old, _ = rotate(world)
    deliver_key(world)
    command = world.command(pair.id, SET_GRANT_KEY)
    world.ack(command, "executed")
    world.ack(command, "executed", "dtok_of_another_device")
    assert [row["code"] for row in world.refusals()] == ["receipt_missing", "receipt_invalid"]
    assert (pair.signer, pair.statuses()) == (old, ["pending"])


def test_a_second_rotation_replaces_the_first(world: World, pair: KeyChangeBench) -> None:
    """The second one takes the place of the first, which the device may have taken already."""
    old, first = rotate(world)
    deliver_key(world)
    pair.deliver()
    _, second = rotate(world)
    assert grant_keys.running(world.view) is None
    deliver_key(world)
    pair.process_device_messages()
    assert (pair.signer, pair.obeys) == (old, [first, old])
    pair.exchange()
    assert (pair.signer, pair.obeys) == (second, [second])
    assert pair.statuses() == ["cancelled", "executed", "executed"]


def test_a_rotation_before_the_confirmation_is_delivered_next(world: World, pair: KeyChangeBench) -> None:
    """The device obeys both; a third key comes with the second one's word."""
    old, first = rotate(world)
    deliver_key(world)
    pair.deliver()
    pair.process_device_messages()
    assert (pair.signer, pair.obeys) == (first, [first, old])
    _, second = rotate(world)
    deliver_key(world)
    pair.exchange()
    assert (pair.signer, pair.obeys) == (second, [second])


def test_a_leaked_key_announces_nothing(world: World, pair: KeyChangeBench) -> None:
    """What is open is withdrawn, what the device says late changes nothing, and it is not asked again."""
    old, _ = rotate(world)
    deliver_key(world)
    pair.deliver()
    assert world.run(administration.mark_signing_key_leaked, old, "cli") == 1
    pair.process_device_messages()
    assert (pair.signer, pair.statuses()) == (old, ["cancelled"])
    deliver_key(world)
    assert pair.statuses() == ["cancelled"]
    world.reset(pair.id)
    pair.exchange()
    assert pair.statuses(RESET) == ["executed"]


def test_a_key_is_marked_as_leaked_once_it_is_not_in_use(world: World) -> None:
    """A key in use has to be rotated first; a second time changes nothing."""
    world.bound()
    with pytest.raises(NotFoundError, match="signing-keys list"):
        world.run(administration.mark_signing_key_leaked, "nonsense", "cli")
    old, new = rotate(world)
    with pytest.raises(ConflictError, match="signing-keys rotate"):
        world.run(administration.mark_signing_key_leaked, new, "cli")
    for _ in range(2):
        assert world.run(administration.mark_signing_key_leaked, old, "cli") == 0
    assert world.events().count("signing_key.leaked") == 1


def test_only_bound_devices_with_another_key_get_the_command(world: World, pair: KeyChangeBench) -> None:
    """Not one that was bound since, nor one that waits for its reset, nor one that is unbound."""
    resetting, _ = world.bound("SN-2")
    unbound, _ = world.bound("SN-3")
    rotate(world)
    world.reset(resetting)
    world.unbind(unbound)
    world.bound("SN-4")
    assert deliver_key(world) == 1
    assert pair.statuses() == ["pending"]


def test_the_delivery_continues_where_it_stopped(world: World) -> None:
    """Device by device in the order of registration, so many at a time; after a stop no other device is asked."""
    pairs = [KeyChangeBench.bound(world, f"SN-{number}") for number in range(5)]
    _, new = rotate(world)
    assert world.run(grant_keys.ask_next, 2) == 0
    world.run(administration.deliver_signing_key, "cli")
    assert world.run(grant_keys.ask_next, 2) == 2
    assert [len(each.statuses()) for each in pairs] == [1, 1, 0, 0, 0]
    assert world.run(administration.stop_delivery, "cli") == new
    assert world.run(grant_keys.ask_next, 2) == 0
    assert world.run(administration.stop_delivery, "cli") is None
    pairs[0].exchange()
    assert grant_key_sql.progress(world.view, new) == (1, 0, 1, 0, 3)
    assert deliver_key(world, 2) == 4
    assert [len(each.statuses()) for each in pairs] == [2, 1, 1, 1, 1]
    for each in pairs:
        each.exchange()
    assert grant_key_sql.progress(world.view, new) == (5, 0, 0, 0, 0)
    assert {event for event in world.events() if event.startswith("signing_key")} == {
        "signing_key.rotated",
        "signing_key.delivery",
    }


@pytest.mark.sqlite
def test_a_new_epoch_delivers_nothing(world: World, pair: KeyChangeBench) -> None:
    """Its new key is for new bindings, until an operator wants more."""
    rotate(world)
    world.run(administration.deliver_signing_key, "cli")
    restore(world, snapshot(world))
    assert ask_all(world) == 0
    assert pair.statuses() == []


def test_a_refreshed_token_has_the_key_of_its_binding(world: World, pair: KeyChangeBench) -> None:
    """Both good tokens of a device that refreshes in between."""
    _, new = rotate(world)
    deliver_key(world)
    binding = pair.bench.device.binding
    assert binding is not None
    world.refresh(pair.id, binding.device_token)
    pair.exchange()
    assert pair.signer == new


def test_callers_cannot_create_the_command(world: World, pair: KeyChangeBench) -> None:
    """The API says how a key is delivered."""
    with pytest.raises(ConflictError, match="signing-keys deliver"):
        world.create(pair.id, SET_GRANT_KEY)
    assert command_sql.open_of_device(world.view, pair.pk) == []
