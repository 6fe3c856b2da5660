"""Bodies that are refused: each a clear error of the contract, never a 500, never a changed row."""

import json
from collections.abc import AsyncIterator

import httpx
import pytest

from gateway.http.operation import AnyOperation
from gateway.http.resources.operations import OPERATIONS
from tests.http.support import JSON, WITH_BODY, Api, Caller, Json, body, error, trying

DEEP = 100_000
NO_BODIES = (
    b"{",
    b"}",
    b"null",
    b"[]",
    b'"text"',
    b"1",
    b" ",
    b"\xff\xfe\x00",
    b"\x00",
    b'{"a":1,}',
    b"{'a':1}",
    b'{"a":1}{"b":2}',
    b'{"serial_number":"\\ud800"}',
    b'{"type":"\\udfff","status":"\\udfff","end_user_id":"\\udfff"}',
    b"[" * DEEP,
    b'{"params":' * 6_000 + b"1" + b"}" * 6_000,
    b'{"metadata":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    b"9" * 60_000,
    b'{"ttl_seconds":' + b"9" * 60_000 + b"}",
    "\ufeff{}".encode(),
    "{}".encode("utf-16"),
)
WRONG_FIELDS: list[tuple[str, Json, str]] = [
    ("register_device", {}, "serial_number"),
    ("register_device", {"serial_number": 7}, "serial_number"),
    ("register_device", {"serial_number": None}, "serial_number"),
    ("register_device", {"serial_number": ""}, "serial_number"),
    ("register_device", {"serial_number": "x" * 129}, "serial_number"),
    ("register_device", {"serial_number": "a\0b"}, "serial_number"),
    ("register_device", {"serial_number": "n", "model": "bota_pin_max"}, "model"),
    ("register_device", {"serial_number": "n", "name": "n" * 129}, "name"),
    ("register_device", {"serial_number": "n", "name": "😀" * 65}, "name"),
    ("register_device", {"serial_number": "n", "firmware_version": "1" * 33}, "firmware_version"),
    ("register_device", {"serial_number": "n", "metadata": []}, "metadata"),
    ("register_device", {"serial_number": "n", "metadata": {"x": "y" * 16_400}}, "metadata"),
    ("register_device", {"serial_number": "n", "id": "dev_1"}, "id"),
    ("register_device", {"serial_number": "n", "project_id": "proj_1"}, "project_id"),
    ("bind_device", {}, "end_user_id"),
    ("bind_device", {"end_user_id": "42"}, "end_user_id"),
    ("bind_device", {"end_user_id": "eu_"}, "end_user_id"),
    ("bind_device", {"end_user_id": "eu_a/b"}, "end_user_id"),
    ("bind_device", {"end_user_id": "eu_1\n"}, "end_user_id"),
    ("bind_device", {"end_user_id": f"eu_{'1' * 65}"}, "end_user_id"),
    ("bind_device", {"end_user_id": "eu_1", "supersede_reset": "true"}, "supersede_reset"),
    ("bind_device", {"end_user_id": "eu_1", "supersede_reset": 1}, "supersede_reset"),
    ("unbind_device", {"force": True}, "force"),
    ("reset_device", {"dry_run": True}, "dry_run"),
    ("cancel_command", {"reason": "x"}, "reason"),
    ("create_command", {}, "type"),
    ("create_command", {"type": "explode"}, "type"),
    ("create_command", {"type": "reboot", "params": []}, "params"),
    ("create_command", {"type": "reboot", "ttl_seconds": 0}, "ttl_seconds"),
    ("create_command", {"type": "reboot", "ttl_seconds": 1.5}, "ttl_seconds"),
    ("create_command", {"type": "reboot", "ttl_seconds": "60"}, "ttl_seconds"),
    ("create_command", {"type": "reboot", "ttl_seconds": True}, "ttl_seconds"),
    ("create_command", {"type": "reboot", "ttl_seconds": 86_401}, "ttl_seconds"),
    ("create_command", {"type": "reboot", "params": {"until": 2**53}}, "params"),
    ("create_command", {"type": "reboot", "params": {"deep": json.loads("[" * 15 + "]" * 15)}}, "params"),
    ("create_command", {"type": "reboot", "ttl_seconds": 10**30}, "ttl_seconds"),
    ("create_command", {"type": "reboot", "idempotency_key": ""}, "idempotency_key"),
    ("send_heartbeat", {"battery_percent": 101}, "battery_percent"),
    ("send_heartbeat", {"battery_percent": -0.1}, "battery_percent"),
    ("send_heartbeat", {"battery_percent": "81"}, "battery_percent"),
    ("send_heartbeat", {"battery_percent": True}, "battery_percent"),
    ("send_heartbeat", {"storage_used_mb": -1}, "storage_used_mb"),
    ("send_heartbeat", {"storage_total_mb": 1e300}, "storage_total_mb"),
    ("send_heartbeat", {"signal_strength_dbm": 1}, "signal_strength_dbm"),
    ("send_heartbeat", {"signal_strength_dbm": -201}, "signal_strength_dbm"),
    ("send_heartbeat", {"firmware_version": "1" * 33}, "firmware_version"),
    ("send_heartbeat", {"device_name": "n" * 65}, "device_name"),
    ("send_heartbeat", {"device_state": "asleep"}, "device_state"),
    ("send_heartbeat", {"pending_recordings": -1}, "pending_recordings"),
    ("send_heartbeat", {"pending_recordings": 10**30}, "pending_recordings"),
    ("send_heartbeat", {"flags": 256}, "flags"),
    ("send_heartbeat", {"connection_type": "wifi"}, "connection_type"),
    ("send_heartbeat", {"connection_type": ["wifi", "5g"]}, "connection_type.1"),
    ("send_heartbeat", {"sent_at": "yesterday"}, "sent_at"),
    ("send_heartbeat", {"sent_at": "2026-11-20T08:15:00"}, "sent_at"),
    ("send_heartbeat", {"last_command": {"command_id": "cmd_1"}}, "last_command.status"),
    ("acknowledge_command", {}, "status"),
    ("acknowledge_command", {"status": "done"}, "status"),
    ("acknowledge_command", {"status": "pending"}, "status"),
    ("acknowledge_command", {"status": "executed", "result": []}, "result"),
    ("acknowledge_command", {"status": "failed", "error": "x"}, "error"),
    ("acknowledge_command", {"status": "failed", "error": {}}, "error.code"),
    ("acknowledge_command", {"status": "executed", "receipt": ""}, "receipt"),
    ("acknowledge_command", {"status": "executed", "receipt": 1}, "receipt"),
]


