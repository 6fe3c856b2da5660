"""Input of a request: the body, read within its limit and parsed from its bytes, and the query; both strictly."""

from __future__ import annotations

import asyncio
from email.message import Message
from functools import lru_cache
from typing import Any, Final, TypeVar, get_args, get_origin
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from gateway.errors import InvalidRequestError
from gateway.http.errors import PayloadTooLargeError, UnsupportedMediaTypeError
from gateway.models.validation import invalid

T = TypeVar("T", bound=BaseModel)

BODY_SECONDS: Final = 30.0
_MOST_PARAMETERS: Final = 50
_UNICODE: Final = ("utf-8", "utf8", "us-ascii")


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete, and waits for no answer."""


async def read(receive: Receive, headers: Headers, limit: int) -> bytes:
    """Return the whole body.

    Raises:
        PayloadTooLargeError: it has more than ``limit`` bytes, by its header or in fact.
        InvalidRequestError: it did not come within 30 s.
        UnsupportedMediaTypeError: there is a body, and it is not JSON by its headers.
        ClientGoneError: it will never be complete.
    """
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length) > limit:
        raise PayloadTooLargeError(limit)
    if length == "0" and "transfer-encoding" not in headers:  # so the body is empty (RFC 9112, section 6.3)
        return b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            raw = await read_all(receive, limit)
    except TimeoutError as error:
        raise InvalidRequestError(f"The body did not arrive within {BODY_SECONDS:.0f} s. Send it again.") from error
    if raw:
        _require_json(headers)
    return raw


async def read_all(receive: Receive, limit: int) -> bytes:
    """Return the whole body, whatever its headers say.

    Raises:
        PayloadTooLargeError: it has more than ``limit`` bytes.
        ClientGoneError: it will never be complete.
    """
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        body += message.get("body", b"")
        if len(body) > limit:
            raise PayloadTooLargeError(limit)
        more = message.get("more_body", False)
    return bytes(body)


def _require_json(headers: Headers) -> None:
    kind = Message()
    kind["content-type"] = headers.get("content-type", "application/octet-stream")
    json = kind.get_content_type() == "application/json" or kind.get_content_type().endswith("+json")
    if not json or kind.get_content_charset("utf-8") not in _UNICODE:
        raise UnsupportedMediaTypeError(
            "The body should be JSON in UTF-8. Send it with 'Content-Type: application/json'."
        )
    if headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMediaTypeError("The body should not be compressed. Send it without Content-Encoding.")


def parse(kind: type[T], raw: bytes) -> T:
    """Return the body as a model; an empty body counts as ``{}``.

    Raises:
        InvalidRequestError: a field is wrong; the message says which and why.
    """
    try:
        return kind.model_validate_json(raw or b"{}")
    except ValidationError as error:
        raise invalid(error, whole="The body", known=kind.model_fields) from error


def parse_query(kind: type[T], scope: Scope) -> T:
    """Return the query as a model.

    Raises:
        InvalidRequestError: a parameter is wrong; the message says which and why.
    """
    try:
        return kind.model_validate(_parameters(scope["query_string"], _lists(kind)))
    except ValidationError as error:
        raise invalid(error, whole="The query", known=kind.model_fields) from error


@lru_cache(maxsize=128)
def _lists(kind: type[BaseModel]) -> frozenset[str]:
    """Return the fields that hold a list: their parameters may be there several times."""
    return frozenset(name for name, field in kind.model_fields.items() if _holds_list(field.annotation))


def _holds_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(_holds_list(each) for each in get_args(annotation))


def _parameters(query: bytes, lists: frozenset[str]) -> dict[str, str | list[str]]:
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS
        )
    except ValueError as error:  # UnicodeDecodeError is one
        raise InvalidRequestError(
            "The query cannot be read: percent-encode it as UTF-8, and leave out what is not asked for."
        ) from error
    single = dict(pair for pair in pairs if pair[0] not in lists)
    repeated: dict[str, list[str]] = {}
    for name, value in pairs:
        if name in lists:
            repeated.setdefault(name, []).append(value)
    if len(single) + sum(map(len, repeated.values())) < len(pairs):
        raise InvalidRequestError("A parameter of the query is there twice. Send each once.")
    return {**single, **repeated}
