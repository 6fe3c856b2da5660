"""The brokers of a registry, as tests have them come and go."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.clock import system_clock
from gateway.domain import brokers
from gateway.domain.brokers import DeviceAddress
from gateway.store import Rules, broker_sql, lease_sql, outbox_sql
from gateway.store.lease_sql import Holder
from gateway.store.transaction import LinkState
from tests.domain.support import World

SECOND = 2


def own(world: World, broker_id: str, *, connected: bool = True) -> None:
    """A gateway owns this broker from now on, and has compared it."""
    name = lease_sql.of_broker(broker_id)
    world.run(lease_sql.acquire, name, Holder(f"gw_{broker_id}", broker_id), 1 << 40)
    address = DeviceAddress(f"{broker_id}.example.org", 8883, tls=True)
    pk = world.run(brokers.begin, broker_id, knows_tokens=True, address=address)
    if connected:
        world.run(broker_sql.note_compared, pk)
    world.run(brokers.care)


def disown(world: World, broker_id: str) -> None:
    """Its owner is gone."""
    world.connection.execute("UPDATE leases SET until = 0 WHERE name = ?", (lease_sql.of_broker(broker_id),))
    world.run(brokers.care)


def age(world: World, ms: int) -> None:
    """So much time passes, as far as brokers that are away go."""
    world.connection.execute("UPDATE brokers SET away_since = away_since - ?", (ms,))


def at(world: World, broker: int) -> World:
    """The same registry, as the gateway of another broker sees it."""
    world.context = replace(world.context, link=LinkState(broker=broker))
    return world


def marked(world: World, broker: int) -> set[tuple[str, str]]:
    """Kind and detail of what is out of step at this broker."""
    return {
        (row["kind"], row["detail"])
        for row in world.view.all("SELECT * FROM outbox WHERE broker_pk = ? AND kind <> 'mirror'", broker)
    }


def leave_out(world: World) -> None:
    """The second broker is away for too long, and what was marked for it is dropped."""
    disown(world, "brk_b")
    age(world, brokers.AWAY_MS)
    world.run(brokers.care)
    found = broker_sql.find(world.view, "brk_b", world.now)
    assert found is not None
    assert found.left_out_at is not None
    while world.run(brokers.drop_rows):
        pass


HOMES = Rules(mirrored=(outbox_sql.STATE,), assigns_homes=True)


@contextmanager
def with_homes(folder: Path) -> Iterator[World]:
    """A registry whose devices have homes, with two brokers that are there; this process serves the first."""
    with World(folder, rules=HOMES) as opened:
        opened.now = system_clock()  # brokers are away by the clock of the database
        own(opened, "default")
        own(opened, "brk_b")
        yield opened


def check_fault(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    name: str,
    wrong: object,
    check: Callable[[World], None],
) -> None:
    """With ``wrong`` in the place of this name, the test of a rule fails."""
    monkeypatch.setattr(module, name, wrong)
    with pytest.raises(AssertionError):
        check(world)
