"""A clock that was wrong for a while: what is stored with its times neither blocks what comes later nor lives on."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.domain import commands, grants, webhooks
from gateway.models.webhooks import CreateWebhook
from gateway.store import Tx, delivery_sql, event_sql, heartbeat_age_sql, idempotency_sql, key_sql
from tests.domain.support import ACTOR, World

DAY = 86_400_000
YEAR = 365 * DAY
MINUTE = 60_000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry."""
    with World(tmp_path) as world:
        yield world


# Blocks of rows as they lie in a table: old enough (True) or dated ahead by a wrong clock (False), and how many.
SHAPES = [
    [(False, 6_000), (True, 10_000)],
    [(True, 100), (False, 5_001), (True, 3_000), (False, 7_000), (True, 4_000)],
    [(False, 1), (True, 1)],
    [(False, 300)],
    [(True, 12_000)],
    [],
]


def fill(world: World, table: str, shape: list[tuple[bool, int]]) -> tuple[int, int]:
    """Rows of these blocks, then ten young ones; how many are old enough, and how many are not."""
    ages = [world.now - 500 * DAY if due else world.now + YEAR for due, number in shape for _ in range(number)]
    ages += [world.now - MINUTE] * 10
    world.run(INSERTS[table], ages)
    due = sum(number for due, number in shape if due)
    return due, len(ages) - due


def insert_heartbeats(tx: Tx, ages: list[int]) -> None:
    """Heartbeats that were received then."""
    tx.connection.executemany(
        "INSERT INTO heartbeats (id, device_pk, received_at) VALUES (?, 1, ?)", enumerate(ages, start=1)
    )


def insert_events(tx: Tx, ages: list[int]) -> None:
    """Events of then, in turns of a project without a webhook and of the registry."""
    projects = [key_sql.create_project(tx, "Other"), event_sql.REGISTRY]
    tx.connection.executemany(
        "INSERT INTO events (id, project_id, device_pk, type, created_at, data) VALUES (?, ?, 1, 't', ?, '{}')",
        [(f"evt_{number}", projects[number % 2], at) for number, at in enumerate(ages)],
    )


def insert_deliveries(tx: Tx, ages: list[int]) -> None:
    """Deliveries that ended then."""
    insert_events(tx, ages)
    webhook = tx.value("SELECT id FROM webhooks")
    tx.connection.executemany(
        """INSERT INTO deliveries (id, webhook_id, event_seq, status, attempts, last_attempt_at, created_at)
            VALUES (?, ?, (SELECT seq FROM events WHERE id = ?), 'delivered', 1, ?, ?)""",
        [(f"dlv_{number}", webhook, f"evt_{number}", at, at) for number, at in enumerate(ages)],
    )


def insert_answers(tx: Tx, ages: list[int]) -> None:
    """Answers that were given then."""
    tx.connection.executemany(
        """INSERT INTO idempotency (caller, key_hash, request_hash, status, answer, created_at)
            VALUES ('key_1', ?, ?, 200, ?, ?)""",
        [(str(number).encode(), b"\0", b"\0", at) for number, at in enumerate(ages)],
    )


