"""Pages of the documentation that come from the code: ``python -m gateway.http.spec.reference docs/reference``."""

from __future__ import annotations

import json
import shlex
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.http.spec.examples import ERRORS
from gateway.http.spec.openapi import document
from gateway.models.event_catalogue import EVENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]

_ERRORS: Final = "4"
_JSON: Final = "application/json"
_METHODS: Final = ("get", "post", "put", "patch", "delete")
_HTTP: Final = """# HTTP, call by call

Written from [`openapi.json`](../openapi.json) by `make docs`; a running gateway serves it with a page to try it at
`/docs`. What goes beyond single calls is in [The HTTP API](../http.md). Every POST takes an `Idempotency-Key` header
([how it works](../http.md#repeating-a-request)).

Each call has a sample. In the requests `GATEWAY` is the address of the gateway, such as `http://127.0.0.1:8080`, `KEY`
an API key and `DEVICE_TOKEN` the token of a device. An error has this shape, with a code and a message of its case:

```json
{example}
```
"""
_SAMPLE_WIDTH: Final = 100
_EVENTS: Final = """# Events

Written from the code by `make docs`. Where events go: [the audit trail, the stream and webhooks](../http.md#events).
Each has `id`, `type`, `created_at` and `data`; in `data` stand `device_id` (of what happened to a device), `actor` (the
id of a key or of a device, `gateway`, or `cli` for the command line), `client_address` (of a request with an API key)
and these facts, where they are known:

| type | says | facts in `data` |
|---|---|---|
"""


def http_reference() -> str:
    """Every operation: who may call it, what it takes, what it answers."""
    described: Json = json.loads(document())
    by_tag: dict[str, list[str]] = defaultdict(list)
    for path, method, operation in _operations(described):
        by_tag[operation["tags"][0]].append(_section(described, path, method, operation))
    about = {tag["name"]: tag["description"] for tag in described["tags"]}
    head = _HTTP.replace("{example}", _json({"error": ERRORS["invalid_request"]}))
    return head + "".join(
        f"\n## {tag[0].upper()}{tag[1:]}\n\n{about[tag]}\n{''.join(sections)}" for tag, sections in by_tag.items()
    )


