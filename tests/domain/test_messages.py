"""The inbound door of MQTT: what is malformed is refused, counted and kept, and changes nothing."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import topics
from gateway.domain import messages
from gateway.store import Rules
from gateway.store.dialect import SQLITE
from tests.domain.support import World, golden

BROKEN = {
    "empty": b"",
    "truncated": b'{"battery_percent": 8',
    "no object": b"null",
    "a list": b'[{"battery_percent": 8}]',
    "not UTF-8": b'{"firmware_version": "\xff\xfe"}',
    "a BOM": b"\xef\xbb\xbf{}",
    "UTF-16": '{"flags": 1}'.encode("utf-16"),
    "nested deeply": b'{"last_command":' * 4_000,
    "a deep list": b'{"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "two objects": b"{}{}",
    "a lone surrogate": b'{"firmware_version": "\\ud800"}',
    "NUL": b'{"firmware_version": "1\\u0000"}',
    "a raw NUL": b'{"firmware_version": "1\0"}',
    "a huge integer": b'{"pending_recordings": ' + b"9" * 5_000 + b"}",
    "more than 64 bits": b'{"pending_recordings": 18446744073709551616}',
    "NaN": b'{"battery_percent": NaN}',
    "Infinity": b'{"storage_used_mb": Infinity}',
    "beyond a double": b'{"storage_used_mb": 1e999}',
    "text for a number": b'{"battery_percent": "81"}',
    "true for a number": b'{"flags": true}',
    "an object for a number": b'{"flags": {}}',
    "a list for a word": b'{"device_state": ["idle"]}',
    "out of range": b'{"battery_percent": 100.5}',
    "1 MiB": b'{"device_name": "' + b"x" * 2**20 + b'"}',
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with one project."""
    with World(tmp_path) as opened:
        yield opened


def _without_refusals(world: World) -> list[str]:
    return world.dump("refusals")


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_heartbeat_is_refused_and_changes_nothing_else(world: World, name: str) -> None:
    """A clear answer, one refusal kept (bounded in size), and every other table as it was."""
    device_id, _ = world.bound()
    world.beat(device_id, battery_percent=50)
    before = _without_refusals(world)
    answer = world.say(world.names.heartbeat(device_id), BROKEN[name])
    assert answer is not None
    assert answer.device_id == device_id
    assert answer.refusal.code == ("payload_too_large" if name == "1 MiB" else "invalid_request")
    assert answer.refusal.message.endswith(".")
    (kept,) = world.refusals()
    assert (kept["device_id"], kept["source"], kept["at"]) == (device_id, world.names.heartbeat(device_id), world.now)
    assert (kept["code"], kept["field"], kept["message"]) == (
        answer.refusal.code,
        answer.refusal.field,
        answer.refusal.message,
    )
    assert len(kept["payload"]) <= 256
    assert _without_refusals(world) == before


@pytest.mark.parametrize("payload", [b" ", b"online", b'{"status": "gone"}', b'{"status": 1}', b"\xff"])
def test_a_broken_status_is_refused(world: World, payload: bytes) -> None:
    """Presence stays as it was."""
    device_id, _ = world.bound()
    before = _without_refusals(world)
    answer = world.say(world.names.status(device_id), payload)
    assert answer is not None
    assert answer.refusal.code == "invalid_request"
    assert _without_refusals(world) == before


def test_an_empty_status_is_ignored(world: World) -> None:
    """It clears what is retained, and the gateway receives its own clearing: neither presence nor a refusal."""
    device_id, _ = world.bound()
    before = world.dump()
    assert world.say(world.names.status(device_id), b"") is None
    assert world.dump() == before


@pytest.mark.parametrize("said", [b'{"status": "offline"}', b'{"status": "online"}', b"\xff"])
@pytest.mark.parametrize("retain", [False, True])
def test_retained_messages_of_a_deleted_device_are_cleared(world: World, said: bytes, retain: bool) -> None:  # noqa: FBT001 - pytest gives it
    """Section 3: its status goes, also the last will that its cut session leaves after all; that is no refusal."""
    device_id, _ = world.bound()
    world.delete(device_id)
    world.settle()
    told = world.events()
    assert world.say(world.names.status(device_id), said, retain=retain) is None
    assert world.outbox() == [("topic", "status")]
    assert (world.refusals(), world.events()) == ([], told)
    assert world.record(device_id).connection == "offline"


