"""A real RabbitMQ that asks the gateway: what happens to other sessions when one cannot be cut, and to integrators."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.broker.external.disconnect_clients import disconnector_of
from gateway.broker.external.session_sync import SessionSync
from gateway.settings.broker_api import BrokerApi
from gateway.store import account_sql
from gateway.store.broker_sql import FIRST
from tests.broker.revocation_times import (
    TRIES,
    assert_cut_in_time,
    count_syncs,
    seconds_until_cut,
    wait_for_failed_attempts,
)
from tests.broker.support import REFUSED, answer
from tests.mqtt.devices import Device, heartbeat_payload
from tests.mqtt.support import MqttTestbed, open_testbed
from tests.support import wire
from tests.support.measured import Measured
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitMq
from tests.support.wait import eventually


@pytest.fixture
async def testbed(rabbitmq: RabbitMq, tmp_path: Path) -> AsyncIterator[MqttTestbed]:
    """A gateway beside RabbitMQ, at work."""
    async with open_testbed("rabbitmq", tmp_path, node=rabbitmq) as made:
        await made.start()
        yield made


@contextlib.asynccontextmanager
async def integrator(testbed: MqttTestbed, name: str, client_id: str, password: str) -> AsyncIterator[wire.Wire]:
    """Connected, with a persistent session that has a queue."""
    async with wire.Wire.open("127.0.0.1", testbed.broker.port) as client:
        assert await client.connect(client_id, name, password, clean=False) == wire.ACCEPTED
        await client.subscribe("gateways/#")
        yield client


async def make(testbed: MqttTestbed, name: str) -> str:
    """An account; its password."""
    password = await testbed.store.write(lambda tx: account_sql.create(tx, name))
    testbed.wakeups.access_changed()
    return password


async def with_a_queue(testbed: MqttTestbed, device: Device) -> None:
    """Leave a persistent session of this device at the broker."""
    async with testbed.join(device, clean=False) as client:
        await client.subscribe(device.topic("commands/reboot"))
        await client.disconnect()


async def test_a_session_that_cannot_be_ended_does_not_delay_revocations(
    testbed: MqttTestbed, rabbitmq: RabbitMq
) -> None:
    """The gateway may not delete one device's queue: said in /ready, tried on, and done once it may."""
    stuck, other = await testbed.bound("SN-1"), await testbed.bound("SN-2")
    await testbed.settled()
    await with_a_queue(testbed, stuck)
    with rabbitmq.rights(f"^mqtt-subscription-(?!{stuck.id})"):
        await testbed.unbind(stuck)
        await eventually(lambda: stuck.id in (testbed.access_syncer.last_error or ""), "the trouble is told")
        async with testbed.join(other) as client:
            await testbed.unbind(other)
            await client.closed()
        assert await answer(testbed, other) in REFUSED
        ready = await testbed.ready()
        assert not ready["ready"]
        assert "1 session could not be cut" in ready["access"]["error"]
    await testbed.settled()
    assert testbed.access_syncer.last_error is None
    assert f"mqtt-subscription-{stuck.id}qos1" not in rabbitmq.queues()


async def test_a_session_that_is_not_cut_has_no_rights_after_the_next_bind(rabbitmq: RabbitMq, tmp_path: Path) -> None:
    """Without an API of the broker: what the old session asks for is refused, which ends it; the new one lives on."""
    async with open_testbed("rabbitmq", tmp_path, node=rabbitmq) as testbed:
        admissions = testbed.broker.admissions  # type: ignore[union-attr]
        testbed.broker.access = lambda store: SessionSync(store, admissions, None)  # type: ignore[method-assign]
        await testbed.start()
        device, other = await testbed.bound("SN-1"), await testbed.bound("SN-2")
        async with testbed.join(device) as old, testbed.join(other) as witness:
            await testbed.unbind(device)
            again = await testbed.bound_again(device)
            with pytest.raises(wire.ConnectionClosedError):
                await old.subscribe(device.topic("commands/reboot"))
            async with testbed.join(again) as new:
                await new.subscribe(device.topic("commands/reboot"))
                await new.publish(device.topic("heartbeat"), heartbeat_payload(80))
            await witness.publish(other.topic("heartbeat"), heartbeat_payload(81))


