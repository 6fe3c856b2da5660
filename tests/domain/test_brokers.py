"""Several brokers of one registry: each has its own rows, and none waits for another (contract, section 6)."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.core.clock import system_clock
from gateway.domain import brokers, heartbeats
from gateway.errors import ConflictError, NotFoundError, UnavailableError
from gateway.store import Rules, Tx, broker_sql, due_topic_sql, event_sql, health_sql, outbox_sql, reset_sql
from gateway.store.broker_sql import FIRST
from tests.domain.brokers import SECOND, age, at, check_fault, disown, leave_out, marked, own
from tests.domain.support import MINUTE_MS, RESET, World
from tests.support.comparison import compare
from tests.support.outbox import outbox_depth

OF_DEVICE = {("command", RESET), ("credential", ""), ("topic", "status")}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with two brokers, which have no owner; this process serves the first."""
    with World(tmp_path, rules=Rules(mirrored=(outbox_sql.STATE,))) as opened:
        opened.now = system_clock()  # brokers are away by the clock of the database
        assert opened.run(broker_sql.join, "default") == FIRST
        assert opened.run(broker_sql.join, "brk_b") == SECOND
        yield opened


def test_a_change_is_marked_for_each_broker(world: World) -> None:
    """What one has done says nothing of the other; a row that was marked again stays."""
    device_id, _ = world.bound()
    world.reset(device_id)
    assert marked(world, FIRST) == marked(world, SECOND) == {("command", RESET)}
    world.run(outbox_sql.done, [topic.row.seq for topic in due_topic_sql.due(world.view, world.now, 100)])
    assert (marked(world, FIRST), marked(world, SECOND)) == (set(), {("command", RESET)})
    world.supersede(device_id)
    assert marked(world, FIRST) == marked(world, SECOND) == OF_DEVICE
    assert outbox_depth(world.view, FIRST)[0] == outbox_depth(world.view, SECOND)[0] == 3
    assert world.view.value("SELECT count(DISTINCT broker_pk) FROM outbox WHERE kind = 'mirror'") == 2


def test_the_first_gateway_gives_the_first_broker_its_id(tmp_path: Path) -> None:
    """What was marked before belongs to it; another id is another broker, and joining twice changes nothing."""
    with World(tmp_path) as world:
        device_id = world.register()
        world.bind(device_id)
        assert [world.run(broker_sql.join, name) for name in ("a", "b", "a", "c")] == [1, 2, 1, 3]
        assert marked(world, 1) == OF_DEVICE - {("command", RESET)}
        assert (marked(world, 2), marked(world, 3)) == (set(), set())


def test_a_broker_that_joins_is_compared_and_lacks_nothing(world: World) -> None:
    """What was written before is found by its comparison; what is written later is marked for it."""
    device_id, _ = world.bound()
    before = world.reset(device_id)
    third = world.run(broker_sql.join, "brk_c")
    assert marked(world, third) == set()
    world.run(lambda tx: compare(tx, world.names, {}, trustworthy=True, broker=third))
    due = due_topic_sql.due(world.view, world.now, 9, third)
    assert [topic.row.device_pk for topic in due] == [before.device_pk]
    other, _ = (world.register("SN-2"), world.bind(world.register("SN-2")))
    world.create(other)
    assert ("command", "reboot") in marked(world, third)
    assert world.view.value("SELECT compared_at FROM brokers WHERE pk = ?", third) is not None


def test_a_comparison_marks_its_own_broker_alone(world: World) -> None:
    """The other one holds what it should, as far as this one can tell."""
    device_id, _ = world.bound()
    world.reset(device_id)
    world.settle()
    world.run(lambda tx: compare(tx, world.names, {}, trustworthy=True, broker=SECOND))
    assert (marked(world, FIRST), marked(world, SECOND)) == (set(), {("command", RESET)})


@pytest.mark.parametrize("missing", ["nobody", "no owner", "not connected"])
def test_a_bind_waits_for_the_brokers_that_are_there(world: World, missing: str) -> None:
    """One without an owner, or whose owner is not connected, is not waited for; while all are away, each counts."""
    own(world, "default", connected=missing != "nobody")
    if missing != "no owner":
        own(world, "brk_b", connected=False)
    device_id, _ = world.bound()
    world.reset(device_id)
    world.settle()
    world.supersede(device_id)
    world.run(outbox_sql.done, [topic.row.seq for topic in due_topic_sql.due(world.view, world.now, 100)])
    world.run(outbox_sql.done, [row.seq for row in outbox_sql.pending(world.view, outbox_sql.CREDENTIAL, 100)])
    if missing == "nobody":
        with pytest.raises(UnavailableError):
            world.bind(device_id, "eu_2")
    else:
        world.bind(device_id, "eu_2")
    own(world, "brk_b")
    awaited = [each.id for each in broker_sql.awaited(world.view, world.now)]
    assert awaited == (["brk_b"] if missing == "nobody" else ["default", "brk_b"])


