"""JSON Schemas of models, for the two documents that describe what travels: every field explained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway.http import glossary

Json = dict[str, Any]
REF: Final = "#/components/schemas/{model}"


def of(wanted: Mapping[type[BaseModel], Literal["validation", "serialization"]]) -> Json:
    """The schemas of these models and of what they consist of, by name."""
    _, definitions = models_json_schema(list(wanted.items()), ref_template=REF)
    return {name: _explained(name, schema) for name, schema in sorted(definitions["$defs"].items())}


def _explained(name: str, schema: Json) -> Json:
    fields = {
        field: {**glossary.dated(field, each), **glossary.explained(name, field, each)}
        for field, each in _fields(schema)
    }
    return {**schema, "properties": fields} if fields else schema


def _fields(schema: Json) -> Iterable[tuple[str, Json]]:
    properties: dict[str, Json] = schema.get("properties", {})
    return properties.items()