@pytest.mark.parametrize("payload", [b"{}", b'{"command_id": "cmd_1", "status": "done"}', b"\xff", b"[" * 60_000])
def test_a_broken_acknowledgement_is_refused_and_audited(world: World, payload: bytes) -> None:
    """The command is untouched."""
    device_id, _ = world.bound()
    command = world.create(device_id, "reboot")
    answer = world.say(world.names.ack(device_id, "reboot"), payload)
    assert answer is not None
    assert answer.refusal.code == "invalid_request"
    assert world.events()[-1] == "acknowledgement.refused"
    assert world.again(command).status == "pending"


@pytest.mark.parametrize(
    "topic",
    [
        "devices/{id}",
        "devices/{id}/heartbeats",
        "devices/{id}/heartbeat/x",
        "devices//heartbeat",
        "devices/{id}/state",
        "devices/{id}/errors",
        "devices/{id}/commands/reboot",
        "devices/{id}/commands/reboot/ack/x",
        "gateways/gw_1/status",
        "$SYS/broker",
        "x\0y",
        "\ud800",
        "",
    ],
)
def test_a_wrong_topic_is_refused(world: World, topic: str) -> None:
    """The payload is a good heartbeat; nothing is taken of it."""
    device_id, _ = world.bound()
    before = _without_refusals(world)
    world.say(topic.replace("{id}", device_id), golden("heartbeat.json"))
    assert [row["code"] for row in world.refusals()] == ["wrong_topic"]
    assert _without_refusals(world) == before


@pytest.mark.parametrize("leaf", ["heartbeat", "status", "commands/reboot/ack"])
def test_an_unknown_device_is_refused_and_not_answered(world: World, leaf: str) -> None:
    """The refusal is kept under the id that the sender claims; no answer is sent."""
    body = {"status": "online"} if leaf == "status" else {"command_id": "cmd_1", "status": "delivered"}
    assert world.say(f"devices/dev_unknown/{leaf}", body) is None
    assert [(row["device_id"], row["code"]) for row in world.refusals()] == [("dev_unknown", "unknown_device")]
    assert world.events() == []


def test_a_deleted_device_is_unknown(world: World) -> None:
    """Its record stays and takes no more."""
    device_id, _ = world.bound()
    world.connection.execute("UPDATE devices SET deleted_at = 1")
    before = _without_refusals(world)
    assert world.beat(device_id, battery_percent=5) is None
    assert [row["code"] for row in world.refusals()] == ["unknown_device"]
    assert _without_refusals(world) == before


def test_a_message_under_a_revoked_token_is_refused(world: World) -> None:
    """What a session that is being cut still says is refused: no telemetry, no presence."""
    device_id, _ = world.bound()
    world.unbind(device_id)
    before = _without_refusals(world)
    answer = world.beat(device_id, battery_percent=5)
    assert answer is not None
    assert answer.refusal.code == "token_revoked"
    assert _without_refusals(world) == before


def test_a_retained_heartbeat_is_refused(world: World) -> None:
    """It would come again with each of the gateway's connects."""
    device_id, _ = world.bound()
    answer = world.say(world.names.heartbeat(device_id), {"battery_percent": 5}, retain=True)
    assert answer is not None
    assert answer.refusal.code == "retained_heartbeat"


@pytest.mark.parametrize("topic", ["heartbeat", "ack"])
def test_the_message_that_clears_a_retained_one_is_ignored(world: World, topic: str) -> None:
    """Marked as retained, and empty: this is no refusal, whichever client cleared it."""
    device_id, _ = world.bound()
    before = _without_refusals(world)
    names = {"heartbeat": world.names.heartbeat(device_id), "ack": f"devices/{device_id}/commands/reboot/ack"}
    assert world.say(names[topic], b"", retain=True) is None
    assert _without_refusals(world) == before


def test_a_payload_has_a_maximum_size(world: World) -> None:
    """65,536 bytes are taken, one more is not."""
    device_id, _ = world.bound()
    fits = b'{"x":"' + b"y" * (messages.MAX_PAYLOAD_BYTES - 8) + b'"}'
    assert world.say(world.names.heartbeat(device_id), fits) is None
    answer = world.say(world.names.heartbeat(device_id), fits + b" ")
    assert answer is not None
    assert answer.refusal.code == "payload_too_large"


