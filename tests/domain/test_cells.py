"""Home brokers: what a bind chooses, and what a move marks at the old and the new one (contract, section 6)."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.domain import brokers, cells
from gateway.domain.cells import Moved
from gateway.errors import ConflictError, GatewayError, InvalidRequestError, NotFoundError, UnavailableError
from gateway.models.states import CommandStatus
from gateway.mqtt import publisher
from gateway.mqtt.publisher import payload
from gateway.store import (
    Context,
    Rules,
    broker_session_sql,
    broker_sql,
    command_sql,
    due_topic_sql,
    home_sql,
    outbox_sql,
    token_sql,
)
from gateway.store.broker_sql import FIRST
from gateway.store.outbox_sql import OutboxRow
from tests.domain.brokers import HOMES, SECOND, at, disown, leave_out, marked, own, with_homes
from tests.domain.support import RESET, World
from tests.support.comparison import compare
from tests.support.mqtt_password import mqtt_password_of

OF_DEVICE = {("credential", ""), ("topic", "status")}
EVERYWHERE = Rules(mirrored=(outbox_sql.STATE,))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry whose devices have homes."""
    with with_homes(tmp_path) as opened:
        yield opened


def home(world: World, device_id: str) -> int | None:
    """The number of the device's home."""
    return home_sql.of(world.view, world.device(device_id).pk)


def move(world: World, *device_ids: str, to: str = "brk_b") -> Moved:
    """Move devices by their ids."""
    return world.run(
        lambda tx: cells.move(tx, cells.named(tx, world.project_id, device_ids), to, "key_1"),
    )


def rows(world: World, broker: int, kind: str) -> list[OutboxRow]:
    """What is marked there of this kind."""
    return outbox_sql.pending(world.view, kind, 1_000, broker=broker)


def forget_marks(world: World, broker: int) -> None:
    """The owner of this broker has done all that was marked for it."""
    world.connection.execute("DELETE FROM outbox WHERE broker_pk = ?", (broker,))


def test_a_bind_chooses_the_broker_with_the_fewest_devices(world: World) -> None:
    """It counts the homes, leaves a device where it is while that is as good, and asks no drained or absent broker."""
    made = [world.bound(f"SN-{number}")[0] for number in range(4)]
    assert [home(world, each) for each in made] == [FIRST, SECOND, FIRST, SECOND]
    world.unbind(made[0])
    assert world.bind(made[0]).home is not None
    assert home(world, made[0]) == FIRST
    world.run(cells.drain, "default", "key_1", draining=True)
    world.unbind(made[0])
    world.bind(made[0])
    assert home(world, made[0]) == SECOND
    world.run(cells.drain, "default", "key_1", draining=False)
    disown(world, "default")
    assert home(world, world.bound("SN-4")[0]) == SECOND
    assert home_sql.counted(world.view) == {FIRST: 1, SECOND: 4}
    assert [each.devices for each in broker_sql.brokers(world.view, world.now)] == [1, 4]


def test_the_bind_tells_the_address_of_the_home(world: World) -> None:
    """A refresh does, too; the event names the broker."""
    world.bound()
    device_id = world.register("SN-2")
    bound = world.bind(device_id)
    assert bound.home is not None
    assert (bound.home.host, bound.home.port, bound.home.tls) == ("brk_b.example.org", 8883, 1)
    said = world.view.value("SELECT data FROM events WHERE type = 'device.bound' ORDER BY seq DESC LIMIT 1")
    assert '"broker": "brk_b"' in said


def test_only_the_home_is_marked_and_knows_the_credential(world: World) -> None:
    """Commands, state, accounts: the other broker gets nothing of the device."""
    device_id, token = world.bound()
    world.create(device_id)
    assert marked(world, FIRST) == {("command", "reboot")}
    world.unbind(device_id)
    assert marked(world, FIRST) == {("command", "reboot"), *OF_DEVICE}
    assert world.view.value("SELECT count(*) FROM outbox WHERE broker_pk = ?", SECOND) == 0
    token = world.bind(device_id).device_token
    password = mqtt_password_of(token)
    assert [len(token_sql.broker_entries(world.view, each)) for each in (FIRST, SECOND)] == [1, 0]
    found = [token_sql.by_mqtt_password(world.view, device_id, password, broker=each) for each in (FIRST, SECOND)]
    assert [each is None for each in found] == [False, True]
    assert not token_sql.opens_something(world.view, device_id, broker=SECOND)
    token_id = world.token(token).id
    good = [broker_session_sql.is_good(world.view, device_id, token_id, each) for each in (FIRST, SECOND)]
    assert good == [True, False]


