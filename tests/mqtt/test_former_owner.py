"""A gateway that has lost its broker's lease: it acknowledges nothing, clears nothing, and does not connect again."""

from functools import partial
from pathlib import Path

from gateway.mqtt.connection import ConnectionObserver
from gateway.store import Store, Tx, lease_sql
from gateway.store.lease_sql import Fence, Holder
from tests.mqtt.devices import heartbeat_payload
from tests.mqtt.support import MqttTestbed, on_every_broker, open_testbed
from tests.support import wire
from tests.support.outbox import outbox_depth
from tests.support.wait import eventually

NAME = "broker:default"
LEASE_MS = 60_000
TRIES = 4
"""More than the gateway makes of a message that it then gives up, and acknowledges: a fault of the code, not of one."""


class Owner:
    """One gateway as the owner of the broker: the store that its work writes by."""

    def __init__(self, fence: Fence, store: Store) -> None:
        self.lost = 0
        self.store = store.under(lambda: fence, self._lose)

    def _lose(self) -> None:
        self.lost += 1


async def _taken_over(testbed: MqttTestbed, instance: str) -> Owner:
    def take(tx: Tx) -> Fence | None:
        tx.run("UPDATE leases SET until = 0")
        return lease_sql.acquire(tx, NAME, Holder("gw", instance), LEASE_MS)

    fence = await testbed.store.write(take)
    assert fence is not None
    return Owner(fence, testbed.store)


def _work_as(testbed: MqttTestbed, owner: Owner) -> None:
    testbed.owned = owner.store
    testbed.observer = partial(ConnectionObserver, may_connect=lambda: not owner.lost)


def _acknowledged(testbed: MqttTestbed) -> int:
    return testbed.proxy.to_broker[wire.Kind.PUBACK]


@on_every_broker
async def test_a_former_owner_acknowledges_nothing(kind: str, tmp_path: Path) -> None:
    """What it receives is stored by its successor, to whom the broker sends it again."""
    async with open_testbed(kind, tmp_path) as testbed:
        _work_as(testbed, first := await _taken_over(testbed, "one"))
        await testbed.start()
        device = await testbed.bound()
        async with testbed.join(device) as client:
            await client.publish(device.topic("heartbeat"), heartbeat_payload(81))
            await eventually(partial(_holds, testbed, [81]), "the owner stores it")
            second, before = await _taken_over(testbed, "other"), _acknowledged(testbed)
            await client.say(device.topic("heartbeat"), heartbeat_payload(80))
            await eventually(
                lambda: first.lost >= TRIES or _acknowledged(testbed) > before, "the former owner has tried it again"
            )
            assert (await testbed.stored_batteries(), _acknowledged(testbed)) == ([81], before)
            await testbed.stop()
            _work_as(testbed, second)
            await testbed.start()
            await eventually(partial(_holds, testbed, [81, 80]), "the successor stores it")
            assert second.lost == 0


async def _holds(testbed: MqttTestbed, batteries: list[int]) -> bool:
    return await testbed.stored_batteries() == batteries


@on_every_broker
async def test_a_former_owner_clears_nothing_and_stays_away(kind: str, tmp_path: Path) -> None:
    """What it published stays in the outbox for its successor, and it does not end the successor's session."""
    async with open_testbed(kind, tmp_path) as testbed:
        _work_as(testbed, first := await _taken_over(testbed, "one"))
        await testbed.start()
        device = await testbed.bound()
        await testbed.settled()
        await _taken_over(testbed, "other")
        await testbed.command(device)
        await eventually(lambda: "owns this broker" in (testbed.connection.status.last_error or ""), "it stays away")
        depth, _ = await testbed.store.read(outbox_depth)
        assert (first.lost > 0, depth, testbed.proxy.connects) == (True, 1, 1)
