"""What is wrong with what came in is said once, for HTTP and MQTT alike: which field, and what it should be."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.core.topics import Topics
from gateway.domain.messages import Message, parse
from gateway.errors import InvalidRequestError
from gateway.models.bindings import BindDevice
from gateway.models.commands import Ack, AckError, CreateCommand
from gateway.models.device_settings import changed
from gateway.models.devices import ListDevices, RegisterDevice
from gateway.models.fields import Empty
from gateway.models.heartbeats import Heartbeat
from gateway.models.validation import invalid


class Inner(BaseModel):
    """A number of either kind, below another field."""

    model_config = ConfigDict(strict=True, extra="forbid")

    number: int | float | None = None


class Outer(BaseModel):
    """One level above."""

    model_config = ConfigDict(strict=True, extra="forbid")

    inner: Inner


def refused(kind: type[BaseModel], raw: bytes) -> InvalidRequestError:
    """The refusal of these bytes."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate_json(raw)
    return invalid(caught.value, whole="The body")


def problems(kind: type[BaseModel], body: dict[str, Any]) -> dict[str | None, str]:
    """Field by field what is wrong with this body."""
    details = refused(kind, json.dumps(body).encode()).details["problems"]
    return {each["field"]: each["message"] for each in details}


@pytest.mark.parametrize("name", ["int", "float", "constrained-int", "constrained-float"])
def test_a_field_may_be_called_like_a_type(name: str) -> None:
    """An unknown field is named by its name, whatever that is and however deep it lies."""
    said = "unknown field. Remove it, or check its spelling."
    assert problems(AckError, {"code": "x", name: 1}) == {name: said}
    nested = {"command_id": "cmd_1", "status": "failed", "error": {"code": "x", name: 1}}
    assert problems(Ack, nested) == {f"error.{name}": said}


def test_a_number_that_may_have_a_fraction_is_not_asked_to_be_an_integer() -> None:
    """Of the two complaints of a union of numbers the one stays that is true of both; its member is no field."""
    wrongs: tuple[Any, ...] = ("81", True, [], {})
    for wrong in wrongs:
        assert problems(Heartbeat, {"battery_percent": wrong}) == {"battery_percent": "should be a valid number."}
    assert problems(Outer, {"inner": {"number": "1"}}) == {"inner.number": "should be a valid number."}
    assert problems(Heartbeat, {"flags": 1.5}) == {"flags": "should be a valid integer."}


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (RegisterDevice, {}, "serial_number: is missing. It is required."),
        (RegisterDevice, {"serial_number": 7}, "serial_number: should be a valid string."),
        (RegisterDevice, {"serial_number": "x" * 129}, "serial_number: should have at most 128 characters."),
        (RegisterDevice, {"serial_number": "a\0"}, "serial_number: should not contain a NUL character."),
        (RegisterDevice, {"serial_number": "n", "metadata": []}, "metadata: should be an object."),
        (BindDevice, {"end_user_id": "eu_1", "supersede_reset": 1}, "supersede_reset: should be true or false."),
        (BindDevice, {"end_user_id": "42"}, "end_user_id: should be 'eu_' and 1 to 64 letters and digits."),
        (Heartbeat, {"connection_type": ["ble"] * 9}, "connection_type: should have at most 8 items, has 9."),
        (Heartbeat, {"device_name": "x" * 65}, "device_name: should have at most 64 characters."),
        (Heartbeat, {"firmware_version": "1\0"}, "firmware_version: should not contain a NUL character."),
        (RegisterDevice, {"serial_number": "n", "name": "\0"}, "name: should not contain a NUL character."),
        (Heartbeat, {"connection_type": "ble"}, "connection_type: should be a valid array."),
        (Heartbeat, {"last_command": 1}, "last_command: should be an object."),
        (
            CreateCommand,
            {"type": "reboot", "ttl_seconds": 0},
            "ttl_seconds: should be greater than or equal to 1.",
        ),
    ],
)
def test_messages_say_what_is_expected(kind: type[BaseModel], body: dict[str, Any], message: str) -> None:
    """The sentence names the field and says what to send instead."""
    assert refused(kind, json.dumps(body).encode()).message == message


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"1e999"])
def test_invalid_numbers_are_explained(number: bytes) -> None:
    """In a field and inside a document."""
    assert refused(Heartbeat, b'{"battery_percent":' + number + b"}").message == (
        "battery_percent: should be a finite number."
    )
    assert refused(RegisterDevice, b'{"serial_number":"n","metadata":{"a":[' + number + b"]}}").message == (
        "metadata: should hold finite numbers only, no NaN and no Infinity."
    )