INSERTS = {
    "heartbeats": insert_heartbeats,
    "events": insert_events,
    "deliveries": insert_deliveries,
    "idempotency": insert_answers,
}
PRUNES = {
    "heartbeats": lambda tx: heartbeat_age_sql.prune(tx, tx.now - 30 * DAY, 5_000),
    "events": lambda tx: event_sql.prune(tx, tx.now - 365 * DAY, 5_000),
    "deliveries": lambda tx: delivery_sql.prune(tx, tx.now - 30 * DAY, 5_000),
    "idempotency": idempotency_sql.prune,
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("table", INSERTS)
def test_rows_dated_in_the_future_do_not_stop_the_pruning(
    world: World, table: str, shape: list[tuple[bool, int]]
) -> None:
    """All that is old enough goes, a bounded number at a time, and nothing else."""
    world.register()
    world.run(webhooks.create, world.project_id, CreateWebhook(url="https://example.com/"), ACTOR)
    world.run(lambda tx: tx.run("DELETE FROM events"))
    due, rest = fill(world, table, shape)
    went = []
    while dropped := world.run(PRUNES[table]):
        went.append(dropped)
    assert (sum(went), max(went, default=0) <= 5_000) == (due, True)
    assert world.view.value(f"SELECT count(*) FROM {table}") == rest  # noqa: S608 - a constant


def test_history_in_any_block_order_is_pruned_by_age(world: World) -> None:
    """Runs of a tenth of the table are found wherever they lie; what is young stays, whatever lies beside it."""
    world.register()
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it on failure
    chance = random.Random(seed)  # noqa: S311 - a test wants to repeat it
    for _ in range(20):
        world.run(lambda tx: tx.run("DELETE FROM heartbeats"))
        shape = [(bool(number % 2), chance.randrange(100, 400)) for number in range(chance.randrange(2, 8))]
        due, rest = fill(world, "heartbeats", shape)
        while world.run(PRUNES["heartbeats"]):
            pass
        left = world.view.value("SELECT count(*) FROM heartbeats WHERE received_at < ?", world.now - 30 * DAY)
        assert (left, world.view.value("SELECT count(*) FROM heartbeats")) == (0, rest), (shape, due)


@pytest.mark.parametrize("ahead", [YEAR, 100_000, 10_000])
def test_a_command_is_open_for_at_most_its_ttl(world: World, ahead: int) -> None:
    """Queued while the clock was ahead, it counts from the correction of the clock; the device gets the new time."""
    device_id, _ = world.bound()
    world.now += ahead
    command = world.create(device_id, "reboot", ttl_seconds=60)
    world.settle()
    world.now -= ahead
    assert world.run(commands.expire) == 0
    right = world.again(command)
    assert (right.status, right.expires_at, right.ttl_ms) == ("pending", world.now + MINUTE, MINUTE)
    claims = grants.verified(world.view, right.grant_token)
    assert claims
    assert right.expires_at
    assert claims["exp"] == -(-right.expires_at // 1_000), "a device refuses a time that its grant does not say"
    assert world.outbox() == [("command", "reboot")]
    world.settle()
    world.now += MINUTE - 1
    assert (world.run(commands.expire), world.outbox()) == (0, [])
    world.now += 1
    assert world.run(commands.expire) == 1
    assert world.again(command).status == "expired"


def test_a_clock_that_goes_back_a_little_changes_nothing(world: World) -> None:
    """As when it is adjusted all the time."""
    device_id, _ = world.bound()
    command = world.create(device_id, "reboot", ttl_seconds=60)
    world.settle()
    world.now -= 900
    assert (world.run(commands.expire), world.outbox()) == (0, [])
    assert world.again(command).expires_at == command.expires_at


def test_the_overlap_of_a_rotated_key_ends(world: World) -> None:
    """Also when the clock was ahead at the rotation: a day is not a year and a day."""
    key_id, before = world.run(key_sql.create, world.project_id, "back end")
    world.now += YEAR
    after = world.run(key_sql.rotate, key_id, DAY)
    assert [key_sql.by_secret(world.view, secret, world.now) is None for secret in (before, after)] == [False, False]
    assert key_sql.by_secret(world.view, before, world.now + DAY) is None
    assert key_sql.by_secret(world.view, before, world.now - MINUTE) is not None
    world.now -= YEAR
    assert [key_sql.by_secret(world.view, secret, world.now) is None for secret in (before, after)] == [True, False]


def test_last_use_times_in_the_future_are_corrected(world: World) -> None:
    """It is not shown as used in the future until that comes."""
    key_id, _ = world.run(key_sql.create, world.project_id, "back end")
    world.now += YEAR
    world.run(key_sql.touch, key_id, world.now)
    world.now -= YEAR
    world.run(key_sql.touch, key_id, world.now - MINUTE)
    assert key_sql.require(world.view, key_id).last_used_at == world.now


def test_refusals_dated_in_the_future_hide_no_new_one(world: World) -> None:
    """Each device has its events of bad acknowledgements, so many in a minute, after the clock was set back as well."""
    device_id, _ = world.bound()
    command = world.create(device_id, "reboot")
    world.now += YEAR
    for _ in range(20):
        world.ack(command, "delivered", "dtok_another")
    told = world.events().count("acknowledgement.refused")
    assert 0 < told < 20
    world.now -= YEAR
    world.ack(command, "delivered", "dtok_another")
    assert world.events().count("acknowledgement.refused") == told + 1
