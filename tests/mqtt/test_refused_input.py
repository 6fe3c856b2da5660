"""What bad input gets over MQTT: a refusal that is counted, kept and answered; never a stopped gateway."""

import contextlib
import json
from pathlib import Path

import pytest

from tests.mqtt.devices import Device, heartbeat_payload
from tests.mqtt.support import MqttTestbed, on_every_broker, on_mosquitto, open_testbed
from tests.support import wire
from tests.support.clock import ShiftedClock
from tests.support.wait import eventually

LARGE = b'{"battery_percent": 1, "filler": "' + b"x" * 66_000 + b'"}'

GOLDEN = b'{"code":"invalid_request","message":"flags: should be less than or equal to 255.","field":"flags"}'

BAD = {
    "not JSON": (b"battery is low", "invalid_request", None),
    "not UTF-8": (b'{"device_name": "\xff\xfe"}', "invalid_request", None),
    "a list": (b"[1, 2]", "invalid_request", None),
    "nothing": (b"", "invalid_request", None),
    "a string for a number": (b'{"battery_percent": "80"}', "invalid_request", "battery_percent"),
    "out of range": (b'{"battery_percent": 101}', "invalid_request", "battery_percent"),
    "not a number": (b'{"storage_used_mb": NaN}', "invalid_request", "storage_used_mb"),
    "a NUL": (b'{"device_name": "a\\u0000b"}', "invalid_request", "device_name"),
    "far too deep": (b'{"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "invalid_request", None),
    "over 64 KiB": (LARGE, "payload_too_large", None),
}


async def good_one_is_stored(testbed: MqttTestbed, device: Device, client: wire.Wire, battery: int = 42) -> None:
    """The gateway is up: the next heartbeat is stored."""
    await client.publish(device.topic("heartbeat"), heartbeat_payload(battery))

    async def is_stored() -> bool:
        return battery in await testbed.stored_batteries()

    await eventually(is_stored, "the next good heartbeat was stored")


async def kept(testbed: MqttTestbed, count: int) -> list[tuple[str, str]]:
    """Code and source of the refusals kept, once there are so many."""

    async def are_there() -> list[tuple[str, str]]:
        rows = await testbed.rows("SELECT code, source FROM refusals ORDER BY id")
        return [(row["code"], row["source"]) for row in rows] if len(rows) >= count else []

    return await eventually(are_there, "the refusals were kept")


@on_every_broker
@pytest.mark.parametrize("bad", BAD)
async def test_a_refused_heartbeat_is_answered_and_changes_nothing(kind: str, bad: str, tmp_path: Path) -> None:
    """On `errors`: code, message, field, nothing else; the next good heartbeat is stored."""
    payload, code, field = BAD[bad]
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        async with testbed.join(device) as client:
            await client.subscribe(device.topic("errors"))
            await client.publish(device.topic("heartbeat"), payload)
            answer = await client.read_publish()
            said = json.loads(answer.payload)
            assert (answer.topic, answer.qos, answer.retain) == (device.topic("errors"), 0, False)
            assert (list(said), said["code"], said["field"]) == (["code", "message", "field"], code, field)
            assert said["message"].endswith(".")
            assert await testbed.stored_batteries() == []
            assert await testbed.events(device, "device.online") == []
            assert await kept(testbed, 1) == [(code, device.topic("heartbeat"))]
            await good_one_is_stored(testbed, device, client)
        assert testbed.proxy.connects == 1


async def test_the_bytes_of_an_answer(tmp_path: Path) -> None:
    """The very bytes on the `errors` topic."""
    async with open_testbed("mosquitto-5", tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        async with testbed.join(device) as client:
            await client.subscribe(device.topic("errors"))
            await client.publish(device.topic("heartbeat"), b'{"flags": 256}')
            assert (await client.read_publish()).payload == GOLDEN


@on_every_broker
async def test_answers_are_throttled_for_each_device(kind: str, tmp_path: Path) -> None:
    """One a second for each device, however much it gets wrong; every refusal is kept all the same."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        clock = testbed.store.context.clock
        assert isinstance(clock, ShiftedClock)
        noisy, other = await testbed.bound(), await testbed.bound("SN-2")
        async with testbed.join(noisy) as client, testbed.join(other) as neighbour:
            await client.subscribe(noisy.topic("errors"))
            await neighbour.subscribe(other.topic("errors"))
            stood_still = clock()
            object.__setattr__(testbed.store.context, "clock", lambda: stood_still)
            await client.say(noisy.topic("heartbeat"), *(b"wrong %d" % number for number in range(20)))
            await neighbour.publish(other.topic("heartbeat"), b"wrong")
            assert (await neighbour.read_publish()).topic == other.topic("errors")
            assert len(await kept(testbed, 21)) == 21
            assert (await client.read_publish()).topic == noisy.topic("errors")
            async with testbed.admin() as admin:
                await admin.publish(noisy.topic("errors"), b"the next one")
            assert (await client.read_publish()).payload == b"the next one"


@on_mosquitto
async def test_a_mebibyte_closes_the_connection_of_its_device_alone(kind: str, tmp_path: Path) -> None:
    """Above what the broker takes at all the device is cut off there; the gateway never sees it."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device, other = await testbed.bound(), await testbed.bound("SN-2")
        async with testbed.join(device) as client, testbed.join(other) as neighbour:
            with contextlib.suppress(ConnectionError):  # it may be cut off before it has said all
                await client.send(wire.publish_packet(device.topic("heartbeat"), b"x" * (1 << 20)))
            await client.closed()
            await good_one_is_stored(testbed, other, neighbour)
        async with testbed.join(device) as client:
            await good_one_is_stored(testbed, device, client, 41)


async def test_a_mebibyte_passed_by_the_broker_is_refused(tmp_path: Path) -> None:
    """A broker without a limit: the gateway refuses it, says so, and keeps a short piece of it."""
    async with open_testbed("mosquitto-5", tmp_path, settings="max_packet_size 20000000") as testbed:
        await testbed.start()
        device = await testbed.bound()
        async with testbed.join(device) as client:
            await client.subscribe(device.topic("errors"))
            await client.publish(device.topic("heartbeat"), b'{"a": "' + b"x" * (1 << 20) + b'"}')
            assert json.loads((await client.read_publish()).payload)["code"] == "payload_too_large"
            assert await kept(testbed, 1) == [("payload_too_large", device.topic("heartbeat"))]
            rows = await testbed.rows("SELECT length(payload) AS n FROM refusals")
            assert rows[0]["n"] <= 256
            await good_one_is_stored(testbed, device, client)


@on_every_broker
async def test_unknown_topics_are_refused(kind: str, tmp_path: Path) -> None:
    """Invalid ids, unknown devices, unknown types: kept, not answered, harmless."""
    topics = [
        "devices/dev_UNKNOWN/heartbeat",
        "devices/not an id/heartbeat",
        "devices//heartbeat",
        "devices/dev_\u00e9/status",
        f"devices/dev_{'A' * 300}/heartbeat",
        "devices/dev_A/commands/Self-Destruct/ack",
        "devices/dev_A/commands//ack",
    ]
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        async with testbed.admin() as admin, testbed.join(device) as client:
            for topic in topics:
                await admin.publish(topic, b'{"status": "online"}')
            refusals = await kept(testbed, len(topics))
            assert [source for _, source in refusals] == [topic[:256] for topic in topics]
            assert {code for code, _ in refusals} == {"unknown_device", "wrong_topic"}
            await good_one_is_stored(testbed, device, client)


@on_every_broker
async def test_a_message_on_the_topic_of_another_device_is_dropped(kind: str, tmp_path: Path) -> None:
    """Heartbeats, statuses and wills on foreign topics end at the broker."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        liar, victim = await testbed.bound(), await testbed.bound("SN-2")
        async with testbed.join(liar, will=None) as client:
            await client.publish(victim.topic("heartbeat"), heartbeat_payload(1))
            await client.publish(victim.topic("status"), b'{"status":"online"}', retain=True)
            await client.publish(victim.topic("commands/reboot"), b"{}", retain=True)
            await good_one_is_stored(testbed, liar, client)
        assert await testbed.stored_batteries() == [42]
        assert await testbed.events(victim) == ["device.registered", "device.bound"]
        assert await testbed.retained("devices/#") == {}
        assert await testbed.rows("SELECT * FROM refusals") == []


@on_every_broker
async def test_a_retained_heartbeat_is_refused_and_cleared(kind: str, tmp_path: Path) -> None:
    """It would come again at each connect. Under MQTT 3.1.1 a live one looks like any other: it is refused later.

    The embedded broker keeps none, and shows the flag.
    """
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        is_unseen = kind == "mosquitto-3.1.1"
        async with testbed.join(device) as client:
            await client.subscribe(device.topic("errors"))
            await client.publish(device.topic("heartbeat"), heartbeat_payload(30), retain=True)
            if is_unseen:
                await good_one_is_stored(testbed, device, client)
                testbed.proxy.cut()
            assert await kept(testbed, 1) == [("retained_heartbeat", device.topic("heartbeat"))]
            assert b"retained_heartbeat" in (await client.read_publish()).payload
            await eventually(lambda: _nothing_retained(testbed), "it was cleared")
            await testbed.settled()
            await client.publish(device.topic("heartbeat"), heartbeat_payload(50))
            await eventually(lambda: _newest_is(testbed, 50), "the next one is stored")
            assert await testbed.stored_batteries() == ([30, 42, 50] if is_unseen else [50])
        testbed.proxy.cut()
        await eventually(lambda: testbed.proxy.connects > 1 + is_unseen, "the gateway came back")
        await testbed.settled()
        assert len(await kept(testbed, 1)) == 1


@on_every_broker
async def test_a_retained_acknowledgement_is_processed_and_cleared(kind: str, tmp_path: Path) -> None:
    """It says what it says, and does not come again at the next connect."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        command = await testbed.command(device)
        async with testbed.join(device) as client:
            word = b'{"command_id": "%s", "status": "executed"}' % command.id.encode()
            await client.publish(device.topic("commands/reboot/ack"), word, retain=True)
            await eventually(lambda: _is_executed(testbed), "it is taken")
            if kind == "mosquitto-3.1.1":
                testbed.proxy.cut()
            await eventually(lambda: _nothing_retained(testbed), "it was cleared")
        assert await testbed.rows("SELECT * FROM refusals") == []


async def _is_executed(testbed: MqttTestbed) -> bool:
    return [row[0] for row in await testbed.rows("SELECT status FROM commands")] == ["executed"]


async def _newest_is(testbed: MqttTestbed, battery: int) -> bool:
    return (await testbed.stored_batteries())[-1:] == [battery]


async def _nothing_retained(testbed: MqttTestbed) -> bool:
    found = await testbed.retained("devices/#")
    return not [topic for topic in found if topic.endswith(("/heartbeat", "/ack"))]
