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
from tests.simulation.virtual_loop import StalledError, VirtualLoop

OWN = "devices/dev_1/"
RESET = OWN + "commands/factory_reset"
WILL = (OWN + "status", b"gone")


class Stage:
    """A broker with a device ``dev_1`` and a gateway; every password but "right" is wrong."""

    def __init__(self) -> None:
        self.broker = Broker(random.Random(1), lambda *_, **__: None)  # noqa: S311 - reproducible on purpose
        self.broker.admit = self._admit

    async def _admit(self, client_id: str, username: str, password: str) -> ClientIdentity | None:
        role = Role.GATEWAY if username == "gateway" else Role.DEVICE
        return ClientIdentity(role, client_id, None) if password == "right" else None

    async def join(self, username: str = "dev_1", password: str = "right") -> Client:  # noqa: S107 - a test needs one
        """A client that is connected."""
        client = Client(self.broker, lambda: 0.01)
        await client.connect(username, username, password, WILL)
        return client


def virtually(scene: Coroutine[Any, Any, None]) -> None:
    """Play it under a virtual clock."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(scene)
    finally:
        loop.close()


async def inbox(client: Client) -> list[tuple[bytes, bool]]:
    """Payload and retain flag of all that has come after a second."""
    await asyncio.sleep(1.0)
    return [(packet.payload, packet.retain) for packet in client.inbox]


def test_retained_messages_come_with_their_flag_at_each_subscription() -> None:
    """What is published to a subscription that is there comes without it [MQTT-3.3.1-8, 3.3.1-9]."""

    async def scene() -> None:
        stage = Stage()
        gateway, device = await stage.join("gateway"), await stage.join()
        await gateway.send(RESET, b"one", qos=1, retain=True)
        await device.subscribe([RESET])
        assert await inbox(device) == [(b"one", True)]
        await gateway.send(RESET, b"two", qos=1, retain=True)
        assert await inbox(device) == [(b"one", True), (b"two", False)]
        await gateway.send(RESET, b"", qos=1, retain=True)
        assert stage.broker.retained == {}

    virtually(scene())


def test_what_was_not_acknowledged_comes_again_and_what_waited_comes_then() -> None:
    """A persistent session keeps both, in order [MQTT-4.4.0-1]; one that was forgotten keeps neither."""

    async def scene() -> None:
        stage = Stage()
        gateway, device = await stage.join("gateway"), await stage.join()
        await device.subscribe([RESET])
        for payload in (b"one", b"two"):
            await gateway.send(RESET, payload, qos=1, retain=False)
        assert await inbox(device) == [(b"one", False), (b"two", False)]
        device.acknowledge(device.inbox.popleft())
        await asyncio.sleep(1.0)
        device.line.cut("pulled")
        await gateway.send(RESET, b"three", qos=1, retain=False)
        again = await stage.join()
        assert await inbox(again) == [(b"two", False), (b"three", False)]
        stage.broker.cut("dev_1", forget=True)
        assert await inbox(await stage.join()) == []

    virtually(scene())


def test_the_will_is_for_those_who_do_not_say_good_bye() -> None:
    """A cut and a takeover publish it, a DISCONNECT does not [MQTT-3.1.2-8, 3.14.4-3]."""

    async def scene() -> None:
        stage = Stage()
        (await stage.join()).disconnect()
        await asyncio.sleep(1.0)
        assert stage.broker.retained == {}
        first = await stage.join()
        await stage.join()
        assert first.gone.result() == "taken over"
        assert stage.broker.retained == {WILL[0]: WILL[1]}

    virtually(scene())


def test_a_silent_loss_is_noticed_later() -> None:
    """Till then the broker keeps the session for live, and its messages are lost on the way, not in the queue."""

    async def scene() -> None:
        stage = Stage()
        gateway, device = await stage.join("gateway"), await stage.join()
        await device.subscribe([RESET])
        device.line.cut("out of reach", far_after=5.0)
        await gateway.send(RESET, b"one", qos=1, retain=False)
        assert "dev_1" in stage.broker.live()
        await asyncio.sleep(6.0)
        assert "dev_1" not in stage.broker.live()
        assert await inbox(await stage.join()) == [(b"one", False)]

    virtually(scene())


def test_rights_are_the_gateways_own() -> None:
    """A wrong password is refused, and a device's message on another's topic is dropped."""

    async def scene() -> None:
        stage = Stage()
        with pytest.raises(NotAuthorisedError):
            await stage.join(password="wrong")
        gateway, device = await stage.join("gateway"), await stage.join()
        await gateway.subscribe(["devices/+/status"])
        assert await device.send("devices/dev_2/status", b"x", qos=1, retain=True) == "not authorised"
        await device.send(OWN + "status", b"y", qos=1, retain=True)
        assert await inbox(gateway) == [(b"y", False)]

    virtually(scene())


def test_a_broker_that_is_killed_comes_back_with_what_it_kept() -> None:
    """No client is admitted meanwhile; retained messages and sessions are there or gone, as is asked for."""

    async def scene() -> None:
        stage = Stage()
        gateway = await stage.join("gateway")
        await gateway.send(RESET, b"one", qos=1, retain=True)
        stage.broker.stop()
        assert gateway.gone.done()
        with pytest.raises(ClosedError):
            await stage.join()
        stage.broker.start(retained="keep", keep_sessions=True)
        assert list(stage.broker.sessions) == ["gateway"]
        assert stage.broker.retained == {RESET: b"one"}
        stage.broker.start(retained="forget", keep_sessions=False)
        assert (stage.broker.retained, stage.broker.sessions) == ({}, {})

    virtually(scene())


def test_without_a_timer_nobody_waits_for_ever() -> None:
    """Time is virtual: a wait that nothing can end is said, not slept through."""
    with pytest.raises(StalledError):
        virtually(_for_ever())


async def _for_ever() -> None:
    await asyncio.Event().wait()
