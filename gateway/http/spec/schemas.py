"""JSON Schemas of models, for the two documents that describe what travels: every field explained."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway.models.device_settings import SHOWN_AS, DeviceSettings

Json = dict[str, Any]
REF: Final = "#/components/schemas/{model}"
_TIME_SUFFIX: Final = "_at"


LEFT_OUT: Final = frozenset(
    {("HeartbeatAnswer", "commands"), ("DeviceList", "total"), ("DeviceList", "total_is_exact")}
)
"""Fields that an answer may lack; all others are always there."""


def of(wanted: Mapping[type[BaseModel], Literal["validation", "serialization"]]) -> Json:
    """The schemas of these models and of what they consist of, by name.

    None has a ``default``: generators of clients take one for a field that is always there (openapi-typescript), or
    send it where the caller left the field out. In a request the description tells the default.
    """
    wanted = {**wanted, DeviceSettings: "serialization"}
    by_mode: dict[str, Json] = {}
    for mode, adapt in (("validation", _without_defaults), ("serialization", _complete)):
        models = [(each, mode) for each, its_mode in wanted.items() if its_mode == mode]
        _, definitions = models_json_schema(models, ref_template=REF)
        by_mode |= {name: adapt(name, schema) for name, schema in definitions.get("$defs", {}).items()}
    return {name: _dated(schema) for name, schema in sorted(by_mode.items())}


def _without_defaults(_name: str, schema: Json) -> Json:
    """A request's schema whose descriptions tell the defaults."""
    if "properties" not in schema:
        return schema
    fields = {}
    for field, each in _fields(schema):
        told = {key: value for key, value in each.items() if key != "default"}
        if each.get("default") is not None:
            told["description"] = f"{told.get('description', '')} Default: {json.dumps(each['default'])}.".lstrip()
        fields[field] = told
    return {**schema, "properties": fields}


def _complete(name: str, schema: Json) -> Json:
    """An answer's schema, in which all fields that are always there are required, and more may come later."""
    if "properties" not in schema:
        return schema
    open_schema = {key: value for key, value in schema.items() if key != "additionalProperties"}
    fields = {
        field: {"$ref": REF.format(model=each[SHOWN_AS]), "description": each["description"]}
        if SHOWN_AS in each
        else {key: value for key, value in each.items() if key != "default"}
        for field, each in _fields(schema)
    }
    return {**open_schema, "properties": fields, "required": [each for each in fields if (name, each) not in LEFT_OUT]}


def _dated(schema: Json) -> Json:
    fields = {field: with_format(field, each) for field, each in _fields(schema)}
    return {**schema, "properties": fields} if fields else schema


def with_format(name: str, schema: Json) -> Json:
    """Return the schema of a field. A time is text in its model; its format tells a client so."""
    if not name.endswith(_TIME_SUFFIX):
        return schema
    if schema.get("type") == "string":
        return {**schema, "format": "date-time"}
    return {**schema, "anyOf": [with_format(name, each) for each in schema["anyOf"]]} if "anyOf" in schema else schema


def _fields(schema: Json) -> Iterable[tuple[str, Json]]:
    properties: dict[str, Json] = schema.get("properties", {})
    return properties.items()