async def test_revoking_home_assistant_does_not_delay_revocations(testbed: MqttTestbed, rabbitmq: RabbitMq) -> None:
    """Nor where the gateway's account has the rights that were documented before, without its queues."""
    device = await testbed.bound()
    password = await make(testbed, "home_assistant")
    with rabbitmq.rights("^mqtt-subscription-(dev_|integrator)"):
        async with (
            integrator(testbed, "home_assistant", "home_assistant", password) as client,
            testbed.join(device) as live,
        ):
            await testbed.store.write(lambda tx: account_sql.revoke(tx, "home_assistant"))
            testbed.wakeups.access_changed()
            await client.closed()
            await eventually(
                lambda: "home_assistant" in (testbed.access_syncer.last_error or ""), "the trouble is told"
            )
            await testbed.unbind(device)
            await live.closed()
            await testbed.settled()
    await eventually(lambda: testbed.access_syncer.last_error is None, "the queue may be deleted")
    assert not [queue for queue in rabbitmq.queues() if "home_assistant" in queue]


async def test_an_integrator_that_was_rotated_is_cut(testbed: MqttTestbed, rabbitmq: RabbitMq) -> None:
    """Each of its clients that came with the old password; then those with the new one stay, and devices always."""
    device = await testbed.bound()
    old = await make(testbed, "integrator")
    async with (
        testbed.join(device) as witness,
        integrator(testbed, "integrator", "integrator-1", old) as one,
        integrator(testbed, "integrator", "integrator-2", old) as two,
    ):
        new = await testbed.store.write(lambda tx: account_sql.rotate(tx, "integrator"))
        testbed.wakeups.access_changed()
        await one.closed()
        await two.closed()
        await eventually(lambda: _is_enforced(testbed), "no old session is left")
        async with integrator(testbed, "integrator", "integrator-1", new) as client:
            testbed.wakeups.access_changed()
            await testbed.unbind(await testbed.bound("SN-2"))
            await testbed.settled()
            await client.ping()
        await witness.ping()
    queues = {queue for queue in rabbitmq.queues() if "integrator" in queue}
    assert queues == {"mqtt-subscription-integrator-1qos1"}


async def test_an_integrator_rotated_while_the_gateway_was_away_is_cut_at_its_start(testbed: MqttTestbed) -> None:
    """It knows nothing of the session any more, and cuts it once; at the next start it leaves it alone."""
    old = await make(testbed, "integrator")
    async with integrator(testbed, "integrator", "integrator-1", old) as client:
        await eventually(lambda: _is_enforced(testbed), "no old session is left")
        await testbed.stop()
        new = await testbed.store.write(lambda tx: account_sql.rotate(tx, "integrator"))
        await testbed.start()
        await client.closed()
    async with integrator(testbed, "integrator", "integrator-1", new) as client:
        await eventually(lambda: _is_enforced(testbed), "no old session is left")
        await testbed.stop()
        await testbed.start()
        await client.ping()


async def _is_enforced(testbed: MqttTestbed) -> bool:
    return await testbed.store.read(
        lambda view: all(account_sql.is_cut(view, row, FIRST) for row in account_sql.everyone(view))
    )


async def test_revocation_is_in_time_after_an_api_outage(
    testbed: MqttTestbed, rabbitmq: RabbitMq, record_property: Measured
) -> None:
    """The broker's API does not answer while a token is revoked; another one is revoked when it is back."""
    async with Proxy(lambda: rabbitmq.api_port) as api:
        url = rabbitmq.api_url.replace(f":{rabbitmq.api_port}", f":{api.port}")
        await testbed.stop()
        admissions = testbed.broker.admissions  # type: ignore[union-attr]
        reached = disconnector_of(BrokerApi.parse(url), None)
        testbed.broker.access = lambda store: SessionSync(store, admissions, reached)  # type: ignore[method-assign]
        await testbed.start()
        access, lived, returned = count_syncs(testbed), list[float](), list[float]()
        for number in range(TRIES):
            during, after = await testbed.bound(f"SN-{number}-during"), await testbed.bound(f"SN-{number}-after")
            await testbed.settled()
            async with testbed.join(during) as client:
                api.closed = True
                api.cut()
                await testbed.unbind(during)
                await wait_for_failed_attempts(testbed, access)

                async def mend() -> None:
                    api.closed = False

                returning = asyncio.create_task(_closed_after(client))
                lived.append(await seconds_until_cut(testbed, after, mend))
                returned.append(await returning)
            await testbed.settled()
        assert_cut_in_time(record_property, "the broker's API was away", lived)
        assert_cut_in_time(record_property, "the API's return, revoked before it,", returned)


async def _closed_after(client: wire.Wire) -> float:
    """How long from now until the connection is closed; seconds."""
    began = asyncio.get_running_loop().time()
    await client.closed()
    return asyncio.get_running_loop().time() - began
