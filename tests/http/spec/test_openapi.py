"""The OpenAPI document: valid, served, kept in the repository, and true to table and models."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from gateway.http.resources.operations import OPERATIONS
from gateway.http.spec.examples import ERRORS, EXAMPLES
from gateway.http.spec.openapi import document
from tests.http.contract import DOCUMENT
from tests.http.support import Api

COPY = Path(__file__).parents[3] / "docs" / "openapi.json"


def test_it_is_valid_openapi() -> None:
    """By the validator of the OpenAPI project's schema for 3.1."""
    assert DOCUMENT["openapi"].startswith("3.1.")
    validate(DOCUMENT)


async def test_the_served_document_is_the_stored_one(api: Api) -> None:
    """The copy in ``docs/`` is the same; ``python -m gateway.http.spec.openapi > docs/openapi.json`` writes it."""
    answer = await api.as_(None).get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.content == document() == COPY.read_bytes()


def test_the_command_writes_the_document() -> None:
    """What the command prints is the document."""
    printed = subprocess.run(
        [sys.executable, "-m", "gateway.http.spec.openapi"], check=True, capture_output=True
    ).stdout
    assert printed == document()


def test_it_lists_every_route_and_no_other() -> None:
    """Paths and methods are those that are served."""
    described = {(path, method.upper()) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert described == {(operation.path, operation.method) for operation in OPERATIONS}
    assert len({operation.id for operation in OPERATIONS}) == len(OPERATIONS)


def test_every_operation_lists_its_credentials_and_answers() -> None:
    """Credential and scope; errors of the door (400, 500), of the credential, of the path, of the body."""
    for operation in OPERATIONS:
        described = DOCUMENT["paths"][operation.path][operation.method.lower()]
        statuses = set(described["responses"])
        assert {"400", "500"} <= statuses
        if not operation.access.public:
            assert {"401", "403", "429", "503"} <= statuses
            assert described["security"]
        if operation.access.scope:
            for scheme in ("session",) if operation.access.person else ("apiKey", "session"):
                assert {scheme: list(operation.access.scopes)} in described["security"]
        assert ({"deviceToken": []} in described["security"]) == operation.access.device
        assert ("404" in statuses) == ("{" in operation.path)
        assert ("409" in statuses) == bool(operation.conflicts or operation.is_idempotent)
        assert ("requestBody" in described) == ("415" in statuses) == operation.has_body


def test_examples_match_their_schemas() -> None:
    """Each request and each answer that the document shows would be taken, or given."""
    shown = 0
    for operation in OPERATIONS:
        described = DOCUMENT["paths"][operation.path][operation.method.lower()]
        for part in [described.get("requestBody", {}), *described["responses"].values()]:
            for content in part.get("content", {}).values():
                shown += _is_valid(content)
    for response in DOCUMENT["components"]["responses"].values():
        shown += _is_valid(response["content"]["application/json"])
    assert shown > len(OPERATIONS)


def _is_valid(content: dict[str, Any]) -> int:
    if "example" not in content:
        return 0
    OAS31Validator({**content["schema"], "components": DOCUMENT["components"]}).validate(content["example"])
    return 1


def test_every_example_is_used() -> None:
    """Each one in the source is shown somewhere in the document."""
    shown = json.dumps(DOCUMENT, ensure_ascii=False)
    for name, example in (EXAMPLES | ERRORS).items():
        assert json.dumps(example, ensure_ascii=False) in shown, name
