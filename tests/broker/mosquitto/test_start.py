"""What a start reads, writes and signals: it goes by the record of the password file, not by the size of the fleet."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.broker.mosquitto.access import MosquittoAccess
from gateway.broker.mosquitto.password_check import PasswordFileCheck
from gateway.broker.mosquitto.password_entries import kept_entries, own_entry
from gateway.broker.mosquitto.password_file import PasswordFile
from gateway.broker.mosquitto.saved_sessions import NEVER, UnknownStoreError, expiring
from gateway.broker.mosquitto.session_locks import NAME as LOCKS
from gateway.broker.mosquitto.session_locks import SessionLocks, derived_password
from gateway.broker.mosquitto.session_sweep import RestartedBroker, SessionSweep
from gateway.core.addresses import Address
from gateway.domain import devices, epoch
from gateway.mqtt.probe import ProbeTarget
from gateway.store import broker_entry_sql, broker_sql, unused_token_sql
from tests.broker.support import REFUSED, answer
from tests.mqtt.brokers import MosquittoUnderTest
from tests.mqtt.devices import Device
from tests.mqtt.support import MqttTestbed, on_mosquitto, open_testbed
from tests.support import wire
from tests.support.mosquitto import GATEWAY_PASSWORD
from tests.support.wait import eventually


def file_of(testbed: MqttTestbed) -> Path:
    """The broker's password file."""
    assert isinstance(testbed.broker, MosquittoUnderTest)
    return testbed.broker.mosquitto.password_file


def reloads(testbed: MqttTestbed) -> int:
    """How often the broker has read its files again."""
    assert isinstance(testbed.broker, MosquittoUnderTest)
    return testbed.broker.mosquitto.log_text().count("Reloading config")


def access_of(testbed: MqttTestbed) -> MosquittoAccess:
    """What keeps the file."""
    assert isinstance(testbed.access_syncer.access, MosquittoAccess)
    return testbed.access_syncer.access


@contextmanager
def whole_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Record each read of what grows with the fleet: pages of entries, and all unused tokens."""
    page, replacing, read = broker_entry_sql.page, unused_token_sql.replacing, []

    def counted_page(*args: object, **named: object) -> broker_entry_sql.EntryPage:
        read.append("entries")
        return page(*args, **named)  # type: ignore[arg-type]

    def counted_tokens(view: object, broker: int = 1, of: object = None) -> dict[str, int]:
        read.extend(["tokens"] if of is None else [])
        return replacing(view, broker, of)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(broker_entry_sql, "page", counted_page)
        patched.setattr(unused_token_sql, "replacing", counted_tokens)
        yield read


async def restarted(testbed: MqttTestbed) -> None:
    """Stop the gateway and start it again, with all that it knew forgotten."""
    await testbed.stop()
    await testbed.start()
    await eventually(lambda: testbed.access_syncer.last_error is None, "access is in step")


async def in_step(testbed: MqttTestbed) -> Device:
    """Start a gateway with one device that the broker admits."""
    await testbed.start()
    device = await testbed.bound()
    await testbed.settled()
    await eventually(lambda: testbed.access_syncer.last_error is None, "access is in step")
    return device


@on_mosquitto
async def test_a_start_reads_and_writes_nothing_of_the_fleet(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file stays the same one, the broker is not signalled, and no page of devices is read."""
    async with open_testbed(kind, tmp_path) as testbed:
        device = await in_step(testbed)
        before, signals = file_of(testbed).stat(), reloads(testbed)
        with whole_reads(monkeypatch) as read:
            await restarted(testbed)
        assert read == []
        assert file_of(testbed).stat() == before
        assert reloads(testbed) == signals
        async with testbed.join(device) as client:
            await testbed.unbind(device)
            await client.closed()


