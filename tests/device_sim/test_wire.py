"""Golden bytes: what a device puts on the wire, and what it takes from it, to the byte."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim import wire
from device_sim.actions import LinkUp, PowerOn, Provisioned, Publish
from device_sim.device import Device
from tests.device_sim.support import COMMAND_ID, DEVICE_ID, NOW, TOKEN, Signer, make_binding, seeded

EXECUTED_RECEIPT = "oQHJLPi17aMuJfZqNHGXnn6nceBT94mv9RuCwU6sHNQ"


def test_the_receipt_matches_the_test_vector() -> None:
    """The receipt is what OpenSSL makes of the contract's formula (`dgst -sha256 -mac HMAC -macopt hexkey:…`)."""
    assert wire.receipt(TOKEN, COMMAND_ID, "executed", 3) == EXECUTED_RECEIPT
    assert wire.receipt(TOKEN, COMMAND_ID, "delivered", 3) == "tH7BLqG70UG0jFT1lnZfzxt3jfhkf4a9BZqhMuDf8T0"
    assert wire.receipt(TOKEN, COMMAND_ID, "failed", 3) == "BzMj12AIvKk5aRJwSkuUULMvVdUksqdVKjDQy5ePBlY"


def test_bytes_of_a_status() -> None:
    """Birth and last will are the contract's two payloads."""
    assert wire.ONLINE == b'{"status":"online"}'
    assert wire.OFFLINE == b'{"status":"offline"}'


def test_bytes_of_a_delivered_acknowledgement() -> None:
    """A `delivered` has an id, a status and a receipt, and no empty fields."""
    assert wire.acknowledgement(COMMAND_ID, "delivered", receipt="abc") == (
        b'{"command_id":"cmd_01JCSIM000000000000000001","status":"delivered","receipt":"abc"}'
    )


def test_bytes_of_an_executed_acknowledgement() -> None:
    """The `executed` of a reset says what was wiped and what was kept, by the contract's names."""
    result = {
        "wiped": ["device_token", "pairing", "wifi_networks"],
        "kept": ["serial_number", "cellular_apn", "last_command_id"],
    }
    assert wire.acknowledgement(COMMAND_ID, "executed", receipt=EXECUTED_RECEIPT, result=result) == (
        b'{"command_id":"cmd_01JCSIM000000000000000001","status":"executed",'
        b'"result":{"wiped":["device_token","pairing","wifi_networks"],'
        b'"kept":["serial_number","cellular_apn","last_command_id"]},'
        b'"receipt":"oQHJLPi17aMuJfZqNHGXnn6nceBT94mv9RuCwU6sHNQ"}'
    )


def test_bytes_of_a_failed_acknowledgement() -> None:
    """A `failed` carries code and message."""
    error = {"code": "stale_generation", "message": "the command is for generation 3, this binding is 5"}
    assert wire.acknowledgement(COMMAND_ID, "failed", receipt="abc", error=error) == (
        b'{"command_id":"cmd_01JCSIM000000000000000001","status":"failed","error":{"code":"stale_generation",'
        b'"message":"the command is for generation 3, this binding is 5"},"receipt":"abc"}'
    )


def test_bytes_of_a_heartbeat() -> None:
    """The first heartbeat of the device with seed 1, to the byte."""
    device = Device(seeded())
    device.handle(PowerOn({}, {"firmware_version": "1.4.2"}), NOW)
    device.handle(Provisioned(make_binding(Signer())), NOW)
    [heartbeat] = [
        each.payload
        for each in device.handle(LinkUp("wifi", "mqtt"), NOW)
        if isinstance(each, Publish) and each.kind == "heartbeat"
    ]
    assert heartbeat == (
        b'{"battery_percent":52,"storage_used_mb":1279,"storage_total_mb":4096,"signal_strength_dbm":-58,'
        b'"device_state":"idle","pending_recordings":0,"flags":8,"connection_type":["wifi"],'
        b'"firmware_version":"1.4.2","sent_at":"2026-11-01T12:00:00.000Z"}'
    )


def test_topics_follow_the_contract() -> None:
    """Commands are subscribed to by their full names, and a prefix stands before everything."""
    topics = wire.Topics(DEVICE_ID, "acme/")
    assert topics.ack("reboot") == f"acme/devices/{DEVICE_ID}/commands/reboot/ack"
    assert topics.subscriptions() == [
        f"acme/devices/{DEVICE_ID}/commands/factory_reset",
        f"acme/devices/{DEVICE_ID}/commands/start_recording",
        f"acme/devices/{DEVICE_ID}/commands/stop_recording",
        f"acme/devices/{DEVICE_ID}/commands/trigger_upload",
        f"acme/devices/{DEVICE_ID}/commands/reboot",
        f"acme/devices/{DEVICE_ID}/commands/set_grant_key",
        f"acme/devices/{DEVICE_ID}/errors",
    ]


def test_times_are_parsed() -> None:
    """Times have milliseconds and a Z, and come back as they went."""
    assert wire.rfc3339(NOW + 7) == "2026-11-01T12:00:00.007Z"
    assert wire.milliseconds("2026-11-01T13:00:00.007+01:00") == NOW + 7


@given(st.integers(min_value=0, max_value=4_102_444_800_000))
def test_times_round_trip(at: int) -> None:
    """No millisecond is lost between writing and reading a time."""
    assert wire.milliseconds(wire.rfc3339(at)) == at


def test_a_command_is_parsed() -> None:
    """A command's fields are taken as they are."""
    command = wire.parse_command(Signer().command("reboot", expires_at=NOW + 1000))
    assert (command.id, command.type, command.binding_generation) == (COMMAND_ID, "reboot", 3)
    assert command.expires_at == NOW + 1000


@pytest.mark.parametrize(
    "spoilt",
    [
        b"{",
        b"[]",
        b"null",
        b"7",
        b"\xff\xfe",
        b"[" * 100_000,
        b"x" * 1_048_576,
        b'{"id":"cmd_1"}',
        *(
            json.dumps({**json.loads(Signer().command()), name: value}).encode()
            for name, value in {
                "id": 7,
                "type": None,
                "binding_generation": "3",
                "grant_token": 1,
                "expires_at": "soon",
            }.items()
        ),
        json.dumps({**json.loads(Signer().command()), "binding_generation": True}).encode(),
        json.dumps({**json.loads(Signer().command()), "expires_at": "2026-11-01T12:00:00"}).encode(),
    ],
)
def test_a_malformed_command_is_refused(spoilt: bytes) -> None:
    """What is not a command says so instead of half becoming one."""
    with pytest.raises(wire.MalformedError):
        wire.parse_command(spoilt)


@given(st.binary(max_size=200))
def test_random_payloads_never_raise_another_error(payload: bytes) -> None:
    """No payload raises anything but `MalformedError`."""
    try:
        wire.parse_command(payload)
    except wire.MalformedError:
        return


def test_each_token_has_its_own_refresh_key() -> None:
    """The same at each request, so that a lost answer comes again; it is no password."""
    assert wire.refresh_key(TOKEN) == wire.refresh_key(TOKEN)
    assert len({wire.refresh_key(TOKEN), wire.refresh_key(TOKEN + "x"), wire.mqtt_password(TOKEN)}) == 3
