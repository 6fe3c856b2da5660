"""A registry that is behind the gateway's retained status was restored: a new epoch begins, once, and is reported."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.mqtt.retained_scan import RetainedScan
from gateway.mqtt.session import Session
from gateway.store import DATABASE_NAME, epoch_sql, signing_key_sql
from tests.mqtt.support import MqttTestbed, on_every_broker, on_mosquitto, open_testbed


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    """What is logged."""
    with capture_logs() as logged:
        yield logged


def put_back(logs: list[Any]) -> list[str]:
    """Why new epochs began."""
    return [each["reason"] for each in logs if each["event"] == "registry.put_back"]


class Snapshot:
    """The registry as it was, put back under a gateway that is stopped: nothing on this machine tells."""

    def __init__(self, testbed: MqttTestbed) -> None:
        self._file = testbed.broker.directory / "data" / DATABASE_NAME
        self._copy = sqlite3.connect(":memory:")
        with closing(sqlite3.connect(self._file)) as now:
            now.backup(self._copy)

    def put_back(self) -> None:
        """Write it over what is there, for everybody who has it open."""
        with closing(sqlite3.connect(self._file)) as now:
            self._copy.backup(now)
        self._copy.close()


async def key(testbed: MqttTestbed) -> str:
    """The signing key in use."""
    return (await testbed.store.read(signing_key_sql.signing_key_ids))[0]


@on_every_broker
async def test_a_restart_starts_no_epoch(kind: str, tmp_path: Path, logs: list[Any]) -> None:
    """Its own status of before is what the broker has, and it goes on."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        await testbed.bound()
        before = await key(testbed)
        for _ in range(2):
            await testbed.stop()
            await testbed.start()
        assert await key(testbed) == before
        assert put_back(logs) == []


@pytest.mark.sqlite  # a snapshot of the file; tests/store/test_postgres_faults.py puts a database back
@on_mosquitto
async def test_a_snapshot_is_detected_by_the_last_status(kind: str, tmp_path: Path, logs: list[Any]) -> None:
    """The retained status counts more events than the registry holds: a device that is bound now gets another key."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        snapshot, before = Snapshot(testbed), await key(testbed)
        await testbed.bound()
        await testbed.stop()
        snapshot.put_back()
        await testbed.start()
        [reason] = put_back(logs)
        assert "the broker was told of event 2" in reason
        assert await key(testbed) != before
        after = await testbed.bound()
        assert after.generation > 1 << 20
        told = json.loads((await testbed.retained("gateways/+/status"))[testbed.status_topic])
        await testbed.stop()
        await testbed.start()
        assert len(put_back(logs)) == 1
        assert told["registry_id"] == (await testbed.store.read(epoch_sql.registry_id))


@pytest.mark.sqlite  # a snapshot of the file; tests/store/test_postgres_faults.py puts a database back
@on_mosquitto
async def test_a_snapshot_is_detected_by_an_unknown_retained_command(
    kind: str, tmp_path: Path, logs: list[Any]
) -> None:
    """Killed, so that the last status is old: the retained reset is this gateway's own, and the registry lost it."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        snapshot, before = Snapshot(testbed), await key(testbed)
        device = await testbed.bound()
        command = await testbed.reset(device)
        await testbed.settled()
        held = await testbed.retained("gateways/+/status")
        await testbed.stop()
        async with testbed.admin() as admin:  # as a kill leaves it: the last will was written at the connect
            await admin.publish(testbed.status_topic, held[testbed.status_topic], retain=True)
        snapshot.put_back()
        await testbed.start()
        [reason] = put_back(logs)
        assert f"the broker holds {command.id}" in reason
        assert await key(testbed) != before
        assert await testbed.retained() == {}


@pytest.mark.sqlite  # as above
@on_mosquitto
async def test_an_unknown_command_that_is_not_returned_again_stays_until_it_is(
    kind: str, tmp_path: Path, logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker stalls when its differing commands are read again: they are judged before one of them is replaced."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        snapshot = Snapshot(testbed)
        command = await testbed.reset(await testbed.bound())
        await testbed.settled()
        held = await testbed.retained("gateways/+/status")
        await testbed.stop()
        async with testbed.admin() as admin:
            await admin.publish(testbed.status_topic, held[testbed.status_topic], retain=True)
        snapshot.put_back()
        ask, stalls = RetainedScan.ask, [True]

        async def asked(self: RetainedScan, session: Session, names: Sequence[str]) -> bool:
            if stalls:
                stalls.clear()
                assert [json.loads(each)["id"] for each in (await testbed.retained()).values()] == [command.id]
                return False
            return await ask(self, session, names)

        monkeypatch.setattr(RetainedScan, "ask", asked)
        await testbed.start()
        await testbed.settled()
        assert stalls == []
        [reason] = put_back(logs)
        assert f"the broker holds {command.id}" in reason
        assert await testbed.retained() == {}


@on_mosquitto
async def test_a_status_of_another_gateway_starts_no_epoch(kind: str, tmp_path: Path, logs: list[Any]) -> None:
    """Who may publish there can neither sign a command, nor use one of before the epoch, nor speak for a registry."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        command = await testbed.reset(device)
        old = json.loads((await testbed.open_commands())[device.topic("commands/factory_reset")])
        await testbed.stop()
        forged = {**old, "id": "cmd_01", "grant_token": old["grant_token"][:-8] + "AAAAAAAA"}
        nonsense = [b"", b"{}", b"[]", b"\xff", json.dumps(forged).encode(), b'{"id":"cmd_1","grant_token":"a.b.c"}']
        nonsense += [b"[" * 20_000, b'{"id":{},"grant_token":"a.b.c"}', b'{"id":%d,"grant_token":"a.b.c"}' % 10**30]
        async with testbed.admin() as admin:
            for number, payload in enumerate(nonsense):
                await admin.publish(f"devices/dev_{number}/commands/reboot", payload, retain=True)
            await admin.publish(
                testbed.status_topic,
                b'{"status":"offline","registry_id":"x","epoch_id":"y","event_seq":99999}',
                retain=True,
            )
        await testbed.start()
        assert [each for each in logs if each["event"] == "broker.disconnected"] == []
        assert put_back(logs) == []
        assert set(await testbed.retained()) == {device.topic("commands/factory_reset")}
        assert json.loads((await testbed.open_commands())[device.topic("commands/factory_reset")])["id"] == command.id


@on_every_broker
async def test_a_deeply_nested_status_does_not_block_the_start(kind: str, tmp_path: Path, logs: list[Any]) -> None:
    """Neither one in the place of its own nor one of another gateway: both say nothing, and it serves."""
    async with open_testbed(kind, tmp_path) as testbed:
        testbed.share()
        async with testbed.admin() as admin:
            for topic in (testbed.status_topic, testbed.topics.gateway_status("gw_other")):
                await admin.publish(topic, b"[" * 20_000, retain=True)
        await testbed.start()
        assert json.loads((await testbed.retained("gateways/+/status"))[testbed.status_topic])["status"] == "online"
        assert put_back(logs) == []


async def test_the_status_contains_the_position_of_the_registry(tmp_path: Path) -> None:
    """Which registry, which epoch, how many events: other gateways that look for a second one read it, too."""
    async with open_testbed("mosquitto-5", tmp_path) as testbed:
        await testbed.bound()
        await testbed.start()
        told = json.loads((await testbed.retained("gateways/+/status"))[testbed.status_topic])
        here = await testbed.store.read(epoch_sql.position)
        assert here is not None
        assert (told["registry_id"], told["epoch_id"], told["event_seq"]) == (here.registry_id, here.epoch_id, 2)