async def test_an_invalid_body_is_refused(caller: Caller) -> None:
    """400 ``invalid_request`` (heartbeats ignore unknown fields), 413 for what is too large; nothing else."""
    for operation in WITH_BODY:
        for content in NO_BODIES:
            with trying(operation.id, content):
                _refused(operation, content, await caller.call(operation, content=content, headers=JSON))


def _refused(operation: AnyOperation, content: bytes, answer: httpx.Response) -> None:
    if len(content) > (operation.most_body_bytes or 65_536):
        error(answer, 413, "payload_too_large")
        return
    details = error(answer, 400, "invalid_request")["details"]
    assert details["problems"][0]["field"] == details["field"], operation.id


async def test_unknown_fields_are_refused(caller: Caller) -> None:
    """Refused by name, whatever they are called; heartbeats alone take them (held elsewhere)."""
    for operation in WITH_BODY:
        if operation.id == "send_heartbeat":
            continue
        for name in ("no_such_field", "int", "float", "a\0b", "😀", "x" * 1_000):
            with trying(operation.id, name):
                details = error(await caller.call(operation, json={name: 1}), 400, "invalid_request")["details"]
                assert name[:128] in [problem["field"] for problem in details["problems"]]


async def test_an_invalid_field_is_refused(caller: Caller) -> None:
    """400 ``invalid_request`` that names the field in its details and says in words what it should be."""
    by_id = {operation.id: operation for operation in OPERATIONS}
    for operation_id, content, field in WRONG_FIELDS:
        with trying(operation_id, content):
            answer = error(await caller.call(by_id[operation_id], json=content), 400, "invalid_request")
            assert answer["details"]["field"] == field
            assert answer["message"].startswith(f"{field}: ")


