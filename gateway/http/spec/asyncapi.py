"""The AsyncAPI 3.0 document: what travels over MQTT, made from the models that read and write it.

``python -m gateway.http.spec.asyncapi > docs/asyncapi.json`` writes the copy that is kept in the repository.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from pydantic import BaseModel

from gateway import __version__
from gateway.core.command_types import CommandType
from gateway.core.topics import Topics
from gateway.http.spec import schemas
from gateway.http.spec.examples import EXAMPLES
from gateway.models import mqtt
from gateway.models.commands import Ack, CommandPayload
from gateway.models.devices import Device
from gateway.models.events import EventType
from gateway.models.heartbeats import Heartbeat, Status

Json = dict[str, Any]

ABOUT: Final = """What devices, integrators and the gateway say to each other through the MQTT broker. `send` and \
`receive` are the gateway's.

A topic prefix may be configured; it stands before every address. User name and client id of a device are its id, its \
password is made of its device token and told with it (`mqtt.password`). Integrators have accounts of their own \
(`gateway accounts create`), which write nothing. One of a project reads `projects/{projectId}/devices/+/state`, \
`projects/{projectId}/devices/+/events/#` and `gateways/#`; one of all projects `devices/+/state`, \
`devices/+/events/#` and `gateways/#`.

Payloads are JSON in UTF-8; unknown fields of heartbeats and statuses are ignored, those of acknowledgements refused. \
An empty payload on a retained topic clears it. The whole contract: 'gateway docs protocol'."""
CLOUD_EVENTS: Final = "application/cloudevents+json"
_DEVICE_ID: Final[str] = EXAMPLES["Device"]["id"]
_PARAMETERS: Final[dict[str, Json]] = {
    "deviceId": {"description": "The id of the device.", "examples": [_DEVICE_ID]},
    "commandType": {"description": "What the device is told to do.", "enum": [str(each) for each in CommandType]},
    "eventType": {"description": "The event's type.", "enum": [str(each) for each in EventType if each.is_of_device]},
    "projectId": {"description": "The id of the device's project.", "examples": [EXAMPLES["Device"]["project_id"]]},
    "gatewayId": {"description": "The id of the gateway.", "examples": ["gw_01JD3M000000000000000000AB"]},
}


@dataclass(frozen=True)
class MessageSpec:
    """One message: where it lies, who sends it, how, and the model of its payload."""

    name: str
    address: str
    action: Literal["send", "receive"]
    payload: type[BaseModel]
    summary: str
    description: str
    example: Json
    qos: Literal[0, 1] = 1
    retain: bool = False
    content_type: str = "application/json"

    @property
    def parameters(self) -> list[str]:
        """What stands in braces in its address."""
        return [level.strip("{}") for level in self.address.split("/") if level.startswith("{")]


_NAMES: Final = Topics()
_ID: Final = "{deviceId}"
_PROJECT: Final = "{projectId}"
_EVENT: Final[Json] = {
    "specversion": "1.0",
    "id": "evt_01JD3N0A1B2C3D4E5F6G7H8J9M",
    "source": "/gateways/gw_01JD3M000000000000000000AB",
    "type": "device.bound",
    "subject": _DEVICE_ID,
    "time": "2026-11-20T08:00:00.000Z",
    "datacontenttype": "application/json",
    "projectid": EXAMPLES["Device"]["project_id"],
    "data": {
        "device_id": _DEVICE_ID,
        "actor": "key_01JD3M0000000000000000000B",
        "actor_name": "backend",
        "end_user_id": "eu_42",
        "binding_generation": 3,
    },
}
MESSAGES: Final = (
    MessageSpec(
        "heartbeat",
        _NAMES.heartbeat(_ID),
        "receive",
        Heartbeat,
        "A device says how it is",
        "Once a minute. Acknowledged to the broker when it is stored; one with the same `sent_at` is stored once.",
        Heartbeat.model_json_schema()["examples"][0],
    ),
    MessageSpec(
        "deviceStatus",
        _NAMES.status(_ID),
        "receive",
        Status,
        "A device comes or goes",
        "Its birth, its farewell and its last will.",
        {"status": "online"},
        retain=True,
    ),
    MessageSpec(
        "command",
        _NAMES.command(_ID, "{commandType}"),
        "send",
        CommandPayload,
        "The gateway tells a device what to do",
        "Retained while the command is open; cleared by an empty payload when it is final.",
        EXAMPLES["PendingCommands"]["data"][0],
        retain=True,
    ),
    MessageSpec(
        "acknowledgement",
        _NAMES.ack(_ID, "{commandType}"),
        "receive",
        Ack,
        "A device says what became of a command",
        "`delivered`, then `executed` or `failed`. For a factory reset each needs a receipt.",
        Ack.model_json_schema()["examples"][0],
    ),
    MessageSpec(
        "refusal",
        _NAMES.errors(_ID),
        "send",
        mqtt.RefusedMessage,
        "The gateway says why it did not take a message",
        "One a second at most for each device.",
        {
            "code": "invalid_request",
            "message": "battery_percent: should be at most 100.",
            "field": "battery_percent",
        },
        qos=0,
    ),
    MessageSpec(
        "state",
        _NAMES.state(_ID),
        "send",
        Device,
        "A device as the registry knows it",
        "The answer of `GET /v1/devices/{id}`, on change, once a second at most; cleared when the device is deleted. "
        "`last_heartbeat_at` alone is no change until it is `state_refresh_seconds` old.",
        EXAMPLES["Device"],
        retain=True,
    ),
    MessageSpec(
        "event",
        _NAMES.event(_ID, "{eventType}"),
        "send",
        mqtt.CloudEvent,
        "Something happened to a device",
        "CloudEvents 1.0, structured mode; at least once, in the order in which it happened.",
        _EVENT,
        content_type=CLOUD_EVENTS,
    ),
    MessageSpec(
        "projectState",
        _NAMES.project_state(_PROJECT, _ID),
        "send",
        Device,
        "A device as the registry knows it, for the integrators of its project",
        "The same as `devices/{deviceId}/state`, while the project has an integrator; cleared with the last one.",
        EXAMPLES["Device"],
        retain=True,
    ),
    MessageSpec(
        "projectEvent",
        _NAMES.project_event(_PROJECT, _ID, "{eventType}"),
        "send",
        mqtt.CloudEvent,
        "Something happened to a device, for the integrators of its project",
        "The same as on `devices/{deviceId}/events/{eventType}`, while its project has an integrator's account.",
        _EVENT,
        content_type=CLOUD_EVENTS,
    ),
    MessageSpec(
        "gatewayStatus",
        _NAMES.gateway_status("{gatewayId}"),
        "send",
        mqtt.GatewayStatus,
        "The gateway comes or goes",
        "Its birth, its farewell and its last will.",
        {
            "status": "online",
            "version": __version__,
            "started_at": "2026-11-20T08:00:00.000Z",
            "registry_id": "5f0c5ee1b6a94f0f8d1f6c3f6f2d9a41",
            "epoch_id": "c1f4b7a2908e4d6db5a3e2f10987cd64",
            "event_seq": 1042,
            "instance": "9c1f0b7d2a4e6835",
            "connected_at": "2026-11-20T08:00:01.250Z",
        },
        retain=True,
    ),
)


@cache
def document() -> bytes:
    """The document as it is served."""
    return json.dumps(describe(), indent=2, ensure_ascii=False).encode() + b"\n"


def describe() -> Json:
    """The AsyncAPI document of these messages."""
    return {
        "asyncapi": "3.0.0",
        "id": "urn:device-gateway:mqtt",
        "info": {
            "title": "Device gateway over MQTT",
            "version": __version__,
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"broker": _server()},
        "channels": {each.name: _channel(each) for each in MESSAGES},
        "operations": {f"{each.action}{each.name[0].upper()}{each.name[1:]}": _operation(each) for each in MESSAGES},
        "components": {
            "messages": {each.name: _message(each) for each in MESSAGES},
            "parameters": _PARAMETERS,
            "schemas": _schemas(),
            "securitySchemes": {
                "password": {
                    "type": "userPassword",
                    "description": "A device: its id and its MQTT password. An integrator: its account.",
                }
            },
        },
    }


def _server() -> Json:
    return {
        "host": "{host}",
        "protocol": "mqtt",
        "protocolVersion": "5.0",
        "description": "The broker that the answer to a bind names; MQTT 3.1.1 is spoken as well. With TLS: mqtts.",
        "variables": {"host": {"default": "127.0.0.1:1883", "description": "Host and port."}},
        "security": [{"$ref": "#/components/securitySchemes/password"}],
    }


def _channel(message: MessageSpec) -> Json:
    return {
        "address": message.address,
        "servers": [{"$ref": "#/servers/broker"}],
        "parameters": {name: {"$ref": f"#/components/parameters/{name}"} for name in message.parameters},
        "messages": {message.name: {"$ref": f"#/components/messages/{message.name}"}},
    }


def _operation(message: MessageSpec) -> Json:
    return {
        "action": message.action,
        "channel": {"$ref": f"#/channels/{message.name}"},
        "summary": f"{message.summary}.",
        "messages": [{"$ref": f"#/channels/{message.name}/messages/{message.name}"}],
        "bindings": {"mqtt": {"qos": message.qos, "retain": message.retain, "bindingVersion": "0.2.0"}},
    }


def _message(message: MessageSpec) -> Json:
    return {
        "name": message.name,
        "title": message.summary,
        "summary": f"{message.summary}.",
        "description": message.description,
        "contentType": message.content_type,
        "payload": {"$ref": schemas.REF.format(model=message.payload.__name__)},
        "examples": [{"name": message.name, "payload": message.example}],
    }


def _schemas() -> Json:
    return schemas.of({each.payload: "serialization" if each.action == "send" else "validation" for each in MESSAGES})


if __name__ == "__main__":
    sys.stdout.buffer.write(document())
