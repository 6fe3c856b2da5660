"""The comparison of commands with a broker that returns a part of what it holds, on real brokers.

Mosquitto queues at most 64 MiB for a client. Here it queues less, so some hundred commands are more than it returns.
"""

from collections.abc import AsyncIterator, Iterator, MutableMapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.broker.doctor_accounts import ProbeAccounts
from gateway.core.addresses import Address
from gateway.core.command_types import CommandType
from gateway.doctor import broker_checks
from gateway.doctor.broker_checks import Looking, Owner
from gateway.doctor.findings import Level
from gateway.domain import commands, devices
from gateway.models.devices import RegisterDevice
from gateway.mqtt import command_pages, reconciler
from gateway.mqtt.probe import ProbeTarget, connected
from gateway.mqtt.reconciler import Reconciler
from gateway.mqtt.retained_scan import ASKED_AT_ONCE, RetainedScan
from gateway.mqtt.session import Session
from gateway.store import Tx, View, command_sql, open_reader
from tests.mqtt.brokers import ADMIN_PASSWORD
from tests.mqtt.support import MqttTestbed, open_testbed
from tests.support.wait import eventually

FLEET = 1_500
SHORT_QUEUE = "max_inflight_messages 20\nmax_queued_bytes 600000\n"
"""Mosquitto then returns a part of that fleet's commands, as it does with 64 MiB and 100,000 of them.

It does so over MQTT 3.1.1. Over MQTT 5 the gateway lets it send more than that fleet's at once.
"""


def fill(tx: Tx, testbed: MqttTestbed) -> None:
    """Register a fleet with an open reset each."""
    for number in range(FLEET):
        device, _ = devices.register(tx, testbed.project_id, RegisterDevice(serial_number=f"SN-F{number}"), "key_test")
        devices.reset(tx, testbed.project_id, device.id, "key_test")


async def retained(testbed: MqttTestbed) -> dict[str, bytes]:
    """What the broker holds on command topics now, asked for in pieces that it can queue."""
    found: dict[str, bytes] = {}
    filters = [testbed.topics.command(row["id"], "+") for row in await testbed.rows("SELECT id FROM devices")]
    async with testbed.admin() as client:
        await client.subscribe("marks/#")
        for piece in command_pages.chunks(filters, 50):
            await client.subscribe(*piece)
            await client.publish("marks/end", b"")
            found |= {message.topic: message.payload for message in await client.read_until("marks/end")}
    return found


@asynccontextmanager
async def open_large_testbed(kind: str, directory: Path) -> AsyncIterator[MqttTestbed]:
    """A broker that holds more open commands than it returns, and a gateway that has published them and is stopped."""
    async with open_testbed(kind, directory, settings=SHORT_QUEUE) as testbed:
        await testbed.store.write(partial(fill, testbed=testbed))
        await testbed.start()
        assert await retained(testbed) == await testbed.open_commands()
        await testbed.stop()
        yield testbed


def compared(logs: Sequence[MutableMapping[str, Any]]) -> list[MutableMapping[str, Any]]:
    """What each comparison has logged."""
    return [each for each in logs if each["event"] == "broker.reconciled"]


def published(logs: Sequence[MutableMapping[str, Any]]) -> list[str]:
    """The topics that the publisher has published."""
    return [each["topic"] for each in logs if each["event"] in ("command.published", "command.cleared")]


@contextmanager
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Record the most that a comparison holds or does at a time."""
    most = dict.fromkeys(("held", "payloads", "rows", "marks"), 0)
    note, ask, open_after, mark = Reconciler._note, RetainedScan.ask, command_sql.open_after, command_pages.mark  # noqa: SLF001 - counted here

    def count(what: str, number: int) -> None:
        most[what] = max(most[what], number)

    def noted(self: Reconciler, topic: str, payload: bytes) -> None:
        note(self, topic, payload)
        count("held", len(self._held))
        count("payloads", len(self._asked or ()))

    async def asked(self: RetainedScan, session: Session, names: Sequence[str]) -> bool:
        assert len(names) <= ASKED_AT_ONCE
        return await ask(self, session, names)

    def read(*given: Any) -> Any:
        rows = open_after(*given)
        count("rows", len(rows))
        return rows

    def marked(tx: Tx, found: Any, broker: int) -> int:
        count("marks", len(found))
        return mark(tx, found, broker)

    with monkeypatch.context() as patched:
        patched.setattr(Reconciler, "_note", noted)
        patched.setattr(RetainedScan, "ask", asked)
        patched.setattr(command_sql, "open_after", read)
        patched.setattr(command_pages, "mark", marked)
        yield most


@pytest.mark.parametrize(
    ("kind", "most_held"), [("mosquitto-3.1.1", 60_000), ("mosquitto-3.1.1", 50), ("mosquitto-5", 50)]
)
async def test_a_second_connect_publishes_nothing_though_the_broker_returns_a_part(
    kind: str, most_held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the wildcard left out is asked for by its name. What is held and done at a time does not grow with it."""
    monkeypatch.setattr(reconciler, "MOST_HELD", most_held)
    async with open_large_testbed(kind, tmp_path) as testbed:
        with capture_logs() as logs, short_pieces(monkeypatch) as most:
            await testbed.start()
            testbed.wakeups.comparison.set()
            await eventually(lambda: len(compared(logs)) == 2, "it has compared twice")
            await testbed.settled()
        for found in compared(logs):
            assert 0 < found["held"] < FLEET
            assert found["wildcard_retained"]
            assert found["asked"] == FLEET - found["held"]
            assert (found["marked"], found["strangers"]) == (0, [])
        assert published(logs) == []
        assert most["held"] <= most_held
        assert most["payloads"] <= ASKED_AT_ONCE
        assert most["rows"] == command_pages.PAGE
        assert most["marks"] == 0


