"""Sessions that end before a SIGHUP would cut them, at a real Mosquitto with its dynamic security plugin."""

import asyncio
import json
from pathlib import Path

import pytest

from broker_config import local
from gateway.broker.mosquitto.session_locks import EXPOSED, NAME, SessionLocks, derived_password
from gateway.core.addresses import Address
from gateway.mqtt.probe import ProbeTarget, connected
from gateway.mqtt.takeover import end_session
from tests.support import wire
from tests.support.mosquitto import GATEWAY_PASSWORD, INTEGRATOR_PASSWORD, Mosquitto

LOCKING = derived_password(GATEWAY_PASSWORD)
USERS = {"dev_A": "secret-a", "dev_B": "secret-b", NAME: LOCKING}
CONTROL = "$CONTROL/dynamic-security/v1"
REFUSED = {wire.NOT_AUTHORISED, wire.BAD_CREDENTIALS}

NEEDED = (local.version(local.binary()) or (0, 0)) < local.NEEDS_NO_LOCKS
pytestmark = pytest.mark.skipif(not NEEDED, reason="this Mosquitto needs no locks")


def _locks(broker: Mosquitto) -> SessionLocks:
    return SessionLocks(ProbeTarget(Address(broker.host, broker.port)), LOCKING)


async def test_a_locked_user_is_out_and_others_are_not(tmp_path: Path) -> None:
    """The live session is cut without its last will; the password opens nothing until the lock goes, then it does."""
    async with Mosquitto(tmp_path, users=USERS) as broker:
        locks = _locks(broker)
        await locks.examine()
        will = wire.Will("devices/dev_A/status", b"gone")
        async with (
            broker.client("dev_B") as other,
            broker.client("gateway") as watching,
            broker.client("dev_A", will=will) as cut,
        ):
            await watching.subscribe("devices/+/status")
            await locks.end({"dev_A"})
            await cut.closed()
            assert await broker.connect_answer("dev_A", "dev_A", "secret-a") in REFUSED
            await locks.release()
            assert await broker.connect_answer("dev_A", "dev_A", "secret-a") == wire.ACCEPTED
            await other.publish("devices/dev_B/status", b"here")
            assert await watching.read_until("devices/dev_B/status") == [], "no last will came before it"


async def test_an_offline_session_ends(tmp_path: Path) -> None:
    """Its queued messages do not arrive afterwards, and the broker counts no disconnected client."""
    async with Mosquitto(tmp_path, users=USERS) as broker:
        locks = _locks(broker)
        await locks.examine()
        async with broker.client("dev_A", clean=False) as device:
            await device.subscribe("devices/dev_A/errors")
        async with broker.client("gateway") as gateway:
            await gateway.publish("devices/dev_A/errors", b"queued")
            await locks.end({"dev_A"})
            await locks.release()
            async with broker.client("dev_A", clean=False) as device:
                await device.subscribe("devices/dev_A/errors")
                await gateway.publish("devices/dev_A/errors", b"new")
                assert (await device.read_publish()).payload == b"new"


async def test_locks_of_an_earlier_run_are_released(tmp_path: Path) -> None:
    """A gateway that died between lock and release: the next one finds them, also when the broker was restarted."""
    async with Mosquitto(tmp_path, users=USERS) as broker:
        first = _locks(broker)
        await first.examine()
        await first.end({"dev_A", "dev_B"})
        await broker.restart()
        assert await broker.connect_answer("dev_A", "dev_A", "secret-a") in REFUSED
        second = _locks(broker)
        await second.examine()
        await second.release()
        for name in ("dev_A", "dev_B"):
            assert await broker.connect_answer(name, name, USERS[name]) == wire.ACCEPTED


async def test_a_sweep_spares_who_is_locked_out(tmp_path: Path) -> None:
    """A user of an ended session stays out; the others of the piece may reconnect."""
    async with Mosquitto(tmp_path, users=USERS) as broker:
        locks = _locks(broker)
        await locks.examine()
        await locks.end({"dev_A"})
        async with broker.client("dev_B") as swept:
            await locks.sweep({"dev_A", "dev_B"})
            await swept.closed()
        assert await broker.connect_answer("dev_A", "dev_A", "secret-a") in REFUSED
        assert await broker.connect_answer("dev_B", "dev_B", "secret-b") == wire.ACCEPTED
        await locks.release()
        assert await broker.connect_answer("dev_A", "dev_A", "secret-a") == wire.ACCEPTED


async def test_a_sweep_ends_sessions_of_users_that_an_earlier_run_locked(tmp_path: Path) -> None:
    """That run may have ended before it could end the session. The lock stays until it is released."""
    async with Mosquitto(tmp_path, users=USERS) as broker:
        first = _locks(broker)
        await first.examine()
        await first.end({"dev_A"})
        second = _locks(broker)
        await second.examine()
        await second.sweep({"dev_A", "dev_B"})
        assert await broker.connect_answer("dev_A", "dev_A", "secret-a") in REFUSED
        await second.release()
        assert await broker.connect_answer("dev_A", "dev_A", "secret-a") == wire.ACCEPTED


async def test_only_the_gateway_controls_the_plugin(tmp_path: Path) -> None:
    """A device, an integrator and the gateway's own account ask it for an account: none is made."""
    async with Mosquitto(tmp_path, users=USERS) as broker:
        target = ProbeTarget(Address(broker.host, broker.port))
        for name, password in (
            ("dev_A", "secret-a"),
            ("integrator", INTEGRATOR_PASSWORD),
            ("gateway", GATEWAY_PASSWORD),
        ):
            async with connected(target, name, password) as probe:
                command = {"command": "createClient", "username": f"made_by_{name}", "password": "open"}
                await probe.publish(CONTROL, json.dumps({"commands": [command]}).encode())
            assert await broker.connect_answer(f"made_by_{name}", f"made_by_{name}", "open") in REFUSED
        async with connected(target, "dev_A", "secret-a") as probe:
            await probe.subscribe(f"{CONTROL}/response", "$SYS/#", "devices/dev_A/errors")
            locks = _locks(broker)
            await locks.examine()
            async with connected(target, "gateway", GATEWAY_PASSWORD) as gateway:
                await gateway.publish("devices/dev_A/errors", b"last")
            assert await probe.until("devices/dev_A/errors", b"last")
            assert {each.topic for each in probe.heard} == {"devices/dev_A/errors"}


async def test_a_broker_without_the_plugin_is_reported(tmp_path: Path) -> None:
    """Its version, and what to do; the gateway goes on without locks."""
    async with Mosquitto(tmp_path, users=USERS, plugin=None) as broker:
        locks = _locks(broker)
        await locks.examine()
        assert EXPOSED in (locks.caution or "")
        assert "gateway broker init" in (locks.caution or "")
        async with broker.client("dev_A") as device:
            await locks.end({"dev_A"})
            await device.ping()


async def test_many_sessions_end_at_once(tmp_path: Path) -> None:
    """More than one message of commands holds, and more than connections at a time."""
    names = {f"dev_{number}": f"secret-{number}" for number in range(150)}
    async with Mosquitto(tmp_path, users=USERS | names) as broker:
        locks = _locks(broker)
        await locks.examine()
        await locks.end(names)
        answers = [await broker.connect_answer(name, name, password) for name, password in names.items()]
        assert set(answers) <= REFUSED
        await locks.release()
        target = ProbeTarget(Address(broker.host, broker.port))
        await asyncio.gather(*(end_session(target, name, password) for name, password in names.items()))
