"""Two gateways at one broker and prefix: the one that came first goes on, the other one does nothing there."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gateway.bootstrap import first_start
from gateway.core.backoff import Pauses
from gateway.mqtt.connection import BrokerConnection
from gateway.settings.loading import Settings
from gateway.store import Context, Rules, Store, broker_sql
from gateway.store.wakeups import Wakeups
from tests.mqtt.devices import heartbeat_payload
from tests.mqtt.proxy import Proxy
from tests.mqtt.support import QUICK, RESET, MqttTestbed, on_every_broker, on_mosquitto, open_testbed
from tests.support import wire
from tests.support.mosquitto import GATEWAY_PASSWORD
from tests.support.wait import eventually

_END = "devices/end"
_MOST = 80
"""More heartbeats within a moment exceed what one client may send."""
SLOW = Pauses(first_seconds=1.0, longest_seconds=2.0)
"""Two gateways that take their session from each other need longer pauses than a look takes."""


class SecondGateway(MqttTestbed):
    """A gateway of another registry at the same broker; who may connect there is the first one's to say."""

    async def start(self, *, settled: bool = True) -> None:
        """Start only its connection."""
        self.connection = self._new_connection()
        self._start(self.connection.run())
        if settled:
            await self.settled()


@contextlib.asynccontextmanager
async def another(testbed: MqttTestbed, gateway_id: str) -> AsyncIterator[SecondGateway]:
    """A second registry, and its gateway that is not started yet."""
    directory = testbed.broker.directory / "another"
    ids = first_start(Settings(data_dir=directory, gateway_id=gateway_id))
    wakeups = Wakeups()
    async with (
        Store(directory, Context(rules=Rules(gateway_id=gateway_id)), wakeups) as store,
        Proxy(lambda: testbed.broker.port) as proxy,
    ):
        second = SecondGateway(testbed.broker, proxy, store, wakeups, ids)
        second.share()
        second.pauses = SLOW
        try:
            yield second
        finally:
            await second.stop()


def refused(connection: BrokerConnection, gateway_id: str) -> bool:
    """Whether it stays away because of that gateway."""
    said = connection.status.last_error or ""
    return not connection.status.connected and f"Another gateway, '{gateway_id}'" in said


@on_every_broker
@pytest.mark.parametrize("gateway_id", ["gw_other", "gw_test"])
async def test_the_second_gateway_waits_until_it_is_alone(kind: str, gateway_id: str, tmp_path: Path) -> None:
    """It clears nothing of the first one's, is not ready and says why; when the first one stops it takes over."""
    async with open_testbed(kind, tmp_path) as testbed, another(testbed, gateway_id) as second:
        testbed.share()
        testbed.pauses = SLOW
        await testbed.start()
        device = await testbed.bound()
        await testbed.reset(device)
        await testbed.settled()
        before = await testbed.retained()
        assert list(before) == [device.topic(f"commands/{RESET}")]
        await second.start(settled=False)
        await eventually(lambda: _is(refused(second.connection, "gw_test")), "the second gateway was refused")
        await testbed.settled()
        assert await testbed.retained() == before
        await eventually(lambda: _ready(testbed), "the first gateway was ready")
        assert not (await second.ready())["ready"]
        await testbed.stop()
        await second.settled()


@on_every_broker
async def test_two_gateways_of_one_id_lose_nothing(kind: str, tmp_path: Path) -> None:
    """They take their session from each other, but the second one clears no command and takes in no message."""
    async with open_testbed(kind, tmp_path) as testbed, another(testbed, "gw_test") as second:
        testbed.share()
        testbed.pauses = Pauses(longest_seconds=2.0)
        await testbed.start()
        device, talker = await testbed.bound(), await testbed.bound("SN-2")
        await testbed.reset(device)
        await testbed.settled()
        command = device.topic(f"commands/{RESET}")
        async with testbed.admin() as observer:
            await observer.subscribe(command, _END)
            await second.start(settled=False)
            sent = 0
            while not refused(second.connection, "gw_test") and sent < _MOST:
                sent += 1
                await observer.publish(talker.topic("heartbeat"), heartbeat_payload(sent % 100))
                await eventually(partial(_has_stored, testbed, sent), f"heartbeat {sent} is stored")
            await eventually(lambda: _is(refused(second.connection, "gw_test")), "the second gateway was refused")
            await observer.publish(_END, b"")
            said = [each for each in await observer.read_until(_END) if each.topic == command]
        assert all(each.payload for each in said)
        assert not await second.rows("SELECT * FROM refusals")