def _operations(described: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in described["paths"].items():
        for method in _METHODS:
            if method in methods:
                yield path, method, methods[method]


def _section(described: Json, path: str, method: str, operation: Json) -> str:
    lines = [f"\n### {operation['summary']}\n", f"`{method.upper()} {path}`  \nNeeds: {_access(operation)}.\n"]
    lines.append(f"{operation['description']}\n")
    lines += _table(("parameter", "in", "what"), _parameters(operation))
    lines += _table(("field of the body", "type", "what"), _body(described, operation))
    lines += [f"Answers: {_answers(operation['responses'])}.\n", *_samples(path, method, operation)]
    return "\n".join(lines)


def _samples(path: str, method: str, operation: Json) -> list[str]:
    """The request as a shell sends it, and what is answered when all is well."""
    lines = [f"```sh\n{_request(path, method, operation)}\n```\n"]
    for status, answer in operation["responses"].items():
        contents = answer.get("content", {}) if status < _ERRORS else {}
        for number, (media_type, content) in enumerate(contents.items()):
            if "example" in content:
                told = f"{status} as `{media_type}`" if number else status
                lines.append(f"{told}:\n\n{_block(media_type, content['example'])}\n")
    return lines


def _block(media_type: str, example: Any) -> str:
    """An example as a block of code."""
    if media_type == _JSON:
        return f"```json\n{_json(example).rstrip()}\n```"
    return f"```text\n{example.replace(chr(13), '').rstrip()}\n```"


def _request(path: str, method: str, operation: Json) -> str:
    parameters = operation.get("parameters", [])
    for each in parameters:
        if each["in"] == "path":
            path = path.replace(f"{{{each['name']}}}", each["example"])
    query = "&".join(
        f"{each['name']}={each['example']}" for each in parameters if each["in"] == "query" and "example" in each
    )
    words = [
        "curl",
        *([] if method == "get" else ["-X", method.upper()]),
        f'"$GATEWAY{path}{"?" if query else ""}{query}"',
    ]
    words += _credential(method, [scheme for each in operation.get("security", []) for scheme in each])
    body = operation.get("requestBody", {}).get("content", {}).get(_JSON, {}).get("example")
    if body:
        words.append(
            f"\\\n  -H 'Content-Type: application/json' \\\n  -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"
        )
    return " ".join(words)


def _credential(method: str, schemes: list[str]) -> list[str]:
    """Return the words of a request that show its credential."""
    if not schemes:
        return []
    if schemes == ["session"]:
        token = [] if method == "get" else ['\\\n  -H "X-CSRF-Token: $CSRF_TOKEN"']
        return ['\\\n  -b "__Host-gateway_session=$SESSION"', *token]
    secret = "$KEY" if "apiKey" in schemes else "$DEVICE_TOKEN"
    return [f'\\\n  -H "Authorization: Bearer {secret}"']


def _json(value: Any, indent: int = 0) -> str:
    """JSON as people read it: what fits stands in one line."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or len(line) + indent <= _SAMPLE_WIDTH:
        return line
    inner, outer = " " * (indent + 2), " " * indent
    if isinstance(value, list):
        return "[\n" + ",\n".join(f"{inner}{_json(each, indent + 2)}" for each in value) + f"\n{outer}]"
    fields = (f"{inner}{json.dumps(name)}: {_json(each, indent + 2)}" for name, each in value.items())
    return "{\n" + ",\n".join(fields) + f"\n{outer}}}"


_WHAT: Final = {"apiKey": "an API key", "session": "a person's session", "deviceToken": "a device token"}


def _access(operation: Json) -> str:
    """Return which credentials open an operation; those with the same scopes stand together."""
    by_scopes: dict[tuple[str, ...], list[str]] = {}
    for each in operation.get("security", []):
        for scheme, scopes in each.items():
            by_scopes.setdefault(tuple(scopes), []).append(_WHAT[scheme])
    needed = (
        " or ".join(names) + (" with " if scopes else "") + " and ".join(f"`{scope}`" for scope in scopes)
        for scopes, names in by_scopes.items()
    )
    return ", or ".join(needed) or "no credential"


def _parameters(operation: Json) -> list[tuple[str, str, str]]:
    return [
        (f"`{each['name']}`", each["in"], _cell(each["description"]))
        for each in operation.get("parameters", [])
        if each["name"] != "Idempotency-Key"
    ]


def _body(described: Json, operation: Json) -> list[tuple[str, str, str]]:
    if "requestBody" not in operation:
        return []
    schema = _resolved(described, operation["requestBody"]["content"]["application/json"]["schema"])
    required = schema.get("required", [])
    return [
        (
            f"`{name}`{'' if name in required else ' (may be left out)'}",
            _type(field),
            _cell(field.get("description", "")),
        )
        for name, field in schema.get("properties", {}).items()
    ]


def _answers(responses: Json) -> str:
    """Each status with what it carries; those of the errors, which all have one shape, together."""
    good = [f"{status} {_carries(answer)}" for status, answer in responses.items() if status < _ERRORS]
    bad = [status for status in responses if status >= _ERRORS]
    return "; ".join([*good, f"errors {' '.join(sorted(bad))}"])


def _carries(answer: Json) -> str:
    schemas = [content.get("schema", {}) for content in answer.get("content", {}).values()]
    names = [schema["$ref"].rsplit("/", 1)[-1] for schema in schemas if "$ref" in schema]
    return " ".join(f"`{name}`" for name in names) or _cell(answer["description"]).rstrip(".")


def _resolved(described: Json, schema: Json) -> Json:
    """The schema behind a reference, also where it stands beside null."""
    for option in schema.get("anyOf", ()):
        if option.get("type") != "null":
            return _resolved(described, option)
    if "$ref" not in schema:
        return schema
    found: Json = described["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
    return found


def _type(field: Json) -> str:
    if "anyOf" in field:
        return " or ".join(_type(each) for each in field["anyOf"])
    if "$ref" in field:
        return f"`{field['$ref'].rsplit('/', 1)[-1]}`"
    if "enum" in field:
        return " ".join(f"`{each}`" for each in field["enum"])
    kind = field.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _table(headings: tuple[str, ...], rows: list[tuple[str, str, str]]) -> list[str]:
    if not rows:
        return []
    lines = [headings, ("---",) * len(headings), *rows]
    return ["\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"]


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")


def events_reference() -> str:
    """Every type of event."""
    return _EVENTS + "".join(
        f"| `{kind}` | {_cell(meaning.says)} | {' '.join(f'`{fact}`' for fact in meaning.facts)} |\n"
        for kind, meaning in EVENT_TYPES.items()
    )


def write(folder: Path) -> None:
    """Write the pages again."""
    (folder / "http.md").write_text(http_reference(), encoding="utf-8")
    (folder / "events.md").write_text(events_reference(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
