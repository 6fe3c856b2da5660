"""The OpenAPI 3.1 document, made from the table of operations.

``python -m gateway.http.spec.openapi > docs/openapi.json`` writes the copy that is kept in the repository.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final, Literal

from pydantic import BaseModel

from gateway import __version__
from gateway.core import ids
from gateway.core.credentials import SCOPES
from gateway.http import idempotency
from gateway.http.callers import READ, Authorization
from gateway.http.operation import AnyOperation
from gateway.http.resources.operations import OPERATIONS
from gateway.http.spec import introduction, links, schemas
from gateway.http.spec.examples import ERRORS, EXAMPLES
from gateway.models.errors import ErrorAnswer

Json = dict[str, Any]

_ERRORS: Final[Mapping[int, str]] = {
    400: "`invalid_request`: `details.field` names what is wrong, `details.problems` all of it.",
    401: "`unauthorized`: no credential, or one that opens nothing here.",
    403: "`insufficient_scope`: a good credential without the right to do this. `csrf_refused`: a change with the "
    "cookie of a session, without its `X-CSRF-Token` or from another site.",
    404: "`not_found`: no such thing in the project of this credential.",
    406: "`not_acceptable`: the header `Accept` names no media type that this answer may have.",
    413: "`payload_too_large`: the body exceeds the limit (64 KiB by default).",
    415: "`unsupported_media_type`: the body is not JSON, by its headers.",
    429: "`rate_limit_exceeded`: wait as many seconds as `Retry-After` says.",
    500: "`internal_error`: a mistake of the gateway's, logged under the request id.",
    503: "`service_unavailable`: something that is needed is away; send the same request again after `Retry-After`.",
}
_HEADERS: Final[Mapping[str, tuple[str, str]]] = {
    "X-Request-Id": (
        "string",
        "The gateway's id of this request; the log and traces name it. It is never the one sent.",
    ),
    "X-RateLimit-Limit": ("integer", "Requests that this credential may make in a minute."),
    "X-RateLimit-Remaining": ("integer", "How many of them are left."),
    "X-RateLimit-Reset": ("integer", "When the window of a minute ends and all are back, in Unix seconds."),
    "Retry-After": ("integer", "Seconds to wait."),
    "WWW-Authenticate": ("string", "`Bearer`."),
}
_EVERYWHERE: Final = ("X-Request-Id", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
_WITH_STATUS: Final[Mapping[int, tuple[str, ...]]] = {
    401: ("WWW-Authenticate",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}
_REPLAYED: Final = (
    "`true` when the request had been done before, under the same `Idempotency-Key`: this is what was answered then. "
    "Absent otherwise."
)
_FOUND: Final[Mapping[int, str]] = {200: "Done.", 201: "Created.", 202: "Accepted.", 503: "Not now."}
_PATH: Final[Mapping[str, str]] = {
    "device_id": "The id of the device. With its own token a device may say `me`.",
    "command_id": "The id of the command.",
    "end_user_id": "The id of the end user, as you gave it at the bind.",
    "webhook_id": "The id of the webhook.",
    "delivery_id": "The id of the delivery.",
    "job_id": "The id of the job.",
    "broker_id": "The `broker_id` of the broker.",
}
_PATH_EXAMPLES: Final[Mapping[str, str]] = {
    "device_id": EXAMPLES["Device"]["id"],
    "command_id": EXAMPLES["Command"]["id"],
    "end_user_id": EXAMPLES["Device"]["end_user_id"],
    "webhook_id": EXAMPLES["Webhook"]["id"],
    "delivery_id": EXAMPLES["Delivery"]["id"],
    "job_id": EXAMPLES["Job"]["id"],
    "broker_id": EXAMPLES["Cell"]["broker_id"],
}


@cache
def document() -> bytes:
    """The document as it is served."""
    return json.dumps(describe(OPERATIONS), indent=2, ensure_ascii=False).encode() + b"\n"


def describe(operations: Sequence[AnyOperation]) -> Json:
    """The OpenAPI document of these operations."""
    paths: dict[str, Json] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Device gateway",
            "version": __version__,
            "description": introduction.ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": name, "description": introduction.TAGS.get(name, "")}
            for name in dict.fromkeys(each.tag for each in operations)
        ],
        "paths": paths,
        "components": {
            "securitySchemes": _security_schemes(),
            "headers": {
                name: {"description": text, "required": True, "schema": {"type": kind}}
                for name, (kind, text) in _HEADERS.items()
            },
            "responses": {str(status): _error(status, text) for status, text in _ERRORS.items()},
            "schemas": _schemas(operations),
        },
    }


def _operation(operation: AnyOperation) -> Json:
    described: Json = {
        "operationId": operation.id,
        "summary": operation.summary,
        "description": operation.description,
        "tags": [operation.tag],
        "security": _security(operation.access),
        "parameters": [*_path_parameters(operation), *_query_parameters(operation), *_header_parameters(operation)],
        "responses": {str(status): answer for status, answer in sorted(_responses(operation).items())},
    }
    if operation.has_body:
        described["requestBody"] = _request_body(operation)
    return described


def _security(access: Authorization) -> list[Json]:
    if access.insiders:
        return [{"apiKey": [READ.scope]}, {"session": [READ.scope]}, {}]  # none on the gateway's own machine
    if access.person:
        return [{"session": list(access.scopes)}]
    key = [] if access.scope is None else [{"apiKey": list(access.scopes)}, {"session": list(access.scopes)}]
    return [*key, {"deviceToken": []}] if access.device else key


def _security_schemes() -> Json:
    scopes = ", ".join(f"`{scope}`" for scope in SCOPES)
    return {
        "apiKey": {
            "type": "http",
            "scheme": "bearer",
            "description": f"`sk_live_…`, `sk_test_…` (every scope) or `rk_live_…`, `rk_test_…` (those it was given of "
            f"{scopes}). A key sees the devices of its project and no other.",
        },
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": "__Host-gateway_session",
            "description": "The session of a person who signed in through OpenID Connect (`gateway_session` on "
            "loopback without TLS). Its role gives the scopes. A change needs the header `X-CSRF-Token`, with the "
            "value that `GET /v1/session` gives. With an `Authorization` the cookie is ignored.",
        },
        "deviceToken": {
            "type": "http",
            "scheme": "bearer",
            "description": "`dtok_…`, from the answer to bind: the device's own, for its own id or `me`.",
        },
    }


_ID_PATTERN: Final = "^[A-Za-z0-9_]{1,80}$"
_END_USER_PATTERN: Final = f"^{ids.END_USER}{ids.BODY}$"
"""Of every id. Another text is a 404, or a 400 where it hides a slash or a control character."""


def _path_parameters(operation: AnyOperation) -> list[Json]:
    names = [part.strip("{}") for part in operation.path.split("/") if part.startswith("{")]
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PATH[name],
            "schema": {"type": "string", "pattern": _END_USER_PATTERN if name == "end_user_id" else _ID_PATTERN},
            "example": _PATH_EXAMPLES[name],
        }
        for name in names
    ]


def _query_parameters(operation: AnyOperation) -> list[Json]:
    if operation.has_body:
        return []
    schema = operation.takes.model_json_schema(ref_template=schemas.REF)
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": each.get("description", ""),
            "schema": _not_null(each, schema.get("$defs", {})),
        }
        for name, each in schema.get("properties", {}).items()
    ]


def _header_parameters(operation: AnyOperation) -> list[Json]:
    own = [
        {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}
        for name, text in operation.takes_headers.items()
    ]
    if not operation.is_idempotent:
        return own
    return [
        *own,
        {
            "name": idempotency.HEADER,
            "in": "header",
            "required": False,
            "description": "A value of your own for this request, best a random UUID. Sent again within 24 h with the "
            "same body and credential it is not done again, and gets the same answer. Neither errors nor dry runs "
            "are kept.",
            "schema": {"type": "string", "pattern": idempotency.PATTERN},
            "example": "8f14e45f-ceea-467f-9a36-dcc6a6f5b3c1",
        },
    ]


def _not_null(schema: Json, definitions: Json) -> Json:
    """A parameter that may be left out cannot be sent as null; what it refers to is written out."""
    choices = [each for each in schema.get("anyOf", []) if each != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "title", "default", "description")}
    if choices and "$ref" in choices[0]:
        choices = [definitions[choices[0]["$ref"].rpartition("/")[2]]]
    return {**choices[0], **rest} if choices else {**rest, **_default(schema)}


def _default(schema: Json) -> Json:
    return {"default": schema["default"]} if schema.get("default") is not None else {}


def _request_body(operation: AnyOperation) -> Json:
    schema = operation.takes.model_json_schema()
    examples = schema.get("examples", [{}])
    return {
        "required": bool(schema.get("required")),
        "content": {"application/json": {"schema": _ref(operation.takes), "example": examples[0]}},
    }


def _responses(operation: AnyOperation) -> dict[int, Json]:
    answers = {status: _answer(operation, status, body) for status, body in operation.answers.items()}
    errors: dict[int, Json] = {status: {"$ref": f"#/components/responses/{status}"} for status in _statuses(operation)}
    conflicts = (*operation.conflicts, *([idempotency.MISMATCH] if operation.is_idempotent else []))
    if conflicts:
        codes = ", ".join(f"`{code}`" for code in conflicts)
        errors[409] = _error(409, f"The state of things forbids it: {codes}.", conflicts[0])
    for status in errors.keys() & answers.keys():  # the operation's own word, or that it could not get that far
        content = answers[status]["content"]["application/json"]
        content["schema"] = {"anyOf": [content["schema"], _ref(ErrorAnswer)]}
    return errors | answers


def _statuses(operation: AnyOperation) -> Iterable[int]:
    """The errors that this operation can answer."""
    yield from (400, 500)
    if operation.other_media_types:
        yield 406
    if operation.has_body:
        yield from (413, 415)
    if not operation.access.public or operation.access.insiders:
        yield from (401, 403, 429)
    if "{" in operation.path:
        yield 404
    if operation.path not in _ANSWERED_ALWAYS:
        yield 503


def _answer(operation: AnyOperation, status: int, body: type[BaseModel] | None) -> Json:
    headers = {**operation.headers, **({idempotency.REPLAYED: _REPLAYED} if operation.is_idempotent else {})}
    own = {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}
    json_ = operation.media_type == _JSON
    content: Json = {"schema": {"type": "object" if json_ else "string"} if body is None else _ref(body)}
    example = _example(operation, status, body)
    if example is not None:
        content["example"] = example
    return {
        "description": _FOUND[status],
        "headers": {**{name: _header_ref(name) for name in _EVERYWHERE}, **own},
        "content": {operation.media_type: content, **_other_content(operation)},
        **(links.after(operation.id) if status == _done(operation) else {}),
    }


def _done(operation: AnyOperation) -> int | None:
    """Return the status that says that it was done; beside a 201 a 200 says what would be done."""
    return max((status for status in _DONE if status in operation.answers), default=None)


def _other_content(operation: AnyOperation) -> Json:
    """The media types that a caller can choose; an example is text."""
    names = {each: f"{operation.id} {each}" for each in operation.other_media_types}
    return {
        media_type: {"schema": {"type": "string"}, **({"example": EXAMPLES[name]} if name in EXAMPLES else {})}
        for media_type, name in names.items()
    }


def _example(operation: AnyOperation, status: int, body: type[BaseModel] | None) -> Any:
    names = (f"{operation.id} {status}", operation.id, "" if body is None else body.__name__)
    return next((EXAMPLES[name] for name in names if name in EXAMPLES), None)


def _error(status: int, description: str, code: str | None = None) -> Json:
    code = code or description.split("`")[1]
    return {
        "description": description,
        "headers": {name: _header_ref(name) for name in (*_EVERYWHERE, *_WITH_STATUS.get(status, ()))},
        "content": {
            "application/json": {
                "schema": _ref(ErrorAnswer),
                "example": {"error": ERRORS[code]},
            }
        },
    }


def _header_ref(name: str) -> Json:
    return {"$ref": f"#/components/headers/{name}"}


def _ref(kind: type[BaseModel]) -> Json:
    return {"$ref": schemas.REF.format(model=kind.__name__)}


def _schemas(operations: Sequence[AnyOperation]) -> Json:
    wanted: dict[type[BaseModel], Literal["validation", "serialization"]] = {ErrorAnswer: "serialization"}
    for operation in operations:
        wanted |= {body: "serialization" for body in operation.answers.values() if body is not None}
        if operation.has_body:
            wanted[operation.takes] = "validation"
    return schemas.of(wanted)


_JSON: Final = "application/json"
_DONE: Final = (200, 201)
_ANSWERED_ALWAYS: Final = ("/health", "/openapi.json", "/asyncapi.json")


if __name__ == "__main__":
    sys.stdout.buffer.write(document())