@on_mosquitto
async def test_a_change_reads_its_own_devices(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bind and unbind read and change the lines of their devices, and no page of others."""
    async with open_testbed(kind, tmp_path) as testbed:
        device = await in_step(testbed)
        with whole_reads(monkeypatch) as read:
            other = await testbed.bound("SN-2")
            await testbed.unbind(device)
            await testbed.settled()
        assert read == []
        assert await answer(testbed, device) in REFUSED
        assert await answer(testbed, other) == wire.ACCEPTED


@on_mosquitto
async def test_what_was_revoked_without_a_gateway_is_shut_by_the_first_write(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A managed Mosquitto is started after that write, so it never admits such a token."""
    async with open_testbed(kind, tmp_path) as testbed:
        device, other = await in_step(testbed), await testbed.bound("SN-2")
        await testbed.settled()
        await testbed.stop()
        await testbed.unbind(device)
        access = testbed.broker.access(testbed.store)
        assert isinstance(access, MosquittoAccess)
        with whole_reads(monkeypatch) as read:
            await access.write()
        assert read == []
        assert device.id not in file_of(testbed).read_text()
        assert other.id in file_of(testbed).read_text()


@pytest.mark.parametrize("how", ["linked", "copied", "edited", "gone", "epoch", "left out", "half done"])
@on_mosquitto
async def test_any_other_file_is_compared_as_a_whole(kind: str, tmp_path: Path, how: str) -> None:
    """An old file that was put back, even as the same inode, an edited one, another epoch: none opens anything."""
    async with open_testbed(kind, tmp_path) as testbed:
        device, other = await in_step(testbed), await testbed.bound("SN-2")
        await testbed.settled()
        file, old = file_of(testbed), tmp_path / "old"
        (os.link if how == "linked" else shutil.copy2)(file, old)
        await testbed.unbind(device)
        await testbed.settled()
        await testbed.stop()
        if how in ("linked", "copied"):
            old.replace(file)
        elif how == "edited":
            file.write_text(old.read_text())
        elif how == "gone":
            file.unlink()
        elif how == "epoch":
            await testbed.store.write(lambda tx: epoch.begin(tx, epoch.RESTORED))
            file.write_text(old.read_text())
        elif how == "left out":  # rows of such a broker are dropped
            await testbed.unbind(other)
            await testbed.store.write(lambda tx: broker_sql.leave_out(tx, 1))
            await testbed.store.write(lambda tx: tx.run("DELETE FROM outbox"))
        else:  # killed between the name and the record
            await testbed.store.write(lambda tx: broker_sql.forget_fact(tx, 1, broker_sql.FILE_RECORD))
            old.replace(file)
        access = testbed.broker.access(testbed.store)
        assert isinstance(access, MosquittoAccess)
        await access.write()
        assert device.id not in file.read_text()
        assert (other.id in file.read_text()) == (how != "left out")


@on_mosquitto
async def test_the_check_finds_what_no_row_names(kind: str, tmp_path: Path) -> None:
    """A token that was revoked or made behind the gateway's back: its device is marked, and the file follows."""
    async with open_testbed(kind, tmp_path) as testbed:
        device = await in_step(testbed)
        check = PasswordFileCheck(access_of(testbed), testbed.store)
        assert await check.check() == 0
        await testbed.store.write(lambda tx: tx.run("UPDATE tokens SET state = 'revoked', revoked_at = 1"))
        with capture_logs() as logs:
            assert await check.check() == 1
        await testbed.settled()
        assert device.id not in file_of(testbed).read_text()
        assert await answer(testbed, device) in REFUSED
        await testbed.store.write(lambda tx: tx.run("UPDATE tokens SET state = 'active', revoked_at = NULL"))
        assert await check.check() == 1
        await testbed.settled()
        assert await answer(testbed, device) == wire.ACCEPTED
        assert await check.check() == 0
        [told] = [each for each in logs if each["event"] == "broker.password_file_differed"]
        assert told["devices"] == [device.id]


@on_mosquitto
async def test_a_first_use_is_known_after_a_restart(kind: str, tmp_path: Path) -> None:
    """A token that replaced another before the restart is found by the check, and its first use is recorded."""
    async with open_testbed(kind, tmp_path) as testbed:
        device = await in_step(testbed)
        token = (await testbed.rows("SELECT id FROM tokens"))[0]["id"]
        await testbed.store.write(lambda tx: devices.refresh(tx, testbed.project_id, device.id, token))
        await testbed.settled()
        await restarted(testbed)
        waiting = access_of(testbed).first_uses
        assert waiting.waiting == {}
        await access_of(testbed).look_for_unused()
        await eventually(lambda: device.id in waiting.waiting, "the new token is waited for")


@on_mosquitto
async def test_only_sessions_that_expire_are_swept(kind: str, tmp_path: Path) -> None:
    """After a start of the broker: the session of a device of the contract stays, and one that expires is ended."""
    async with open_testbed(kind, tmp_path) as testbed:
        device, other = await in_step(testbed), await testbed.bound("SN-2")
        await testbed.settled()
        assert isinstance(testbed.broker, MosquittoUnderTest)
        mosquitto = testbed.broker.mosquitto
        for each, expiry in ((device, NEVER), (other, 3_600)):
            password = ("-i", each.id, "-u", each.id, "-P", each.mqtt_password, "-c", "-W", "1")
            version = ("-V", "mqttv5", "-x", str(expiry), "-q", "1", "-t", each.topic("commands/reboot"))
            command = ("mosquitto_sub", "-p", str(mosquitto.port), *password, *version)
            await (await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)).wait()
        await testbed.stop()
        await mosquitto.restart()
        store = mosquitto.files.persistence_dir / "mosquitto.db"
        assert list(expiring(store)) == [other.id]
        locks, _ = with_locks(testbed, derived_password(GATEWAY_PASSWORD))
        restarted = RestartedBroker("this start", 1, store, (), ())
        sweep = SessionSweep(restarted, access_of(testbed).file, locks, testbed.store)
        assert [name async for names in sweep.pieces() for name in names] == [other.id]
        store.write_bytes(store.read_bytes()[:-1])
        with pytest.raises(UnknownStoreError, match="it ends within a chunk"):
            list(expiring(store))
        assert {name async for names in sweep.pieces() for name in names} >= {device.id, other.id}