async def test_differences_beyond_what_the_broker_returns_are_repaired(tmp_path: Path) -> None:
    """Missing, changed, no longer open: each on topics of which the wildcard shows a part, and nothing else."""
    async with open_large_testbed("mosquitto-3.1.1", tmp_path) as testbed:
        held = sorted(await retained(testbed))
        missing, changed, closed = held[::10], held[1::10], held[2::10]
        await testbed.store.write(partial(_cancel, testbed=testbed, topics=closed))
        await testbed.store.write(lambda tx: tx.run("DELETE FROM outbox"))
        async with testbed.admin("other") as client:
            for topic in missing:
                await client.publish(topic, b"", retain=True)
            for topic in changed:
                await client.publish(topic, b"not what was asked for", retain=True)
        with capture_logs() as logs:
            await testbed.start()
            await testbed.settled()
        assert await retained(testbed) == await testbed.open_commands()
        assert set(published(logs)) == {*missing, *changed, *closed}
        assert compared(logs)[0]["held"] < FLEET


def _cancel(tx: Tx, testbed: MqttTestbed, topics: Sequence[str]) -> None:
    for topic in topics:
        device = devices.require(tx, testbed.project_id, topic.split("/")[1])
        [command] = command_sql.open_of_device(tx, device.pk)
        commands.cancel(tx, device, command.id, "key_test", taken_in=True)


async def test_after_a_restore_every_topic_is_looked_at(tmp_path: Path) -> None:
    """What a lost registry published is not known: no command of the registry names these topics, of any device."""
    async with open_large_testbed("mosquitto-3.1.1", tmp_path) as testbed:
        rows = await testbed.rows("SELECT id FROM devices")
        left = [testbed.topics.command(row["id"], CommandType.STOP_RECORDING) for row in rows[::3]]
        async with testbed.admin("other") as client:
            for topic in left:
                await client.publish(topic, b"of the lost registry", retain=True)
        await testbed.store.write(lambda tx: tx.run("DELETE FROM broker_facts WHERE key = 'epoch_announced'"))
        with capture_logs() as logs:
            await testbed.start()
            await testbed.settled()
        assert await retained(testbed) == await testbed.open_commands()
        assert set(published(logs)) == set(left)
        assert compared(logs)[0]["held"] < FLEET


async def test_the_doctor_asks_for_what_the_broker_left_out(tmp_path: Path) -> None:
    """A part of the answer to a wildcard is no difference."""
    async with open_large_testbed("mosquitto-3.1.1", tmp_path) as testbed:
        target = ProbeTarget(Address("127.0.0.1", testbed.broker.port))

        @contextmanager
        def reading() -> Iterator[View]:
            with closing(open_reader(tmp_path / "data")) as connection:
                yield View(connection)

        owner = Owner(None, None)
        looking = Looking(target, ProbeAccounts("", ""), testbed.topics, testbed.gateway_id, owner, reading)
        async with connected(target, "admin", ADMIN_PASSWORD) as reader:
            await reader.subscribe(looking.marker, "devices/+/commands/+")
            assert await broker_checks._marked(looking, reader)  # noqa: SLF001 - a part of a longer check
            assert 0 < sum("/commands/" in each.topic for each in reader.heard) < FLEET
            await broker_checks._ask_by_name(looking, reader)  # noqa: SLF001 - a part of a longer check
            found = await broker_checks._compared(looking, reader, by_name=False)  # noqa: SLF001 - a part of a longer check
        assert (found.level, found.says) == (Level.OK, f"{FLEET} open commands, and just these are retained")
