"""The virtual broker keeps MQTT's rules: on those every invariant of the simulation stands."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from gateway.broker.access_rules import Role
from gateway.broker.embedded.session import ClientIdentity
from tests.simulation.broker import Broker
from tests.simulation.mqtt_client import Client, ClosedError, NotAuthorisedError
from tests.simulation.virtual_loop import PausableProcess, StalledError, VirtualLoop

OWN = "devices/dev_1/"
RESET = OWN + "commands/factory_reset"
WILL = (OWN + "status", b"gone")
ALL_ARRIVED_SECONDS = 1.0
"""Every packet takes 10 ms of virtual time, so nothing is on its way after this; no real time passes."""


class BrokerBench:
    """A broker with a device ``dev_1`` and a gateway; every password but "right" is wrong."""

    def __init__(self) -> None:
        self.broker = Broker(random.Random(1), lambda *_, **__: None)  # noqa: S311 - reproducible on purpose
        self.broker.admit = self._admit

    async def _admit(self, client_id: str, username: str, password: str) -> ClientIdentity | None:
        role = Role.GATEWAY if username == "gateway" else Role.DEVICE
        return ClientIdentity(role, client_id, None) if password == "right" else None

    async def connect(self, username: str = "dev_1", password: str = "right") -> Client:  # noqa: S107 - a test needs one
        """A client that is connected."""
        client = Client(self.broker, lambda: 0.01)
        await client.connect(username, username, password, WILL)
        return client


def run_virtually(scenario: Coroutine[Any, Any, None]) -> None:
    """Play it under a virtual clock."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(scenario)
    finally:
        loop.close()


async def inbox(client: Client) -> list[tuple[bytes, bool]]:
    """Return payload and retain flag of all messages that arrived."""
    await asyncio.sleep(ALL_ARRIVED_SECONDS)
    return [(packet.payload, packet.retain) for packet in client.inbox]


def test_retained_messages_are_delivered_with_their_flag_at_each_subscription() -> None:
    """What is published to a subscription that is there comes without it [MQTT-3.3.1-8, 3.3.1-9]."""

    async def scenario() -> None:
        bench = BrokerBench()
        gateway, device = await bench.connect("gateway"), await bench.connect()
        await gateway.send(RESET, b"one", qos=1, retain=True)
        await device.subscribe([RESET])
        assert await inbox(device) == [(b"one", True)]
        await gateway.send(RESET, b"two", qos=1, retain=True)
        assert await inbox(device) == [(b"one", True), (b"two", False)]
        await gateway.send(RESET, b"", qos=1, retain=True)
        assert bench.broker.retained == {}

    run_virtually(scenario())


def test_unacknowledged_messages_are_redelivered_before_queued_ones() -> None:
    """A persistent session keeps both, in order [MQTT-4.4.0-1]; one that was forgotten keeps neither."""

    async def scenario() -> None:
        bench = BrokerBench()
        gateway, device = await bench.connect("gateway"), await bench.connect()
        await device.subscribe([RESET])
        for payload in (b"one", b"two"):
            await gateway.send(RESET, payload, qos=1, retain=False)
        assert await inbox(device) == [(b"one", False), (b"two", False)]
        device.acknowledge(device.inbox.popleft())
        await asyncio.sleep(ALL_ARRIVED_SECONDS)
        device.connection.cut("pulled")
        await gateway.send(RESET, b"three", qos=1, retain=False)
        reconnected = await bench.connect()
        assert await inbox(reconnected) == [(b"two", False), (b"three", False)]
        bench.broker.cut("dev_1", forget=True)
        assert await inbox(await bench.connect()) == []

    run_virtually(scenario())


def test_the_will_is_published_without_a_disconnect() -> None:
    """A cut and a takeover publish it, a DISCONNECT does not [MQTT-3.1.2-8, 3.14.4-3]."""

    async def scenario() -> None:
        bench = BrokerBench()
        (await bench.connect()).disconnect()
        await asyncio.sleep(ALL_ARRIVED_SECONDS)
        assert bench.broker.retained == {}
        first = await bench.connect()
        await bench.connect()
        assert first.closed.result() == "taken over"
        assert bench.broker.retained == {WILL[0]: WILL[1]}

    run_virtually(scenario())