def test_a_late_last_will_of_another_broker_is_ignored(world: World) -> None:
    """The device went on to the second broker; the first says that it left there. Retained or not, it stays online."""
    device_id, _ = world.bound()
    world.beat(device_id)
    at(world, SECOND).beat(device_id)
    due = world.view.value("SELECT offline_due_at FROM health")
    for retained in (False, True):
        at(world, FIRST).say(world.names.status(device_id), {"status": "offline"}, retain=retained)
        assert world.view.value("SELECT offline_due_at FROM health") == due
    assert tuple(world.view.one("SELECT broker_pk, at_broker FROM health") or ()) == (SECOND, 1)
    at(world, SECOND).say(world.names.status(device_id), {"status": "offline"})
    assert world.view.value("SELECT offline_due_at FROM health") < due


def test_an_online_message_moves_a_device_too(world: World) -> None:
    """From then on the will of the former broker is late."""
    device_id, _ = world.bound()
    world.beat(device_id)
    at(world, SECOND).say(world.names.status(device_id), {"status": "online"})
    at(world, FIRST).say(world.names.status(device_id), {"status": "offline"})
    world.now += 2 * MINUTE_MS
    assert at(world, SECOND).run(heartbeats.sweep_presence) == 0


def test_silence_is_judged_where_the_device_was_heard(world: World) -> None:
    """The other owner does not know what its broker still keeps. When that is away for long, the others judge."""
    own(world, "default")
    device_id, _ = world.bound()
    at(world, SECOND).beat(device_id)
    world.now += 10 * MINUTE_MS
    assert at(world, FIRST).run(heartbeats.sweep_presence) == 0
    leave_out(world)
    assert at(world, FIRST).run(heartbeats.sweep_presence) == 1


def test_a_broker_that_is_away_for_long_is_left_out(world: World) -> None:
    """Its rows are dropped and no more are written. When its owner is back, all that matters is marked or compared."""
    own(world, "default")
    ended, _ = world.bound("SN-ended")
    device_id, _ = world.bound()
    world.reset(device_id)
    world.unbind(ended)
    leave_out(world)
    assert not brokers.has_rows_to_drop(world.view)
    assert not brokers.needs_care(world.view, world.now)
    world.run(lambda tx: outbox_sql.mark_command(tx, world.device(device_id).pk, "reboot"))
    assert world.view.value("SELECT count(*) FROM outbox WHERE broker_pk = ?", SECOND) == 0
    assert ("command", "reboot") in marked(world, FIRST)
    own(world, "brk_b")
    assert marked(world, SECOND) == {("topic", "status"), ("credential", "")}
    world.run(lambda tx: outbox_sql.mark_command(tx, world.device(device_id).pk, "reboot"))
    assert ("command", "reboot") in marked(world, SECOND)


def test_a_broker_that_is_back_is_not_left_out_during_its_comparison(world: World) -> None:
    """Its owner has connected and compares, which takes a while: what differs must be marked for it."""
    own(world, "default")
    device_id, _ = world.bound()
    world.reset(device_id)
    leave_out(world)
    own(world, "brk_b", connected=False)
    assert world.run(brokers.care) == []
    world.run(lambda tx: compare(tx, world.names, {}, trustworthy=True, broker=SECOND))
    assert ("command", RESET) in marked(world, SECOND)


def test_the_last_broker_is_never_left_out(world: World) -> None:
    """However long all are away: their rows are what is known of them."""
    for broker_id in ("default", "brk_b"):
        own(world, broker_id)
        disown(world, broker_id)
    age(world, 10 * brokers.AWAY_MS)
    assert world.run(brokers.care) == []


def test_a_short_absence_changes_nothing(world: World) -> None:
    """And a broker that is back begins to count again."""
    own(world, "default")
    own(world, "brk_b")
    disown(world, "brk_b")
    age(world, brokers.AWAY_MS - 1_000)
    assert world.run(brokers.care) == []
    own(world, "brk_b")
    disown(world, "brk_b")
    assert world.run(brokers.care) == []


def test_a_reset_is_cleared_when_each_broker_has_cleared_it(world: World) -> None:
    """Its report says so when the last one has; one that is left out is no reason to wait."""
    own(world, "default")
    device_id, token = world.bound()
    command = world.reset(device_id)
    world.ack(command, "executed", token)
    pk = world.device(device_id).pk
    world.run(_finish, pk, device_id)
    found = reset_sql.find(world.view, command.id)
    assert found is not None
    assert (found.retained_cleared_at, found.sessions_closed_at) == (None, None)
    leave_out(world)
    found = reset_sql.find(world.view, command.id)
    assert found is not None
    assert None not in (found.retained_cleared_at, found.sessions_closed_at)


