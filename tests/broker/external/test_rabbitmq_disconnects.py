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
from tests.broker.revocation_times import TRIES, counted, judge, seconds_until_cut, tried_in_vain
from tests.broker.support import REFUSED, answer
from tests.mqtt.support import Device, Site, beat, site
from tests.support import wire
from tests.support.measured import Measured
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitMq
from tests.support.wait import eventually


@pytest.fixture
async def place(rabbitmq: RabbitMq, tmp_path: Path) -> AsyncIterator[Site]:
    """A gateway beside RabbitMQ, at work."""
    async with site("rabbitmq", tmp_path, node=rabbitmq) as made:
        await made.start()
        yield made


@contextlib.asynccontextmanager
async def integrator(place: Site, name: str, client_id: str, password: str) -> AsyncIterator[wire.Wire]:
    """Connected, with a persistent session that has a queue."""
    async with wire.Wire.open("127.0.0.1", place.broker.port) as client:
        assert await client.connect(client_id, name, password, clean=False) == wire.ACCEPTED
        await client.subscribe("gateways/#")
        yield client


async def make(place: Site, name: str) -> str:
    """An account; its password."""
    password = await place.store.write(lambda tx: account_sql.create(tx, name))
    place.wakeups.access_changed()
    return password


async def with_a_queue(place: Site, device: Device) -> None:
    """Leave a persistent session of this device at the broker."""
    async with place.join(device, clean=False) as client:
        await client.subscribe(device.topic("commands/reboot"))
        await client.disconnect()


async def test_a_session_that_cannot_be_ended_keeps_no_revocation_waiting(place: Site, rabbitmq: RabbitMq) -> None:
    """The gateway may not delete one device's queue: said in /ready, tried on, and done once it may."""
    stuck, other = await place.bound("SN-1"), await place.bound("SN-2")
    await place.settled()
    await with_a_queue(place, stuck)
    with rabbitmq.rights(f"^mqtt-subscription-(?!{stuck.id})"):
        await place.unbind(stuck)
        await eventually(lambda: stuck.id in (place.access_syncer.last_error or ""), "the trouble is told")
        async with place.join(other) as client:
            await place.unbind(other)
            await client.closed()
        assert await answer(place, other) in REFUSED
        ready = await place.ready()
        assert not ready["ready"]
        assert "1 session could not be cut" in ready["access"]["error"]
    await place.settled()
    assert place.access_syncer.last_error is None
    assert f"mqtt-subscription-{stuck.id}qos1" not in rabbitmq.queues()


async def test_a_session_that_is_not_cut_has_no_rights_after_the_next_bind(rabbitmq: RabbitMq, tmp_path: Path) -> None:
    """Without an API of the broker: what the old session asks for is refused, which ends it; the new one lives on."""
    async with site("rabbitmq", tmp_path, node=rabbitmq) as place:
        admissions = place.broker.admissions  # type: ignore[union-attr]
        place.broker.access = lambda store: SessionSync(store, admissions, None)  # type: ignore[method-assign]
        await place.start()
        device, other = await place.bound("SN-1"), await place.bound("SN-2")
        async with place.join(device) as old, place.join(other) as witness:
            await place.unbind(device)
            again = await place.bound_again(device)
            with pytest.raises(wire.ConnectionClosedError):
                await old.subscribe(device.topic("commands/reboot"))
            async with place.join(again) as new:
                await new.subscribe(device.topic("commands/reboot"))
                await new.publish(device.topic("heartbeat"), beat(80))
            await witness.publish(other.topic("heartbeat"), beat(81))


