"""What a real Mosquitto does to its clients when it reads the password file again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.broker.mosquitto.password_file import PasswordFile, password_entry
from tests.support.mosquitto import Mosquitto
from tests.support.wait import eventually
from tests.support.wire import ACCEPTED, NOT_AUTHORISED, Will, Wire

A = "dev_A"
B = "dev_B"
COMMAND = f"devices/{A}/commands/reboot"
USERS = {A: "token-1", B: "token-of-B"}
MANY = 20_000


async def test_revoked_device_is_cut_and_refused(tmp_path: Path) -> None:
    """A device whose line is gone loses its live session and is not let in again; another one notices nothing."""
    async with Mosquitto(tmp_path, users=USERS) as broker, broker.client(A) as revoked, broker.client(B) as other:
        await broker.remove_users(A)
        assert await revoked.closed() == []
        assert await broker.connect_answer(A, A, "token-1") == NOT_AUTHORISED
        await other.ping()


async def test_new_token_replaces_the_old_one(tmp_path: Path) -> None:
    """A device whose line changed is cut too: the new token is good, the old one is not."""
    async with Mosquitto(tmp_path, users=USERS) as broker, broker.client(A) as device:
        await broker.add_users({A: "token-2"})
        assert await device.closed() == []
        assert await broker.connect_answer(A, A, "token-1") == NOT_AUTHORISED
        assert await broker.connect_answer(A, A, "token-2") == ACCEPTED


async def test_offline_device_keeps_its_queue(tmp_path: Path) -> None:
    """Other users' changes cost a device that is away nothing of what waits for it, nor does a restart in between."""
    async with Mosquitto(tmp_path, users=USERS) as broker:
        await _subscribe_and_leave(broker)
        await _publish(broker, b"first")
        await broker.remove_users(B)
        await broker.restart()
        await broker.add_users({B: "again"})
        async with broker.client(A, clean=False) as device:
            assert device.session_present
            assert (await device.read_publish()).payload == b"first"


async def test_cut_sends_no_will(tmp_path: Path) -> None:
    """Mosquitto drops the last will of a client that SIGHUP cuts, so a retained `online` would stay.

    The program that revokes a token has to publish `offline` for the device. (A broken connection publishes its will.)
    """
    status = [f"devices/{device}/status" for device in (A, B)]
    async with Mosquitto(tmp_path, users=USERS) as broker, broker.client("gateway") as gateway:
        await gateway.subscribe("devices/+/status")
        async with broker.client(A, will=Will(status[0], b"offline", retain=True)) as device:
            await device.publish(status[0], b"online", retain=True)
            await broker.remove_users(A)
            await device.closed()
        async with broker.client(B, will=Will(status[1], b"offline")):
            pass
        assert [one.payload for one in await gateway.read_until(status[1])] == [b"online"]
        async with broker.client("integrator"), broker.client("gateway") as late:
            await late.subscribe(status[0])
            assert (await late.read_publish()).payload == b"online"


async def test_cut_session_and_its_queue_wait_for_the_next_holder(tmp_path: Path) -> None:
    """Messages queued before and after the cut reach the next client that connects under that id with the next token.

    So a message for an earlier owner can reach a device that was bound again: its generation must reveal that.
    """
    async with Mosquitto(tmp_path, users=USERS) as broker:
        async with broker.client(A, clean=False) as device:
            await device.subscribe(COMMAND)
            await _publish(broker, b"not acknowledged")
            await device.read_publish()
            await broker.remove_users(A)
            await device.closed()
        await _publish(broker, b"after the cut")
        await broker.add_users({A: "token-2"})
        async with broker.client(A, clean=False) as device:
            assert device.session_present
            again, late = await device.read_publish(), await device.read_publish()
    assert (again.payload, again.duplicate) == (b"not acknowledged", True)
    assert (late.payload, late.duplicate) == (b"after the cut", False)


async def test_clean_connect_forgets_the_queue(tmp_path: Path) -> None:
    """A device that starts with a clean session gets nothing of what waited for an earlier one."""
    async with Mosquitto(tmp_path, users=USERS) as broker:
        await _subscribe_and_leave(broker)
        await _publish(broker, b"old")
        await broker.add_users({A: "token-2"})
        async with broker.client(A) as device:
            assert not device.session_present
            await device.ping()
            assert not device.inbox


async def test_sessions_that_are_cut_repeatedly_reconnect(tmp_path: Path) -> None:
    """Each SIGHUP cuts the dead sessions of revoked devices again; they are whole when their devices are back.

    (That the broker survives this in the long run depends on a setting, see test_session_expiry_is_never_set: the crash
    without it depends on what the freed memory is used for next, so no test can count on it.)
    """
    async with Mosquitto(tmp_path, users=USERS) as broker:
        for token in ("token-2", "token-3", "token-4"):
            await _subscribe_and_leave(broker)
            await broker.remove_users(A)
            await broker.apply_users()
            await _publish(broker, token.encode())
            await broker.add_users({A: token})
            async with broker.client(A, clean=False) as device:
                message = await device.read_publish()
                assert message.payload == token.encode()
                await device.acknowledge(message)
                await device.disconnect()


async def test_change_during_a_reload_is_not_lost(tmp_path: Path) -> None:
    """A SIGHUP that comes while the broker reads a large file would be lost: `reload` keeps its distance."""
    users = {f"dev_{number}": password_entry("token", b"twelve bytes") for number in range(MANY)}
    async with Mosquitto(tmp_path) as broker:
        passwords = PasswordFile(broker.password_file, pid_file=broker.pid_file, fixed=users)
        later = PasswordFile(broker.directory / "later", pid_file=None, fixed=users)
        await asyncio.to_thread(later.write, [])
        await asyncio.to_thread(passwords.write, [(A, users["dev_1"])])
        await broker.restart()
        async with Wire.open(broker.host, broker.port) as device, _awake(broker):
            assert await device.connect(A, A, "token") == ACCEPTED
            passwords.reload()
            await eventually(lambda: "Reloading config." in broker.log_text(), "the broker reads its password file")
            later.path.replace(passwords.path)
            await asyncio.to_thread(passwords.reload)
            assert await device.closed() == []


@asynccontextmanager
async def _awake(broker: Mosquitto) -> AsyncIterator[None]:
    """Keep the broker busy, so that it takes a signal at once and not with its next look at the clock."""

    async def knock() -> None:
        while True:
            await broker.connect_answer("nobody")

    task = asyncio.create_task(knock(), name="knock")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _subscribe_and_leave(broker: Mosquitto) -> None:
    async with broker.client(A, clean=False) as device:
        await device.subscribe(COMMAND)
        await device.disconnect()


async def _publish(broker: Mosquitto, payload: bytes) -> None:
    async with broker.client("gateway") as gateway:
        await gateway.publish(COMMAND, payload)
