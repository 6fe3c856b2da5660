"""What travels, byte for byte, and what is refused at the edge."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from device_sim.strict_json import read_json
from gateway.models.bindings import BindDevice
from gateway.models.commands import Ack, AckError, CreateCommand
from gateway.models.devices import RegisterDevice
from gateway.models.fields import Empty
from gateway.models.heartbeats import Heartbeat, LastCommand, Status
from gateway.models.states import CommandStatus, DeviceState, Radio
from gateway.store import command_sql, device_sql
from tests.domain.support import World, golden


def _refused(kind: type[BaseModel], body: Any) -> str:
    """The field that the refusal names."""
    payload = body if isinstance(body, bytes) else json.dumps(body)
    with pytest.raises(ValidationError) as refusal:
        kind.model_validate_json(payload)
    return ".".join(str(part) for part in refusal.value.errors()[0]["loc"])


# --- golden wire bytes ------------------------------------------------------------------------------------------------


def test_a_golden_heartbeat() -> None:
    """Every field of section 3 as firmware writes it."""
    heartbeat = Heartbeat.model_validate_json(golden("heartbeat.json"))
    assert heartbeat == Heartbeat(
        battery_percent=81,
        storage_used_mb=512.5,
        storage_total_mb=8192,
        signal_strength_dbm=-61,
        firmware_version="1.4.2",
        device_name="Ward 3, bed 2",
        device_state=DeviceState.LOW_BATTERY,
        pending_recordings=2,
        flags=42,
        connection_type=[Radio.CELLULAR, Radio.WIFI],
        sent_at=datetime(2026, 11, 10, 12, 0, 0, 250_000, tzinfo=UTC),
        last_command=LastCommand(
            command_id="cmd_01JCBQ6A00000000000000000A",
            status="executed",
            receipt="a6IfD3yq90ZDvzASFBdCkqiNZkjJhD03huZNTyEcBEA",
        ),
    )


@pytest.mark.parametrize("word", ["online", "offline"])
def test_a_golden_status(word: str) -> None:
    """Birth and last will."""
    assert Status.model_validate_json(golden(f"status_{word}.json")).status == word


def test_golden_acknowledgements() -> None:
    """The three words: delivered, executed with what was wiped, failed with why."""
    delivered = Ack.model_validate_json(golden("ack_delivered.json"))
    assert (delivered.status, delivered.result, delivered.error) == ("delivered", None, None)
    executed = Ack.model_validate_json(golden("ack_executed.json"))
    assert executed.result is not None
    assert executed.result["wiped"] == ["device_token", "pairing", "wifi_networks"]
    failed = Ack.model_validate_json(golden("ack_failed.json"))
    assert failed.error == AckError(code="stale_generation", message="holds 5, the command says 3")


def test_golden_commands(tmp_path: Any) -> None:
    """What lies retained on a command topic, to the byte: a reset without an end, a command with one."""
    with World(tmp_path) as world:
        device_id, _ = world.bound()
        started = command_sql.payload(world.create(device_id, "start_recording", params={"label": "visite ü"}))
        reset = command_sql.payload(world.reset(device_id))
    assert started.model_dump_json().encode() == golden("command_start_recording.json")
    assert reset.model_dump_json().encode() == golden("command_factory_reset.json")
    fields = ["id", "type", "params", "binding_generation", "created_at", "expires_at", "grant_token"]
    assert list(json.loads(golden("command_factory_reset.json"))) == fields


def test_a_golden_device(tmp_path: Any) -> None:
    """The device object, to the byte: fresh, and with all that it can say."""
    with World(tmp_path) as world:
        device_id = world.register()
        fresh = device_sql.to_model(world.device(device_id)).model_dump_json().encode()
        world.bind(device_id, "eu_42")
        world.say(world.names.heartbeat(device_id), golden("heartbeat.json"))
        told = device_sql.to_model(world.device(device_id)).model_dump_json().encode()
    assert fresh == golden("device_fresh.json")
    assert told == golden("device_told.json")


def test_the_device_object_has_the_fields_of_the_contract() -> None:
    """Section 2, in its order."""
    fields = """id project_id serial_number model name firmware_version status end_user_id binding_generation
        battery_percent storage_used_mb storage_total_mb signal_strength_dbm last_heartbeat_at recording_state
        device_name connection tags metadata settings created_at updated_at bound_at deleted_at"""
    assert list(json.loads(golden("device_fresh.json"))) == fields.split()


# --- heartbeats -------------------------------------------------------------------------------------------------------


def test_a_heartbeat_may_be_empty_or_have_unknown_fields() -> None:
    """Every field is optional, unknown ones are ignored."""
    assert Heartbeat.model_validate_json(b'{"next_year": [1, {"x": null}]}') == Heartbeat()


@pytest.mark.parametrize(
    ("field", "least", "most"),
    [
        ("battery_percent", 0, 100),
        ("storage_used_mb", 0, 2**53 - 1),
        ("storage_total_mb", 0, 2**53 - 1),
        ("signal_strength_dbm", -200, 0),
        ("pending_recordings", 0, 2**53 - 1),
        ("flags", 0, 255),
    ],
)
def test_numbers_have_bounds(field: str, least: int, most: int) -> None:
    """The bounds themselves are good, one beyond is not; a text is not a number and neither is true."""
    for good in (least, most):
        assert getattr(Heartbeat.model_validate_json(json.dumps({field: good})), field) == good
    refused: list[object] = [least - 1, most + 1, str(least), True, [], float("nan"), 10**400]
    for bad in refused:
        assert _refused(Heartbeat, {field: bad}).startswith(field)


@pytest.mark.parametrize(("field", "longest"), [("firmware_version", 32), ("device_name", 64)])
def test_texts_have_bounds(field: str, longest: int) -> None:
    """Counted in characters; a NUL is refused."""
    assert getattr(Heartbeat.model_validate_json(json.dumps({field: "ü" * longest})), field) == "ü" * longest
    assert _refused(Heartbeat, {field: "x" * (longest + 1)}) == field
    assert _refused(Heartbeat, {field: "a\0b"}) == field


@pytest.mark.parametrize(
    "sent_at",
    [1_700_000_000, "2026-11-10", "2026-11-10T12:00:00", "", "0001-01-01T00:00:00+12:00", "9999-12-31T23:00:00-12:00"],
)
def test_a_time_is_rfc_3339_with_a_zone(sent_at: object) -> None:
    """No numbers, no dates alone, no local times, nothing that UTC cannot say."""
    assert _refused(Heartbeat, {"sent_at": sent_at}) == "sent_at"


def test_the_radio_is_derived_from_the_list_or_the_flags() -> None:
    """``connection_type`` first, then bit 3 (WiFi) and bit 4 (LTE)."""
    assert Heartbeat(connection_type=[Radio.BLE], flags=8).radio == Radio.BLE
    assert Heartbeat(flags=8).radio == Radio.WIFI
    assert Heartbeat(flags=16).radio == Radio.CELLULAR
    assert Heartbeat(flags=0).radio is None
    assert Heartbeat(connection_type=[]).radio is None


# --- strictness -------------------------------------------------------------------------------------------------------

ACK = {"command_id": "cmd_1", "status": "executed"}


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        (Ack, {**ACK, "wiped": True}, "wiped"),
        (Ack, {"status": "executed"}, "command_id"),
        (Ack, {**ACK, "status": "pending"}, "status"),
        (Ack, {**ACK, "result": []}, "result"),
        (Ack, {**ACK, "result": {"a": "x" * 16_384}}, "result"),
        (Ack, {**ACK, "result": {"a": float("nan")}}, "result"),
        (Ack, {**ACK, "error": {"code": "", "message": ""}}, "error.code"),
        (Ack, {**ACK, "error": {"code": "c", "message": "x" * 513}}, "error.message"),
        (Ack, {**ACK, "receipt": 5}, "receipt"),
        (Status, {"status": "here"}, "status"),
        (RegisterDevice, {}, "serial_number"),
        (RegisterDevice, {"serial_number": ""}, "serial_number"),
        (RegisterDevice, {"serial_number": "s" * 129}, "serial_number"),
        (RegisterDevice, {"serial_number": "s\0"}, "serial_number"),
        (RegisterDevice, {"serial_number": 5}, "serial_number"),
        (RegisterDevice, {"serial_number": "s", "id": "dev_1"}, "id"),
        (RegisterDevice, {"serial_number": "s", "metadata": {"a": "x" * 8_192}}, "metadata"),
        (BindDevice, {"end_user_id": "eu_"}, "end_user_id"),
        (BindDevice, {"end_user_id": "eu_1\n"}, "end_user_id"),
        (BindDevice, {"end_user_id": "eu_1", "supersede_reset": "yes"}, "supersede_reset"),
        (BindDevice, {"end_user_id": "eu_1", "supersede_reset": 1}, "supersede_reset"),
        (CreateCommand, {"type": "explode"}, "type"),
        (CreateCommand, {"type": "reboot", "ttl_seconds": 0}, "ttl_seconds"),
        (CreateCommand, {"type": "reboot", "ttl_seconds": 86_401}, "ttl_seconds"),
        (CreateCommand, {"type": "reboot", "params": {"until": 2**53}}, "params"),
        (CreateCommand, {"type": "reboot", "params": {"deep": json.loads('[{"a":' * 7 + "[]" + "}]" * 7)}}, "params"),
        (CreateCommand, {"type": "reboot", "params": {"deep": [{"until": -(2**53)}]}}, "params"),
        (CreateCommand, {"type": "reboot", "ttl_seconds": 1.5}, "ttl_seconds"),
        (Empty, {"force": True}, "force"),
    ],
)
def test_invalid_payloads_are_refused(kind: type[BaseModel], body: dict[str, Any], field: str) -> None:
    """Unknown fields, other types, other sizes: each refusal names its field."""
    assert _refused(kind, body) == field


def _reboot_nested(levels: int) -> dict[str, Any]:
    return {"type": "reboot", "params": json.loads('{"a":' * (levels - 1) + "{}" + "}" * (levels - 1))}


def test_the_deepest_params_are_those_that_devices_read() -> None:
    """The command around them is one level more."""
    deepest, deeper = _reboot_nested(15), _reboot_nested(16)
    assert CreateCommand.model_validate_json(json.dumps(deepest)).params == deepest["params"]
    assert read_json(json.dumps(deepest).encode()) == deepest
    assert _refused(CreateCommand, deeper) == "params"
    with pytest.raises(ValueError, match="levels deep"):
        read_json(json.dumps(deeper).encode())


def test_a_name_is_counted_in_utf16_units() -> None:
    """128 of them at most (section 2): an emoji counts twice."""
    asked = {"serial_number": "s", "name": "😀" * 64}
    assert RegisterDevice.model_validate_json(json.dumps(asked)).name == "😀" * 64
    assert _refused(RegisterDevice, {**asked, "name": "😀" * 64 + "x"}) == "name"


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe{}", b'{"a":' * 5_000, b"[" * 50_000, b"\xef\xbb\xbf{}", b"{}{}"],
)
def test_a_payload_that_is_no_object_is_refused(payload: bytes) -> None:
    """Broken, other than an object, not UTF-8, nested without end."""
    for kind in (Heartbeat, Status, Ack, RegisterDevice, Empty):
        _refused(kind, payload)


@given(
    st.binary()
    | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(lambda x: json.dumps(x).encode())
)
def test_random_bytes_raise_no_other_error(payload: bytes) -> None:
    """A model or a ValidationError: nothing else comes out of parsing."""
    for kind in (Heartbeat, Status, Ack):
        try:
            kind.model_validate_json(payload)
        except ValidationError:
            continue


def test_models_are_frozen() -> None:
    """What came in cannot be changed behind anybody's back."""
    with pytest.raises(ValidationError):
        Heartbeat().flags = 1


@pytest.mark.parametrize("status", CommandStatus)
def test_the_last_four_states_of_a_command_are_final(status: CommandStatus) -> None:
    """Section 2."""
    assert status.final == (status in {"executed", "failed", "expired", "cancelled"})
