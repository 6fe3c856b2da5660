"""A registry that is behind the gateway's retained status was restored: a new epoch begins, once, and is reported."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.store import DATABASE_NAME, View, epoch_sql, token_sql
from tests.mqtt.support import Site, on_every_broker, on_mosquitto, site


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

    def __init__(self, place: Site) -> None:
        self._file = place.broker.directory / "data" / DATABASE_NAME
        self._copy = sqlite3.connect(":memory:")
        with closing(sqlite3.connect(self._file)) as now:
            now.backup(self._copy)

    def put_back(self) -> None:
        """Write it over what is there, for everybody who has it open."""
        with closing(sqlite3.connect(self._file)) as now:
            self._copy.backup(now)
        self._copy.close()


async def key(place: Site) -> str:
    """The signing key in use."""
    return (await place.store.read(token_sql.signing_key_ids))[0]


@on_every_broker
async def test_a_restart_is_no_new_epoch(kind: str, tmp_path: Path, logs: list[Any]) -> None:
    """Its own status of before is what the broker has, and it goes on."""
    async with site(kind, tmp_path) as place:
        await place.start()
        await place.bound()
        before = await key(place)
        for _ in range(2):
            await place.stop()
            await place.start()
        assert await key(place) == before
        assert put_back(logs) == []


@on_mosquitto
async def test_a_snapshot_is_known_by_the_last_status(kind: str, tmp_path: Path, logs: list[Any]) -> None:
    """The retained status counts more events than the registry holds: a device that is bound now gets another key."""
    async with site(kind, tmp_path) as place:
        await place.start()
        snapshot, before = Snapshot(place), await key(place)
        await place.bound()
        await place.stop()
        snapshot.put_back()
        await place.start()
        [reason] = put_back(logs)
        assert "the broker was told of event 2" in reason
        assert await key(place) != before
        after = await place.bound()
        assert after.generation > 1 << 20
        told = json.loads((await place.retained("gateways/+/status"))[place.status_topic])
        await place.stop()
        await place.start()
        assert len(put_back(logs)) == 1
        assert told["registry_id"] == (await place.store.read(epoch_sql.registry_id))


@on_mosquitto
async def test_a_snapshot_is_known_by_a_command_it_does_not_have(kind: str, tmp_path: Path, logs: list[Any]) -> None:
    """Killed, so that the last status is old: the retained reset is this gateway's own, and the registry lost it."""
    async with site(kind, tmp_path) as place:
        await place.start()
        snapshot, before = Snapshot(place), await key(place)
        device = await place.bound()
        command = await place.reset(device)
        await place.settled()
        held = await place.retained("gateways/+/status")
        await place.stop()
        async with place.admin() as admin:  # as a kill leaves it: the last will was written at the connect
            await admin.publish(place.status_topic, held[place.status_topic], retain=True)
        snapshot.put_back()
        await place.start()
        [reason] = put_back(logs)
        assert f"the broker holds {command.id}" in reason
        assert await key(place) != before
        assert await place.retained() == {}


@on_mosquitto
async def test_a_stranger_begins_no_epoch(kind: str, tmp_path: Path, logs: list[Any]) -> None:
    """Who may publish there can neither sign a command, nor use one of before the epoch, nor speak for a registry."""
    async with site(kind, tmp_path) as place:
        await place.start()
        device = await place.bound()
        command = await place.reset(device)
        old = json.loads((await place.open_commands())[device.topic("commands/factory_reset")])
        await place.stop()
        forged = {**old, "id": "cmd_01", "grant_token": old["grant_token"][:-8] + "AAAAAAAA"}
        nonsense = [b"", b"{}", b"[]", b"\xff", json.dumps(forged).encode(), b'{"id":"cmd_1","grant_token":"a.b.c"}']
        nonsense += [b"[" * 20_000, b'{"id":{},"grant_token":"a.b.c"}', b'{"id":%d,"grant_token":"a.b.c"}' % 10**30]
        async with place.admin() as admin:
            for number, payload in enumerate(nonsense):
                await admin.publish(f"devices/dev_{number}/commands/reboot", payload, retain=True)
            await admin.publish(
                place.status_topic,
                b'{"status":"offline","registry_id":"x","epoch_id":"y","event_seq":99999}',
                retain=True,
            )
        await place.start()
        assert [each for each in logs if each["event"] == "broker.disconnected"] == []
        assert put_back(logs) == []
        assert set(await place.retained()) == {device.topic("commands/factory_reset")}
        assert json.loads((await place.open_commands())[device.topic("commands/factory_reset")])["id"] == command.id


@on_every_broker
async def test_a_status_that_is_nested_deeply_keeps_no_gateway_away(kind: str, tmp_path: Path, logs: list[Any]) -> None:
    """Neither one in the place of its own nor one of another gateway: both say nothing, and it serves."""
    async with site(kind, tmp_path) as place:
        place.share()
        async with place.admin() as admin:
            for topic in (place.status_topic, place.topics.gateway_status("gw_other")):
                await admin.publish(topic, b"[" * 20_000, retain=True)
        await place.start()
        assert json.loads((await place.retained("gateways/+/status"))[place.status_topic])["status"] == "online"
        assert put_back(logs) == []


async def test_the_status_says_how_far_the_registry_is(tmp_path: Path) -> None:
    """Which registry, which epoch, how many events: other gateways that look for a second one read it, too."""
    async with site("mosquitto-5", tmp_path) as place:
        await place.bound()
        await place.start()
        told = json.loads((await place.retained("gateways/+/status"))[place.status_topic])
        with closing(sqlite3.connect(tmp_path / "data" / DATABASE_NAME)) as connection:
            connection.row_factory = sqlite3.Row
            here = epoch_sql.position(View(connection))
        assert here is not None
        assert (told["registry_id"], told["epoch_id"], told["event_seq"]) == (here.registry_id, here.epoch_id, 2)
