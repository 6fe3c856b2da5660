"""The OpenAPI document, and answers held against it."""

import re
from typing import Any

import httpx
from openapi_schema_validator import OAS31Validator

from gateway.http.resources.operations import OPERATIONS
from gateway.http.spec.openapi import describe

Json = dict[str, Any]

DOCUMENT = describe(OPERATIONS)
EVERYWHERE = ("x-request-id", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")


def check_contract(request: httpx.Request, response: httpx.Response) -> None:
    """Hold an answer against the OpenAPI document."""
    assert not [name for name in EVERYWHERE if name not in response.headers]
    assert "server" not in response.headers
    operation = _documented(request)
    if operation is None:
        assert response.status_code in (204, 400, 401, 404, 405, 429)
        return
    answer = operation["responses"].get(str(response.status_code))
    assert answer, f"{request.method} {request.url.path} does not say that it can answer {response.status_code}"
    answer = _resolved(answer)
    assert not [
        name for name in answer["headers"] if "$ref" in answer["headers"][name] and name not in response.headers
    ]
    assert response.headers["content-type"] in answer["content"]
    if request.method != "HEAD" and response.headers["content-type"] == "application/json":
        schema = {**answer["content"]["application/json"]["schema"], "components": DOCUMENT["components"]}
        OAS31Validator(schema).validate(response.json())


def _documented(request: httpx.Request) -> Json | None:
    method = "get" if request.method == "HEAD" else request.method.lower()
    for path, operations in DOCUMENT["paths"].items():
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), request.url.path):
            found: Json | None = operations.get(method)
            return found
    return None


def _resolved(answer: Json) -> Json:
    name = answer.get("$ref", "").rpartition("/")[2]
    resolved: Json = DOCUMENT["components"]["responses"][name] if name else answer
    return resolved