async def test_all_invalid_fields_are_named(caller: Caller) -> None:
    """Several problems come in one answer, each once, and a bounded number of them."""
    wrong = {"battery_percent": "x", "flags": 256, "connection_type": ["a", "b"]}
    answer = await caller.device.post("/v1/devices/me/heartbeat", json=wrong)
    details = error(answer, 400, "invalid_request")["details"]
    assert {each["field"]: each["message"] for each in details["problems"]} == {
        "battery_percent": "should be a valid number.",
        "flags": "should be less than or equal to 255.",
        "connection_type.0": "should be 'wifi', '4g' or 'ble'.",
        "connection_type.1": "should be 'wifi', '4g' or 'ble'.",
    }
    many = await caller.api.back_end.post("/v1/devices", json={f"field_{n}": n for n in range(1_000)})
    assert len(error(many, 400, "invalid_request")["details"]["problems"]) == 20


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 5_000])
async def test_unrepresentable_numbers_are_refused(caller: Caller, number: bytes) -> None:
    """Neither in a field nor deep in a document."""
    content = b'{"battery_percent":' + number + b"}"
    answer = await caller.device.post("/v1/devices/me/heartbeat", content=content, headers=JSON)
    assert error(answer, 400, "invalid_request")["details"]["field"] in ("battery_percent", None)
    content = b'{"serial_number":"n","metadata":{"a":[' + number + b"]}}"
    answer = await caller.api.back_end.post("/v1/devices", content=content, headers=JSON)
    assert error(answer, 400, "invalid_request")["details"]["field"] in ("metadata", None)


async def test_unusual_documents_are_stored_unchanged(api: Api) -> None:
    """NUL, astral characters, empty names, numbers of thirty digits and nesting come back as they were sent."""
    nested: Json = {}
    for _ in range(50):
        nested = {"x": nested}
    metadata = {"": "a\0b", "😀": "\u2028", "n": 10**30, "f": 1.5e300, "deep": nested}
    device = await api.registered("BP-1", metadata=metadata)
    assert device["metadata"] == metadata
    assert body(await api.back_end.get(f"/v1/devices/{device['id']}"), 200)["metadata"] == metadata


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_too_large_body_is_refused(caller: Caller, *, chunked: bool) -> None:
    """413 past 64 KiB, or past the operation's larger limit, whether its length was announced or not."""

    async def pieces(content: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(content), 7_000):
            yield content[start : start + 7_000]

    for operation in WITH_BODY:
        with trying(operation.id):
            limit = operation.most_body_bytes or 65_536
            content = json.dumps({"filler": "x" * limit}).encode()
            answer = await caller.call(operation, content=pieces(content) if chunked else content, headers=JSON)
            assert error(answer, 413, "payload_too_large")["details"] == {"max_body_bytes": limit}


async def test_a_body_of_exactly_the_limit_is_read(api: Api) -> None:
    """65,536 bytes are not too large; and a large body does not spoil the connection."""
    content = json.dumps({"serial_number": "BP-1"}).encode()
    body(await api.back_end.post("/v1/devices", content=content.ljust(65_536), headers=JSON), 201)
    error(await api.back_end.post("/v1/devices", content=content.ljust(65_537), headers=JSON), 413, "payload_too_large")
    error(await api.back_end.post("/v1/devices", content=b"x" * 1_048_576, headers=JSON), 413, "payload_too_large")
    body(await api.back_end.get("/v1/devices"), 200)


async def test_a_body_that_is_not_json_is_refused(caller: Caller) -> None:
    """415 by its headers, and the message says which one to send."""
    for operation in WITH_BODY:
        for headers in (
            {},
            {"Content-Type": "text/plain"},
            {"Content-Type": "application/x-www-form-urlencoded"},
            {"Content-Type": "multipart/form-data; boundary=x"},
            {"Content-Type": "application/jsonp"},
            {"Content-Type": "application/json; charset=utf-16"},
            {"Content-Type": b"\xff\xfe"},
            {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        ):
            with trying(operation.id, headers):
                answer = await caller.call(operation, content=b"{}", headers=headers)
                assert "Content-" in error(answer, 415, "unsupported_media_type")["message"]


@pytest.mark.parametrize("kind", ["application/json", "APPLICATION/JSON; charset=UTF-8", "application/vnd.x+json"])
async def test_other_json_content_types_are_accepted(api: Api, kind: str) -> None:
    """Parameters, case and the ``+json`` suffix are fine."""
    content = json.dumps({"serial_number": "BP-1"}).encode()
    body(await api.back_end.post("/v1/devices", content=content, headers={"Content-Type": kind}), 201)


async def test_of_duplicate_keys_the_last_one_counts(api: Api) -> None:
    """The last one counts, as everywhere in Python and JavaScript."""
    content = b'{"serial_number":"BP-1","serial_number":"BP-2"}'
    answer = await api.back_end.post("/v1/devices", content=content, headers=JSON)
    assert body(answer, 201)["serial_number"] == "BP-2"