def test_a_session_that_was_taken_over_accepts_nothing_more() -> None:
    """Not even what was on its way when another client took its id: so a former owner of a broker is fenced."""

    async def scenario() -> None:
        bench = BrokerBench()
        former = await bench.connect("gateway")
        former.connection.stall(0.5)
        late = former.send(RESET, b"of the former", qos=1, retain=True)
        successor = await bench.connect("gateway")
        await asyncio.sleep(ALL_ARRIVED_SECONDS)
        after = former.send(RESET, b"later still", qos=1, retain=True)
        await successor.send(RESET, b"of the successor", qos=1, retain=True)
        await asyncio.sleep(ALL_ARRIVED_SECONDS)
        assert bench.broker.retained[RESET] == b"of the successor"
        assert not late.done()
        assert not after.done()
        assert former.closed.result() == "taken over"

    run_virtually(scenario())


def test_a_silent_loss_is_noticed_later() -> None:
    """Until then the broker takes the session for live, and its messages are lost on the way, not in the queue."""

    async def scenario() -> None:
        bench = BrokerBench()
        gateway, device = await bench.connect("gateway"), await bench.connect()
        await device.subscribe([RESET])
        device.connection.cut("out of reach", far_after=5.0)
        await gateway.send(RESET, b"one", qos=1, retain=False)
        assert "dev_1" in bench.broker.live()
        await asyncio.sleep(6.0)  # virtual time: one second more than ``far_after``
        assert "dev_1" not in bench.broker.live()
        assert await inbox(await bench.connect()) == [(b"one", False)]

    run_virtually(scenario())


def test_rights_are_the_gateways_own() -> None:
    """A wrong password is refused, and a device's message on another's topic is dropped."""

    async def scenario() -> None:
        bench = BrokerBench()
        with pytest.raises(NotAuthorisedError):
            await bench.connect(password="wrong")
        gateway, device = await bench.connect("gateway"), await bench.connect()
        await gateway.subscribe(["devices/+/status"])
        assert await device.send("devices/dev_2/status", b"x", qos=1, retain=True) == "not authorised"
        await device.send(OWN + "status", b"y", qos=1, retain=True)
        assert await inbox(gateway) == [(b"y", False)]

    run_virtually(scenario())


def test_a_restarted_broker_has_the_state_it_kept() -> None:
    """No client is admitted meanwhile; retained messages and sessions are there or gone, as is asked for."""

    async def scenario() -> None:
        bench = BrokerBench()
        gateway = await bench.connect("gateway")
        await gateway.send(RESET, b"one", qos=1, retain=True)
        bench.broker.stop()
        assert gateway.closed.done()
        with pytest.raises(ClosedError):
            await bench.connect()
        bench.broker.start(retained="keep", keep_sessions=True)
        assert list(bench.broker.sessions) == ["gateway"]
        assert bench.broker.retained == {RESET: b"one"}
        bench.broker.start(retained="forget", keep_sessions=False)
        assert (bench.broker.retained, bench.broker.sessions) == ({}, {})

    run_virtually(scenario())


def test_a_wait_without_a_timer_is_an_error() -> None:
    """Time is virtual: a wait that nothing can end is said, not slept through."""
    with pytest.raises(StalledError):
        run_virtually(_for_ever())


async def _for_ever() -> None:
    await asyncio.Event().wait()


def test_a_paused_process_does_afterwards_what_became_due() -> None:
    """In its order, and not what it cancels then; another process goes on meanwhile."""

    async def ticks(name: str, seen: list[tuple[str, float]]) -> None:
        for _ in range(3):
            await asyncio.sleep(1.0)
            seen.append((name, asyncio.get_running_loop().time()))

    async def scenario() -> None:
        loop, paused, other = asyncio.get_running_loop(), PausableProcess(), PausableProcess()
        seen: list[tuple[str, float]] = []
        tasks = [
            loop.create_task(ticks("paused", seen), context=paused.context()),
            loop.create_task(ticks("other", seen), context=other.context()),
        ]
        cancelled = paused.context().run(loop.call_later, 2.0, seen.append, ("cancelled", 0.0))
        paused.context().run(loop.call_later, 1.5, cancelled.cancel)
        await asyncio.sleep(0.5)
        paused.freeze()
        await asyncio.sleep(4.0)
        paused.resume()
        await asyncio.wait(tasks)
        assert [at for name, at in seen if name == "other"] == [1.0, 2.0, 3.0]
        assert [at for name, at in seen if name == "paused"] == [4.5, 5.5, 6.5]
        assert ("cancelled", 0.0) not in seen

    run_virtually(scenario())