@on_mosquitto
async def test_locks_of_a_killed_gateway_are_removed_after_the_start(kind: str, tmp_path: Path) -> None:
    """They keep out a user whose line was about to change. The start does not wait for their removal."""
    async with open_testbed(kind, tmp_path) as testbed:
        device = await in_step(testbed)
        await testbed.stop()
        password = derived_password(GATEWAY_PASSWORD)
        killed, access = with_locks(testbed, password)
        await access.sync(())
        await killed.examine()
        await killed.end([device.id])
        assert await answer(testbed, device) in REFUSED
        signals = reloads(testbed)
        locks, access = with_locks(testbed, password)
        await access.begin()
        assert await access.compare()
        assert (locks.needed, reloads(testbed)) == (False, signals)
        await access.prepare()
        assert await answer(testbed, device) == wire.ACCEPTED
        assert (locks.needed, reloads(testbed)) == (True, signals)


def with_locks(testbed: MqttTestbed, password: str) -> tuple[SessionLocks, MosquittoAccess]:
    """What ends sessions beside Mosquitto 2.0, and what keeps the password file with it."""
    assert isinstance(testbed.broker, MosquittoUnderTest)
    mosquitto = testbed.broker.mosquitto
    kept, target = kept_entries(mosquitto.password_file), ProbeTarget(Address(mosquitto.host, mosquitto.port))
    own = {"gateway": own_entry(GATEWAY_PASSWORD, kept.get("gateway")), LOCKS: own_entry(password, kept.get(LOCKS))}
    file = PasswordFile(mosquitto.password_file, pid_file=mosquitto.pid_file, fixed=own)
    locks = SessionLocks(target, password)
    return locks, MosquittoAccess(file, testbed.store, target, locks=locks, secret=GATEWAY_PASSWORD)
