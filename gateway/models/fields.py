"""Types of fields, and the bases of models.

JSON types are taken at their word: no string becomes a number. A model of input refuses unknown fields, except in
heartbeats and statuses, which firmware may extend (contract, sections 2 and 3).
"""

from __future__ import annotations

import enum
import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    TypeAdapter,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from gateway.core import canonical_json, ids
from gateway.core.serial_numbers import serial_number
from gateway.core.visible_text import visible
from gateway.models.validation import NO_NUL

MAX_NUMBER: Final = 2**53 - 1
MAX_NAME_UNITS: Final = 128
MAX_DOCUMENT_BYTES: Final = 16_384
MAX_METADATA_BYTES: Final = 8_192
MAX_PARAMS_LEVELS: Final = 15
"""Objects and lists inside of each other in the params of a command. The command around them is one level more, and
devices read 16: the stack of a small board is short."""
"""A hundred devices with all that they may have fit into one answer of 1 MiB."""
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_RFC3339_IN_A_QUERY: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_NOT_RFC3339: Final = (
    "should be a time by RFC 3339 with its zone, within the years 1 to 9999 in UTC, for example 2026-11-20T08:15:00Z"
)
_FIRST_DAY: Final = datetime(1, 1, 1, tzinfo=UTC)
_LAST_DAY: Final = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


def _utf16_units(text: str) -> str:
    units = len(text.encode("utf-16-le")) // 2
    if units > MAX_NAME_UNITS:
        raise ValueError(f"should have at most {MAX_NAME_UNITS} UTF-16 units, has {units}")
    return text


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(_NOT_RFC3339) from error


def _bounded(document: dict[str, Any], limit: int = MAX_DOCUMENT_BYTES) -> dict[str, Any]:
    try:
        size = len(json.dumps(document, ensure_ascii=False, allow_nan=False).encode())
    except ValueError as error:
        raise ValueError("should hold finite numbers only, no NaN and no Infinity") from error
    if size > limit:
        raise ValueError(f"should be at most {limit} bytes of JSON, is {size}")
    return document


def _is_deeper(document: dict[str, Any], levels: int) -> bool:
    layer: list[Any] = [document]
    for _ in range(levels):
        members = [child for each in layer for child in (each.values() if isinstance(each, dict) else each)]
        layer = [child for child in members if isinstance(child, dict | list)]
    return bool(layer)


def _signable(document: dict[str, Any]) -> dict[str, Any]:
    bounded = _bounded(document)
    if _is_deeper(bounded, MAX_PARAMS_LEVELS):
        raise ValueError(
            f"should be nested at most {MAX_PARAMS_LEVELS} levels deep, since devices ignore deeper commands; send "
            "what is deeper as a string of JSON"
        )
    try:
        canonical_json.params_digest(bounded)
    except ValueError as error:
        raise ValueError(
            f"should hold integers from {-MAX_NUMBER} to {MAX_NUMBER} and whole characters only, since devices check "
            "them by their canonical JSON; send anything else as a string"
        ) from error
    return bounded


def _metadata(document: dict[str, Any]) -> dict[str, Any]:
    return _bounded(document, MAX_METADATA_BYTES)


def _rfc3339(value: Any) -> Any:
    # Left to itself pydantic takes numbers, and strings of digits, for seconds since the epoch.
    if not isinstance(value, datetime) and not (isinstance(value, str) and _RFC3339.fullmatch(value)):
        raise ValueError(_NOT_RFC3339)
    return value


def _rfc3339_in_a_query(text: object) -> object:
    if not isinstance(text, str) or _RFC3339_IN_A_QUERY.fullmatch(text) is None:
        raise ValueError("should be RFC 3339 with a time zone, such as 2026-11-20T08:15:00Z (in a query a + is %2B)")
    return text


class _InJson:
    """The same for a time in JSON, without a call of Python for each heartbeat; it stays in the zone that it names."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        time = core_schema.chain_schema(
            [
                core_schema.str_schema(pattern=f"^{_RFC3339.pattern}$", strict=True),
                core_schema.datetime_schema(tz_constraint="aware", strict=False, ge=_FIRST_DAY, le=_LAST_DAY),
            ]
        )
        told = core_schema.custom_error_schema(time, "rfc3339", custom_error_message=_NOT_RFC3339)
        return core_schema.json_or_python_schema(told, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "format": "date-time"}


class LiteralOf:
    """Members of an enum as the plain strings that they are: SQLite and comparisons are several times as fast."""

    def __init__(self, words: type[enum.StrEnum]) -> None:
        self._words = words

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.literal_schema([str(word) for word in self._words])

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(TypeAdapter(self._words).core_schema)


Text = Annotated[str, StringConstraints(pattern=NO_NUL)]
Label = Annotated[Text, StringConstraints(min_length=1, max_length=128)]
Name = Annotated[Text, AfterValidator(visible), AfterValidator(_utf16_units)]
SerialNumber = Annotated[Label, AfterValidator(serial_number)]
Version = Annotated[Text, StringConstraints(max_length=32)]
VisibleVersion = Annotated[Version, AfterValidator(visible)]
"""A version that a person sets; that of a heartbeat is checked for a NUL alone, since every heartbeat would pay."""
DeviceId = Annotated[str, StringConstraints(pattern=f"^{ids.DEVICE}{ids.BODY}$")]
EventId = Annotated[str, StringConstraints(pattern=f"^{ids.EVENT}{ids.BODY}$")]
EndUserId = Annotated[str, StringConstraints(pattern=f"^{ids.END_USER}{ids.BODY}$")]
Document = Annotated[dict[str, Any], AfterValidator(_bounded)]
Metadata = Annotated[dict[str, Any], AfterValidator(_metadata)]
Params = Annotated[dict[str, Any], AfterValidator(_signable)]
Instant = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_rfc3339), AfterValidator(_in_utc), _InJson()]
QueryInstant = Annotated[Instant, BeforeValidator(_rfc3339_in_a_query)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
# Bounds stand at the members of the union: those of a union are checked in Python, and an integer should stay one.
_PERCENT: Final = Field(ge=0, le=100)
_MEGABYTES: Final = Field(ge=0, le=MAX_NUMBER)
_DBM: Final = Field(ge=-200, le=0)
# pydantic's own JSON Schema of a union leaves its bounds out.
Percent = Annotated[
    Annotated[int, _PERCENT] | Annotated[Finite, _PERCENT],
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 100}),
]
Megabytes = Annotated[
    Annotated[int, _MEGABYTES] | Annotated[Finite, _MEGABYTES],
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": MAX_NUMBER}),
]
Dbm = Annotated[
    Annotated[int, _DBM] | Annotated[Finite, _DBM], WithJsonSchema({"type": "number", "minimum": -200, "maximum": 0})
]
Count = Annotated[int, Field(ge=0, le=MAX_NUMBER)]
CreatedAt = Annotated[str, Field(description="When it was created.")]
PageSize = Annotated[int, Field(ge=1, le=100, description="Maximum number of items to return.")]
Cursor = Annotated[Label | None, Field(description="`next_cursor` of the previous page. Omit it for the first page.")]
NextCursor = Annotated[str | None, Field(description="The `cursor` of the next page; null on the last page.")]
HasMore = Annotated[bool, Field(description="Whether there is another page.")]


class Inbound(BaseModel):
    """Base of what comes in: frozen, strict, unknown fields refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Empty(Inbound):
    """Body of a call that takes none; ``{}`` is as good as nothing."""


class Outbound(BaseModel):
    """Base of what goes out."""

    model_config = ConfigDict(frozen=True)