def _finish(tx: Tx, pk: int, device_id: str) -> None:
    """The owner of the first broker has done all that was marked for it."""
    outbox_sql.done(tx, [row["seq"] for row in tx.all("SELECT seq FROM outbox WHERE broker_pk = ?", FIRST)])
    reset_sql.set_retained_cleared(tx, [device_id])
    reset_sql.set_sessions_closed(tx, [pk])


def test_each_broker_has_its_place_among_the_events(world: World) -> None:
    """Events wait for each broker that is followed, and not for one that is left out."""
    own(world, "default")
    world.register("SN-1")
    world.register("SN-2")
    first, second = (row["seq"] for row in world.view.all("SELECT seq FROM events ORDER BY seq"))
    world.run(broker_sql.set_fact, FIRST, event_sql.FEED_CURSOR, str(second))
    world.run(broker_sql.set_fact, SECOND, event_sql.FEED_CURSOR, str(first))
    assert world.run(event_sql.prune, world.now + 1, 100) == 1
    leave_out(world)
    assert world.run(event_sql.prune, world.now + 1, 100) == 1


def test_a_broker_that_is_gone_is_forgotten(world: World) -> None:
    """Not while a gateway serves it, nor the only one. Its devices count as heard at another."""
    own(world, "default")
    own(world, "brk_b")
    device_id, _ = world.bound()
    at(world, SECOND).beat(device_id)
    with pytest.raises(ConflictError, match="served by gw_brk_b"):
        world.run(brokers.forget, "brk_b")
    disown(world, "brk_b")
    world.run(broker_sql.set_fact, SECOND, event_sql.FEED_CURSOR, "1")
    world.run(brokers.forget, "brk_b")
    assert [each.id for each in broker_sql.brokers(world.view, world.now)] == ["default"]
    assert world.view.value("SELECT count(*) FROM outbox WHERE broker_pk = ?", SECOND) == 0
    assert world.view.value("SELECT broker_pk FROM health") == FIRST
    with pytest.raises(NotFoundError, match="It has: default"):
        world.run(brokers.forget, "brk_b")
    disown(world, "default")
    with pytest.raises(ConflictError, match="only broker"):
        world.run(brokers.forget, "default")
    assert world.run(broker_sql.join, "brk_c") == SECOND


# --- the checks find the faults that they are there for ---------------------------------------------------------------


def _accept_any_will(tx: Tx, device_pk: int, due: int) -> None:
    tx.run("UPDATE health SET offline_due_at = ?, at_broker = 0 WHERE device_pk = ?", due, device_pk)


def _drop_at_each_broker(tx: Tx, seqs: list[int]) -> None:
    for seq in seqs:
        tx.run(
            """DELETE FROM outbox WHERE EXISTS (SELECT 1 FROM outbox o WHERE o.seq = ?
                AND o.device_pk = outbox.device_pk AND o.kind = outbox.kind AND o.detail = outbox.detail)""",
            seq,
        )


def _mark_at_each(tx: Tx, device_pk: int, command_type: str, **where: object) -> None:
    del where
    outbox_sql._mark(tx, outbox_sql.COMMAND, device_pk, command_type)  # noqa: SLF001 - what the fault does


FAULTS: dict[str, tuple[object, str, object, Callable[[World], None]]] = {
    "a will of any broker counts": (
        health_sql,
        "leaving",
        _accept_any_will,
        test_a_late_last_will_of_another_broker_is_ignored,
    ),
    "a retained will of any broker counts": (
        health_sql,
        "left_broker",
        _accept_any_will,
        test_a_late_last_will_of_another_broker_is_ignored,
    ),
    "only the broker of this gateway is marked": (
        outbox_sql,
        "FOLLOWED",
        "FROM brokers b WHERE b.pk = 1",
        test_a_change_is_marked_for_each_broker,
    ),
    "what one broker has counts for the others": (
        outbox_sql,
        "done",
        _drop_at_each_broker,
        test_a_change_is_marked_for_each_broker,
    ),
    "a comparison marks every broker": (
        outbox_sql,
        "mark_command",
        _mark_at_each,
        test_a_comparison_marks_its_own_broker_alone,
    ),
    "each owner judges all devices": (
        health_sql,
        "_JUDGED",
        "(SELECT pk FROM brokers WHERE ?1 > 0)",
        test_silence_is_judged_where_the_device_was_heard,
    ),
    "a broker that is left out is still marked": (
        outbox_sql,
        "FOLLOWED",
        "FROM brokers b WHERE TRUE",
        test_a_broker_that_is_away_for_long_is_left_out,
    ),
    "nothing is marked for a broker that is back": (
        brokers,
        "_ended_since",
        lambda *_: set(),
        test_a_broker_that_is_away_for_long_is_left_out,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(world: World, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """With the fault planted, the test of that rule fails."""
    check_fault(world, monkeypatch, *FAULTS[fault])
