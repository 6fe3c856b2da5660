"""Who may connect follows the registry: a revoked token is cut and stays out, on each broker in its own way."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.broker.mosquitto.access import MosquittoAccess
from gateway.broker.mosquitto.file_watch import PasswordFileWatch
from gateway.broker.mosquitto.password_file import PasswordFile, password_entry
from gateway.domain import devices, epoch
from tests.broker.support import REFUSED, answer
from tests.mqtt.brokers import MosquittoUnderTest
from tests.mqtt.devices import Device
from tests.mqtt.support import MqttTestbed, on_every_broker, on_mosquitto, open_testbed
from tests.support import wire
from tests.support.pty import at_terminal
from tests.support.wait import eventually


def lines(testbed: MqttTestbed) -> dict[str, str]:
    """The password file: user name to entry."""
    assert isinstance(testbed.broker, MosquittoUnderTest)
    text = testbed.broker.mosquitto.password_file.read_text()
    return {name: entry for name, _, entry in (line.partition(":") for line in text.splitlines())}


@pytest.mark.guarantee("G13")
@on_every_broker
async def test_a_revoked_token_is_cut_and_stays_out(kind: str, tmp_path: Path) -> None:
    """The live session is closed by the broker, the next CONNECT refused; another device does not notice."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device, other = await testbed.bound(), await testbed.bound("SN-2")
        async with testbed.join(device) as client, testbed.join(other) as witness:
            await testbed.unbind(device)
            began = asyncio.get_running_loop().time()
            await client.closed()
            print(f"{kind}: cut {asyncio.get_running_loop().time() - began:.3f} s after the commit")  # noqa: T201
            await witness.ping()
            assert await answer(testbed, device) in REFUSED
        await testbed.settled()
        assert (await testbed.ready())["access"]["error"] is None


@on_every_broker
async def test_a_bind_replaces_the_old_token_at_the_broker(kind: str, tmp_path: Path) -> None:
    """After another bind the old token opens nothing, the new one does, and the gateway stays connected."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        async with testbed.join(device) as client:
            await testbed.unbind(device)
            new = await testbed.bound_again(device)
            await client.closed()
        async with testbed.join(new):
            assert await answer(testbed, device) in REFUSED
        assert testbed.proxy.connects == 1


@pytest.mark.guarantee("G12")
@on_every_broker
async def test_a_reset_only_token_is_accepted(kind: str, tmp_path: Path) -> None:
    """`reset_only` admits the device over MQTT until it has sent `executed` or is bound again."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        async with testbed.join(device) as client:
            command = await testbed.reset(device)
            await testbed.settled()
            await client.ping()
            assert await answer(testbed, device) == wire.ACCEPTED
            await testbed.cancel(device, command)
            await client.closed()
        await testbed.settled()
        assert await answer(testbed, device) in REFUSED