async def test_revoking_home_assistant_keeps_no_revocation_waiting(place: Site, rabbitmq: RabbitMq) -> None:
    """Nor where the gateway's account has the rights that were documented before, without its queues."""
    device = await place.bound()
    password = await make(place, "home_assistant")
    with rabbitmq.rights("^mqtt-subscription-(dev_|integrator)"):
        async with (
            integrator(place, "home_assistant", "home_assistant", password) as client,
            place.join(device) as live,
        ):
            await place.store.write(lambda tx: account_sql.revoke(tx, "home_assistant"))
            place.wakeups.access_changed()
            await client.closed()
            await eventually(lambda: "home_assistant" in (place.access_syncer.last_error or ""), "the trouble is told")
            await place.unbind(device)
            await live.closed()
            await place.settled()
    await eventually(lambda: place.access_syncer.last_error is None, "the queue may be deleted")
    assert not [queue for queue in rabbitmq.queues() if "home_assistant" in queue]


async def test_an_integrator_that_was_rotated_is_cut(place: Site, rabbitmq: RabbitMq) -> None:
    """Each of its clients that came with the old password; then those with the new one stay, and devices always."""
    device = await place.bound()
    old = await make(place, "integrator")
    async with (
        place.join(device) as witness,
        integrator(place, "integrator", "integrator-1", old) as one,
        integrator(place, "integrator", "integrator-2", old) as two,
    ):
        new = await place.store.write(lambda tx: account_sql.rotate(tx, "integrator"))
        place.wakeups.access_changed()
        await one.closed()
        await two.closed()
        await eventually(lambda: _is_enforced(place), "no old session is left")
        async with integrator(place, "integrator", "integrator-1", new) as client:
            place.wakeups.access_changed()
            await place.unbind(await place.bound("SN-2"))
            await place.settled()
            await client.ping()
        await witness.ping()
    queues = {queue for queue in rabbitmq.queues() if "integrator" in queue}
    assert queues == {"mqtt-subscription-integrator-1qos1"}


async def test_an_integrator_rotated_while_the_gateway_was_away_is_cut_at_its_start(place: Site) -> None:
    """It knows nothing of the session any more, and cuts it once; at the next start it leaves it alone."""
    old = await make(place, "integrator")
    async with integrator(place, "integrator", "integrator-1", old) as client:
        await eventually(lambda: _is_enforced(place), "no old session is left")
        await place.stop()
        new = await place.store.write(lambda tx: account_sql.rotate(tx, "integrator"))
        await place.start()
        await client.closed()
    async with integrator(place, "integrator", "integrator-1", new) as client:
        await eventually(lambda: _is_enforced(place), "no old session is left")
        await place.stop()
        await place.start()
        await client.ping()


async def _is_enforced(place: Site) -> bool:
    rows = await place.store.read(account_sql.everyone)
    return all(row.old_sessions_cut for row in rows)


async def test_after_the_api_was_away(place: Site, rabbitmq: RabbitMq, record_property: Measured) -> None:
    """The broker's API does not answer while a token is revoked; another one is revoked when it is back."""
    async with Proxy(lambda: rabbitmq.api_port) as api:
        url = rabbitmq.api_url.replace(f":{rabbitmq.api_port}", f":{api.port}")
        await place.stop()
        admissions = place.broker.admissions  # type: ignore[union-attr]
        reached = disconnector_of(BrokerApi.parse(url), None)
        place.broker.access = lambda store: SessionSync(store, admissions, reached)  # type: ignore[method-assign]
        await place.start()
        access, lived, returned = counted(place), list[float](), list[float]()
        for number in range(TRIES):
            during, after = await place.bound(f"SN-{number}-during"), await place.bound(f"SN-{number}-after")
            await place.settled()
            async with place.join(during) as client:
                api.closed = True
                api.cut()
                await place.unbind(during)
                await tried_in_vain(place, access)

                async def mend() -> None:
                    api.closed = False

                returning = asyncio.create_task(_closed_after(client))
                lived.append(await seconds_until_cut(place, after, mend))
                returned.append(await returning)
            await place.settled()
        judge(record_property, "the broker's API was away", lived)
        judge(record_property, "the API's return, revoked before it,", returned)


async def _closed_after(client: wire.Wire) -> float:
    """How long from now until the connection is closed; seconds."""
    began = asyncio.get_running_loop().time()
    await client.closed()
    return asyncio.get_running_loop().time() - began