def test_the_table_of_refusals_is_bounded(tmp_path: Path) -> None:
    """The newest stay, as many as the rules say; the number of a row counts all there ever were."""
    with World(tmp_path, rules=Rules(refusals_kept=10)) as world:
        device_id, _ = world.bound()
        for number in range(25):
            world.say(world.names.heartbeat(device_id), f'{{"flags": {300 + number}}}'.encode())
        kept = world.refusals()
        assert [row["id"] for row in kept] == list(range(16, 26))
        assert kept[-1]["payload"] == '{"flags": 324}'


def test_secrets_are_redacted(world: World) -> None:
    """In the payload, the name of a field, the topic: no prefix longer than 12 characters stays (section 1)."""
    device_id, token = world.bound()
    secret = token.removeprefix("dtok_")
    world.say(world.names.heartbeat(device_id), json.dumps({"battery_percent": token, "again": f"x {token}"}).encode())
    answer = world.say(
        world.names.ack(device_id, "reboot"),
        {"command_id": "cmd_1", "status": "delivered", token: 1, "x": "sk_live_" + secret},
    )
    assert answer is not None
    assert secret[:8] not in messages.error_payload(answer.refusal).decode()
    world.say(f"devices/{token}/heartbeat", b"{}")
    for row in world.refusals():
        assert secret[:8] not in "".join(str(value) for value in tuple(row))
    assert not [line for line in world.dump() if secret[:8] in line]


def test_the_name_of_a_field_is_bounded(world: World) -> None:
    """An unknown field may be called anything, for 60,000 characters."""
    device_id, _ = world.bound()
    body = {"command_id": "cmd_1", "status": "delivered", "x" * 60_000: 1}
    answer = world.say(world.names.ack(device_id, "reboot"), body)
    assert answer is not None
    assert len(messages.error_payload(answer.refusal)) < 512
    assert max(len(line) for line in world.dump()) < 2_000


def test_a_device_gets_the_reason_of_a_refusal(world: World) -> None:
    """``errors``: code, message and field (section 3), and the message says what to do."""
    device_id, _ = world.bound()
    told = {}
    for body in ({"battery_percent": 101}, {"device_state": "asleep"}, {"firmware_version": "x" * 33}, {"flags": "1"}):
        answer = world.beat(device_id, **body)
        assert answer is not None
        shown = json.loads(messages.error_payload(answer.refusal))
        assert list(shown) == ["code", "message", "field"]
        told[shown["field"]] = shown["message"]
    assert told == {
        "battery_percent": "battery_percent: should be less than or equal to 100.",
        "device_state": "device_state: should be 'idle', 'recording', 'syncing', 'uploading', 'charging', "
        "'lowBattery', 'storageFull' or 'error'.",
        "firmware_version": "firmware_version: should have at most 32 characters.",
        "flags": "flags: should be a valid integer.",
    }


@given(st.text(), st.binary(), st.booleans())
def test_parsing_a_topic_never_raises(topic: str, payload: bytes, retain: bool) -> None:  # noqa: FBT001 - hypothesis draws it
    """Whatever comes: a model, or a refusal."""
    names = topics.Topics()
    for name in (topic, names.heartbeat("dev_1"), names.status("dev_1"), names.ack("dev_1", "reboot")):
        messages.parse(names, messages.Message(name, payload, retain))


@pytest.mark.parametrize("seed", range(5))
def test_damaged_messages_never_stop_the_gateway(world: World, seed: int) -> None:
    """Good messages with bytes flipped, cut and doubled: each is taken or refused, none raises."""
    chance = random.Random(seed)  # noqa: S311 - the seed is in the name of the test
    device_id, _ = world.bound()
    command = world.create(device_id, "reboot")
    ack = golden("ack_executed.json").replace(b"cmd_01JCBQ6A00000000000000000A", command.id.encode())
    good = {
        world.names.heartbeat(device_id): golden("heartbeat.json"),
        world.names.status(device_id): golden("status_online.json"),
        world.names.ack(device_id, "reboot"): ack,
    }
    for _ in range(200):
        topic, payload = chance.choice(list(good.items()))
        damaged = bytearray(payload)
        for _ in range(chance.randrange(4)):
            place = chance.randrange(len(damaged))
            damaged[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(3)) or b"9"
        world.say(topic, bytes(damaged), retain=chance.random() < 0.1)
    if world.view.dialect is SQLITE:
        assert world.view.value("PRAGMA integrity_check") == "ok"