async def test_the_queue_of_the_old_token_never_reaches_the_new_one(tmp_path: Path) -> None:
    """Embedded: a device that is bound again loses its persistent session, with subscriptions and queue."""
    async with open_testbed("embedded", tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        topic = device.topic("commands/reboot")
        async with testbed.join(device, clean=False) as client:
            await client.subscribe(topic)
            await client.disconnect()
        async with testbed.admin() as admin:
            await admin.publish(topic, b"meant for the owner before")
        await testbed.unbind(device)
        new = await testbed.bound_again(device)
        await testbed.settled()
        async with testbed.join(new, clean=False) as client, testbed.admin() as admin:
            assert not client.session_present
            await client.subscribe(topic)
            await admin.publish(topic, b"for the new owner")
            assert (await client.read_publish()).payload == b"for the new owner"


@on_mosquitto
async def test_the_password_file_is_written_at_the_start(kind: str, tmp_path: Path) -> None:
    """Tokens made while the gateway did not keep the file are in it once it runs; entries of devices gone are not."""
    async with open_testbed(kind, tmp_path) as testbed:
        device = await testbed.bound()
        file = testbed.broker.mosquitto.password_file if isinstance(testbed.broker, MosquittoUnderTest) else tmp_path
        with file.open("a") as passwords:
            passwords.write(f"dev_GONE:{lines(testbed)['gateway']}\n")
        await testbed.start()
        entries = await testbed.rows("SELECT broker_entry FROM tokens")
        assert lines(testbed)[device.id] == entries[0]["broker_entry"]
        assert "dev_GONE" not in lines(testbed)
        async with testbed.join(device):
            await testbed.unbind(device)
            await testbed.settled()
        assert device.id not in lines(testbed)


@on_mosquitto
async def test_accounts_of_the_operator_stay(kind: str, tmp_path: Path) -> None:
    """Made with mosquitto_passwd before the start or while it runs, they are kept; taken out, they stay out."""
    tool = shutil.which("mosquitto_passwd", path="/usr/bin:/usr/local/bin")
    assert tool, "these tests need mosquitto_passwd: apt-get install mosquitto"
    async with open_testbed(kind, tmp_path) as testbed:
        assert isinstance(testbed.broker, MosquittoUnderTest)
        file = testbed.broker.mosquitto.password_file

        def passwd(*arguments: str) -> None:
            subprocess.run([tool, *arguments], check=True, capture_output=True)

        passwd("-b", str(file), "early", "early-password")
        gateway = lines(testbed)["gateway"]
        await testbed.start()
        passwd("-b", str(file), "ops-team", "late-password")
        await testbed.bound()
        await testbed.settled()
        assert {"early", "ops-team", "integrator", "admin"} <= set(lines(testbed))
        assert lines(testbed)["gateway"] == gateway, "a changed entry would cut the gateway off"
        mosquitto = testbed.broker.mosquitto
        assert await mosquitto.connect_answer("ops-team", "ops-team", "late-password") == wire.ACCEPTED
        passwd("-D", str(file), "early")
        await testbed.bound("SN-2")
        await testbed.settled()
        assert "early" not in lines(testbed)
        assert testbed.proxy.connects == 1


async def _ready_with(testbed: MqttTestbed, depth: int) -> dict[str, Any] | None:
    """What /ready says, once so much waits in the outbox."""
    ready = await testbed.ready()
    return ready if ready["outbox"]["depth"] == depth else None


async def _is_ready(testbed: MqttTestbed) -> bool:
    return bool((await testbed.ready())["ready"])


@on_mosquitto
async def test_a_missing_pid_file_is_reported_and_recovers(kind: str, tmp_path: Path) -> None:
    """The gateway cannot tell the broker: not ready, with the remedy; once the file is there the token is cut."""
    async with open_testbed(kind, tmp_path) as testbed:
        assert isinstance(testbed.broker, MosquittoUnderTest)
        await testbed.start()
        device = await testbed.bound()
        async with testbed.join(device) as client:
            await testbed.settled()
            pid_file = testbed.broker.mosquitto.pid_file
            pid_file.rename(pid_file.with_suffix(".away"))
            with capture_logs() as logs:
                await testbed.unbind(device)
                error = await eventually(lambda: testbed.access_syncer.last_error or "", "the error is shown")
            assert str(pid_file) in error
            ready = await eventually(partial(_ready_with, testbed, 1), "the device's status is published")
            assert ready
            assert (ready["ready"], ready["access"]) == (False, {"managed_by": "mosquitto", "error": error})
            assert {each["log_level"] for each in logs if each["event"] == "broker.access_not_synced"} == {"error"}
            await client.ping()
            pid_file.with_suffix(".away").rename(pid_file)
            await client.closed()
        await testbed.settled()
        assert await eventually(partial(_is_ready, testbed), "the gateway is ready again")


@on_mosquitto
async def test_a_bad_line_is_left_out_and_does_not_stop_the_sync(kind: str, tmp_path: Path) -> None:
    """A line that a person spoilt: said in the log and by /ready, without what stands in it; tokens end as ever."""
    async with open_testbed(kind, tmp_path) as testbed:
        assert isinstance(testbed.broker, MosquittoUnderTest)
        await testbed.start()
        device = await testbed.bound()
        file = testbed.broker.mosquitto.password_file
        async with testbed.join(device) as client:
            await testbed.settled()
            entry = lines(testbed)["gateway"]
            file.write_text(f"{file.read_text()}a/+/b:{entry}\nops:in-the-clear\nno colon, a secret\nlate:{entry}\n")
            with capture_logs() as logs:
                await testbed.unbind(device)
                await client.closed()
                await testbed.settled()
        [told, *_] = [each for each in logs if each["event"] == "broker.password_line_left_out"]
        assert "('ops')" in told["message"]
        assert "secret" not in str(logs)
        assert "in-the-clear" not in str(logs)
        ready = await testbed.ready()
        assert ready["ready"]
        assert ready["access"]["error"] == told["message"]
        assert {"late", "integrator"} <= set(lines(testbed))
        assert not {"a/+/b", "ops", device.id} & set(lines(testbed))


@on_mosquitto
async def test_an_account_added_during_a_write_is_not_lost(kind: str, tmp_path: Path) -> None:
    """mosquitto_passwd opens the file, asks for the password, and writes to a file that has been replaced meanwhile."""
    tool = shutil.which("mosquitto_passwd", path="/usr/bin:/usr/local/bin")
    assert tool, "these tests need mosquitto_passwd: apt-get install mosquitto"
    async with open_testbed(kind, tmp_path) as testbed:
        assert isinstance(testbed.broker, MosquittoUnderTest)
        await testbed.start()
        await testbed.settled()
        mosquitto = testbed.broker.mosquitto
        command = (tool, str(mosquitto.password_file), "ops")
        async with at_terminal(*command, environment=os.environ) as person:
            await person.shows("Password:")
            await testbed.bound()  # the gateway replaces the file, twice
            await testbed.bound("SN-2")
            await testbed.settled()
            person.type("ops-password\n")
            await person.shows("Reenter password:")
            person.type("ops-password\n")
            assert await person.ended() == 0
        assert isinstance(testbed.access_syncer.access, MosquittoAccess)
        watch = PasswordFileWatch(
            mosquitto_file(testbed), testbed.wakeups, testbed.access_syncer.access.people, every_seconds=0.05
        )
        watching = asyncio.create_task(watch.run())

        async def let_in() -> bool:
            return await mosquitto.connect_answer("ops", "ops", "ops-password") == wire.ACCEPTED

        await eventually(let_in, "the account is let in")
        watching.cancel()
        assert "ops" in lines(testbed)


def mosquitto_file(testbed: MqttTestbed) -> PasswordFile:
    """The file that the gateway keeps."""
    assert isinstance(testbed.access_syncer.access, MosquittoAccess)
    return testbed.access_syncer.access.file


@on_mosquitto
async def test_an_account_that_a_restore_forgot_is_dropped(kind: str, tmp_path: Path) -> None:
    """Only if the gateway made it, and only after a restore: what people made with mosquitto_passwd stays."""
    async with open_testbed(kind, tmp_path) as testbed:
        assert isinstance(testbed.broker, MosquittoUnderTest)
        file = testbed.broker.mosquitto.password_file
        forgotten = password_entry("forgotten")
        people = "$7$101$GEMCLLm7Y2dRH7zB$" + "A" * 86 + "=="
        file.write_text(f"{file.read_text()}integrator_b:{forgotten}\nintegrator_c:{people}\nops:{forgotten}\n")
        await testbed.start()
        assert {"integrator_b", "integrator_c", "ops"} <= set(lines(testbed))
        await testbed.stop()
        await testbed.store.write(lambda tx: epoch.begin(tx, epoch.RESTORED))
        with capture_logs() as logs:
            await testbed.start()
        assert "integrator_b" not in lines(testbed)
        assert {"integrator_c", "ops"} <= set(lines(testbed))
        [told] = [each for each in logs if each["event"] == "broker.unknown_accounts_dropped"]
        assert "integrator_b" in told["accounts"]


def _receipt(device: Device, command_id: str, status: str) -> str:
    """As firmware makes it (contract, section 3)."""
    message = f"{command_id}|{status}|{device.generation}".encode()
    made = hmac.new(hashlib.sha256(device.token.encode()).digest(), message, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(made).rstrip(b"=").decode()


async def _told(testbed: MqttTestbed, device: Device, *, lets_in: bool) -> None:
    """The broker goes by what was committed: once nothing is due, in its password file and at its door."""
    await testbed.settled()
    assert (device.id in lines(testbed)) == lets_in
    assert (await answer(testbed, device) == wire.ACCEPTED) == lets_in


@on_mosquitto
async def test_every_verb_reaches_the_broker(kind: str, tmp_path: Path) -> None:
    """Bind, reset, executed, superseded, delete, restore: each has its effect on who may connect, and says when."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        await _told(testbed, device, lets_in=True)
        command = await testbed.reset(device)
        await _told(testbed, device, lets_in=True)
        async with testbed.join(device) as client:
            receipt = _receipt(device, command.id, "executed")
            body = {"command_id": command.id, "status": "executed", "receipt": receipt}
            await client.publish(device.topic("commands/factory_reset/ack"), json.dumps(body).encode())
            await client.closed()
        await _told(testbed, device, lets_in=False)
        device = await testbed.bound_again(device)
        await testbed.reset(device)
        await testbed.store.write(lambda tx: devices.supersede_reset(tx, testbed.project_id, device.id, "key_test"))
        await _told(testbed, device, lets_in=False)
        device = await testbed.bound_again(device)
        await _told(testbed, device, lets_in=True)
        await testbed.store.write(lambda tx: devices.delete(tx, testbed.project_id, device.id, "key_test"))
        await _told(testbed, device, lets_in=False)
        await testbed.store.write(lambda tx: devices.restore(tx, testbed.project_id, device.id, "key_test"))
        await _told(testbed, device, lets_in=False)
        await _told(testbed, await testbed.bound_again(device), lets_in=True)