def test_a_reset_that_was_accepted_before_a_move_is_delivered_after_it(world: World) -> None:
    """The new broker gets command and credential, the old one clears and cuts. It was wiped once."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    world.settle()
    assert move(world, device_id) == Moved([device_id], [], [])
    for broker in (FIRST, SECOND):
        assert marked(world, broker) == {("command", RESET), *OF_DEVICE}
        assert world.view.value("SELECT count(*) FROM outbox WHERE kind = 'mirror' AND broker_pk = ?", broker) == 1
    old, new = (due_topic_sql.due(world.view, world.now, 9, broker) for broker in (FIRST, SECOND))
    assert [publisher.wanted(topic) for topic in (old[0], new[0])] == [None, command]
    assert publisher.status(old[1]) == b""
    assert [len(token_sql.broker_entries(world.view, each)) for each in (FIRST, SECOND)] == [0, 1]
    world.settle()
    world.ack(command, "executed", token)  # it was on its way at the old broker
    ended = command_sql.by_id(world.view, command.id)
    assert ended is not None
    assert ended.status == CommandStatus.EXECUTED
    assert (marked(world, FIRST), marked(world, SECOND)) == (set(), {("command", RESET), *OF_DEVICE})


def test_a_token_that_is_revoked_after_a_move_opens_neither(world: World) -> None:
    """The old broker has not followed the move yet: it still has to cut."""
    device_id, token = world.bound()
    token_id = world.token(token).id
    move(world, device_id)
    world.unbind(device_id)
    for broker in (FIRST, SECOND):
        assert ("credential", "") in marked(world, broker)
        assert token_sql.broker_entries(world.view, broker) == []
        assert not broker_session_sql.is_good(world.view, device_id, token_id, broker)


def test_a_command_keeps_its_turn_when_its_device_is_moved(world: World) -> None:
    """The pace of a bulk reset holds at the new broker."""
    device_id, _ = world.bound()
    pk = world.device(device_id).pk
    world.create(device_id)
    world.settle()
    world.run(outbox_sql.mark_command, pk, "reboot", not_before=world.now + 5_000)
    move(world, device_id)
    assert outbox_sql.turns(world.view, world.now, SECOND) == {(pk, "reboot")}


def test_a_device_that_is_wiping_itself_stays(world: World) -> None:
    """Its session would be cut before it says so. It is moved once its broker is gone."""
    device_id, token = world.bound()
    world.ack(world.reset(device_id), "delivered", token)
    world.settle()
    assert move(world, device_id) == Moved([], [], [device_id])
    assert (home(world, device_id), marked(world, SECOND)) == (FIRST, set())
    disown(world, "default")
    assert move(world, device_id) == Moved([device_id], [], [])


def test_a_comparison_wants_a_command_at_the_home_alone(world: World) -> None:
    """What the old broker still holds is cleared there; where it shows nothing, it is cleared unseen."""
    device_id, _ = world.bound()
    command = world.reset(device_id)
    move(world, device_id)
    for trustworthy, shown in ((True, True), (False, False)):
        world.settle()
        held = {world.names.command(device_id, RESET): payload(command)} if shown else {}
        _compare(world, held, trustworthy=trustworthy)
        assert ("command", RESET) in marked(world, FIRST)
        assert marked(world, SECOND) == set()
    world.settle()
    _compare(world, {})
    assert marked(world, FIRST) == set()
    _compare(world, {}, broker=SECOND)
    assert marked(world, SECOND) == {("command", RESET)}


def _compare(world: World, held: dict[str, bytes], *, trustworthy: bool = True, broker: int = FIRST) -> None:
    world.run(lambda tx: compare(tx, world.names, held, trustworthy=trustworthy, broker=broker))


def test_a_status_at_another_broker_than_the_home_is_cleared(world: World) -> None:
    """The last will of the session that the move ended comes late. Heartbeats on their way count."""
    device_id, _ = world.bound()
    move(world, device_id)
    world.settle()
    at(world, FIRST)
    assert world.beat(device_id, battery_percent=40) is None
    world.say(world.names.status(device_id), {"status": "offline"})
    assert (marked(world, FIRST), marked(world, SECOND)) == ({("topic", "status")}, set())
    assert world.device(device_id).battery_percent == 40
    at(world, SECOND).say(world.names.status(device_id), {"status": "online"})
    assert marked(world, SECOND) == set()


def test_a_broker_that_is_back_learns_what_has_moved(world: World) -> None:
    """It was left out, so nothing was marked for it meanwhile."""
    own(world, "brk_c")
    world.bound("SN-1")
    device_id, _ = world.bound("SN-2")
    assert home(world, device_id) == SECOND
    world.connection.execute("UPDATE tokens SET created_at = 1")  # what is new is marked anyhow
    leave_out(world)
    move(world, device_id, to="brk_c")
    assert marked(world, SECOND) == set()
    world.settle()
    own(world, "brk_b")
    assert marked(world, SECOND) >= OF_DEVICE


def test_a_device_without_a_home_is_served_by_all(world: World) -> None:
    """It was bound while the setting was ``any``. Its next bind gives it a home, and the others drop it."""
    world.context = _with(world, EVERYWHERE)
    device_id, _ = world.bound()
    world.context = _with(world, HOMES)
    world.create(device_id)
    assert marked(world, FIRST) == marked(world, SECOND) == {("command", "reboot")}
    world.settle()
    world.unbind(device_id)
    world.settle()
    world.bind(device_id)
    assert marked(world, FIRST) == marked(world, SECOND) == OF_DEVICE
    assert [len(token_sql.broker_entries(world.view, each)) for each in (FIRST, SECOND)] == [1, 0]


def test_homes_are_given_up_in_the_mode_any(world: World) -> None:
    """All brokers are marked for what the device has, some devices at a time; a bind gives one up, too."""
    made = [world.bound(f"SN-{number}")[0] for number in range(3)]
    world.create(made[0])
    world.settle()
    world.context = _with(world, EVERYWHERE)
    assert [world.run(cells.release, 2) for _ in range(3)] == [2, 1, 0]
    assert marked(world, FIRST) == marked(world, SECOND) == {("command", "reboot"), *OF_DEVICE}
    assert [home(world, each) for each in made] == [None] * 3
    assert [each.devices for each in broker_sql.brokers(world.view, world.now)] == [0, 0]
    with pytest.raises(ConflictError, match="cells"):
        move(world, made[0])
    with pytest.raises(ConflictError, match="cells"):
        world.run(cells.drain, "default", "key_1", draining=True)


def _with(world: World, rules: Rules) -> Context:
    return replace(world.context, rules=rules)


def test_a_broker_is_emptied_step_by_step(world: World) -> None:
    """Each step is one transaction with a bound; the next goes on where it ended, past those that stay."""
    made = [world.bound(f"SN-{number}") for number in range(6)]
    staying, token = made[0]
    world.ack(world.reset(staying), "delivered", token)
    after: int | None = 0
    moved, left = [], []
    while after is not None:
        step, after = world.run(cells.move_some, "default", "brk_b", "key_1", after=after, limit=1)
        moved += step.moved
        left += step.wiping
    assert (sorted(moved), left) == (sorted((made[2][0], made[4][0])), [staying])
    assert world.view.value("SELECT count(*) FROM events WHERE type = 'device.moved'") == 2
    assert home_sql.counted(world.view) == {FIRST: 1, SECOND: 5}
    assert [each.devices for each in broker_sql.brokers(world.view, world.now)] == [1, 5]
    assert move(world, moved[0]) == Moved([], [moved[0]], [])


def test_what_cannot_be_moved_or_drained_says_why(world: World) -> None:
    """Nothing is changed by any of these."""
    device_id, _ = world.bound()
    world.run(broker_sql.join, "brk_c")
    refusals: list[tuple[type[GatewayError], str, Callable[[], object]]] = [
        (NotFoundError, "It has: default, brk_b", lambda: move(world, device_id, to="brk_x")),
        (NotFoundError, "There is no device 'dev_x'", lambda: move(world, device_id, "dev_x")),
        (NotFoundError, "no broker 'brk_x'", lambda: world.run(cells.move_some, "brk_x", "brk_b", "key_1")),
        (NotFoundError, "no broker 'brk_x'", lambda: world.run(cells.drain, "brk_x", "key_1", draining=True)),
        (InvalidRequestError, "are to leave", lambda: world.run(cells.move_some, "brk_b", "brk_b", "key_1")),
        (ConflictError, "is away", lambda: move(world, device_id, to="brk_c")),
        (ConflictError, "is drained", lambda: _drained(world, device_id)),
        (ConflictError, "last broker", lambda: _last(world)),
    ]
    for kind, message, call in refusals:
        with pytest.raises(kind, match=message):
            call()
    assert home(world, device_id) == FIRST


def _drained(world: World, device_id: str) -> None:
    for _ in range(2):  # it is idempotent, and told once
        assert world.run(cells.drain, "brk_b", "key_1", draining=True).draining
    assert world.view.value("SELECT count(*) FROM events WHERE type = 'broker.updated'") == 1
    move(world, device_id)


def _last(world: World) -> None:
    for broker_id in ("brk_c", "default"):
        world.run(cells.drain, broker_id, "key_1", draining=True)


def test_nothing_is_bound_where_no_broker_takes_devices(world: World) -> None:
    """The one that is not drained has been left out."""
    world.run(cells.drain, "default", "key_1", draining=True)
    leave_out(world)
    device_id = world.register()
    with pytest.raises(UnavailableError, match="No broker takes new devices"):
        world.bind(device_id)
    assert world.device(device_id).bound_at is None


def test_a_broker_with_devices_is_not_forgotten(world: World) -> None:
    """Its devices are moved first; a deleted one has no home."""
    world.bound("SN-1")
    device_id, _ = world.bound("SN-2")
    disown(world, "brk_b")
    with pytest.raises(ConflictError, match=r"home of 1 device\. .*--all-from brk_b"):
        world.run(brokers.forget, "brk_b")
    world.delete(device_id)
    assert ("topic", "status") in marked(world, SECOND)
    world.run(brokers.forget, "brk_b")
    assert home_sql.counted(world.view) == {FIRST: 1}