@on_mosquitto
async def test_the_status_of_a_dead_gateway_blocks_no_other(kind: str, tmp_path: Path) -> None:
    """A retained ``online`` whose gateway is gone is no gateway, at the first start and later."""
    async with open_testbed(kind, tmp_path) as testbed:
        testbed.share()
        async with testbed.admin() as admin:
            said = json.dumps({"status": "online", "version": "1", "started_at": "2026-01-01T00:00:00.000Z"})
            await admin.publish("gateways/gw_dead/status", said.encode(), retain=True)
        await testbed.start()
        await testbed.stop()
        await testbed.start()


@on_every_broker
async def test_a_restarted_gateway_does_not_count_as_its_own_peer(kind: str, tmp_path: Path) -> None:
    """It comes back on the same registry at once, whatever status it left."""
    async with open_testbed(kind, tmp_path) as testbed:
        testbed.share()
        for _ in range(2):
            await testbed.start()
            testbed.proxy.cut()
            await testbed.settled()
            await testbed.stop()


@on_every_broker
async def test_an_owner_in_between_blocks_no_former_owner(kind: str, tmp_path: Path) -> None:
    """A process that owns the broker again serves it at once, though another one has left its status there."""
    async with open_testbed(kind, tmp_path) as testbed:
        testbed.share()
        testbed.pauses = replace(QUICK, longest_seconds=60.0)
        await testbed.start()
        device = await testbed.bound()
        await testbed.settled()
        await testbed.stop()
        between = "in between"
        await testbed.store.write(lambda tx: broker_sql.set_fact(tx, tx.context.broker, broker_sql.SPEAKER, between))
        said = {"status": "online", "instance": between, "started_at": "2000-01-01T00:00:00.000Z"}
        async with testbed.admin() as admin:
            await admin.publish("gateways/gw_test/status", json.dumps(said).encode(), retain=True)
        await testbed.reset(device)
        testbed.resume()
        await testbed.settled()
        assert list(await testbed.retained()) == [device.topic(f"commands/{RESET}")]


@on_mosquitto
async def test_the_status_of_a_device_is_none_of_a_gateway(kind: str, tmp_path: Path) -> None:
    """The owner before was cut off while it read what is retained; its session brings that to the next one."""
    async with open_testbed(kind, tmp_path) as testbed:
        testbed.share()
        async with testbed.admin() as admin:
            await admin.publish("devices/dev_A/status", b'{"status": "online"}', retain=True)
        async with wire.Wire.open("127.0.0.1", testbed.broker.port) as before:
            answer = await before.connect("gw_test", "gateway", GATEWAY_PASSWORD, clean=False)
            assert answer == wire.ACCEPTED
            await before.subscribe("devices/+/status")
            assert (await before.read_publish()).retain
        await testbed.start()
        assert testbed.proxy.connects == 1


@on_every_broker
async def test_retained_messages_are_reconciled_without_a_reconnect(kind: str, tmp_path: Path) -> None:
    """A retained command that another client removed is there again after the interval."""
    async with open_testbed(kind, tmp_path) as testbed:
        testbed.pauses = replace(QUICK, compare_seconds=0.3)
        await testbed.start()
        device = await testbed.bound()
        await testbed.reset(device)
        await testbed.settled()
        connects = testbed.proxy.connects
        async with testbed.admin() as admin:
            await admin.publish(device.topic(f"commands/{RESET}"), b"", retain=True)
        await eventually(testbed.is_in_sync, "the command was retained again")
        assert testbed.proxy.connects == connects


async def _has_stored(testbed: MqttTestbed, number: int) -> bool:
    return len(await testbed.stored_batteries()) == number


async def _ready(testbed: MqttTestbed) -> bool:
    return bool((await testbed.ready())["ready"])


async def _is(condition: bool) -> bool:  # noqa: FBT001 - what eventually asks for
    return condition