def test_invalid_json_is_explained() -> None:
    """Where it breaks off, under the name of the whole; no field is to blame."""
    refusal = refused(Heartbeat, b'{"flags":')
    assert refusal.message == (
        "The body: should be JSON, and cannot be read: EOF while parsing a value at line 1 column 9."
    )
    assert refusal.details["field"] is None
    assert refused(Heartbeat, b"[]").message == "The body: should be an object."


def test_a_query_parameter_is_named() -> None:
    """Text that is no number."""
    with pytest.raises(ValidationError) as caught:
        ListDevices.model_validate({"limit": "many", "offset": "1.5", "status": "", "sorted": "name"})
    details = invalid(caught.value, whole="The query").details["problems"]
    assert {each["field"]: each["message"] for each in details} == {
        "limit": "should be a whole number.",
        "offset": "should be a whole number.",
        "status": "should be 'bound' or 'unbound'.",
        "sorted": "unknown field. Remove it, or check its spelling.",
    }


def test_messages_use_the_names_of_the_sender() -> None:
    """A name that holds a secret is blotted out, one without end is cut; at most twenty problems are told."""
    token = "dtok_0123456789abcdef"
    many = {token: 1, "x" * 60_000: 1} | {f"field_{number}": 1 for number in range(100)}
    refusal = refused(Empty, json.dumps(many).encode())
    assert token[:13] not in json.dumps(refusal.details) + refusal.message
    assert len(refusal.details["problems"]) == 20
    assert max(len(each["field"]) for each in refusal.details["problems"]) == 128


def test_settings_are_named_from_the_body_on() -> None:
    """``within`` comes first, and stands for the whole where there is no more to name."""
    with pytest.raises(InvalidRequestError, match=r"^settings\.audio\.bitrate_kbps: should be less than"):
        changed({}, {"audio": {"bitrate_kbps": 10**6}})
    with pytest.raises(InvalidRequestError, match=r"^settings\.audio: should be an object\.$"):
        changed({}, {"audio": 5})


@pytest.mark.parametrize(
    ("payload", "field", "message"),
    [
        (b'{"battery_percent": "81"}', "battery_percent", "battery_percent: should be a valid number."),
        (b'{"last_command": {"command_id": "x"}}', "last_command.status", "last_command.status: is missing."),
        (b"[]", None, "The payload: should be an object."),
    ],
)
def test_a_device_gets_the_same_message(payload: bytes, field: str | None, message: str) -> None:
    """Over MQTT the refusal has the field and the sentence that HTTP answers with."""
    names = Topics()
    body = parse(names, Message(names.heartbeat("dev_1"), payload)).body
    assert getattr(body, "field", "") == field
    assert getattr(body, "message", "").startswith(message)


def test_a_device_gets_the_name_of_an_unknown_field() -> None:
    """Also of one that is called "int"."""
    names = Topics()
    payload = b'{"command_id": "cmd_1", "status": "failed", "error": {"code": "x", "int": 1}}'
    body = parse(names, Message(names.ack("dev_1", "reboot"), payload)).body
    assert getattr(body, "field", "") == "error.int"


def test_a_misspelt_field_gets_a_suggestion() -> None:
    """The nearest known name, where one is near; a field inside of another has no list of names to compare with."""

    class Query(BaseModel, extra="forbid"):
        limit: int = 1
        serial_number: str = ""

    for sent, said in (
        ("serial_numbr", "unknown field. Did you mean 'serial_number'?"),
        ("colour", "unknown field. Remove it, or check its spelling."),
        ("x" * 60_000, "unknown field. Remove it, or check its spelling."),
    ):
        with pytest.raises(ValidationError) as caught:
            Query.model_validate({sent: 1})
        refusal = invalid(caught.value, whole="The query", known=Query.model_fields)
        assert refusal.details["problems"][0]["message"] == said
