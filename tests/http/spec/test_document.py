"""The OpenAPI document as a stranger reads it: everything explained, every link leads somewhere, nothing left over."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.http.resources.operations import OPERATIONS
from gateway.http.spec import introduction, links
from gateway.http.spec.examples import ERRORS
from gateway.models.errors import ErrorBody
from tests.http.contract import DOCUMENT

Json = dict[str, Any]

BY_ID = {each["operationId"]: each for methods in DOCUMENT["paths"].values() for each in methods.values()}
SCHEMAS: Json = DOCUMENT["components"]["schemas"]
PLACES = {"path": "$request.path.", "body": "$response.body#/"}


def parameters(operation: Json, where: str) -> dict[str, Json]:
    """The operation's parameters in that place, by name."""
    return {each["name"]: each for each in operation["parameters"] if each["in"] == where}


def named() -> Iterator[tuple[str, str, Json]]:
    """Every field of every schema, and every parameter of every operation."""
    for owner, schema in SCHEMAS.items():
        yield from ((owner, name, each) for name, each in schema.get("properties", {}).items())
    for owner, operation in BY_ID.items():
        yield from ((owner, each["name"], each) for each in operation["parameters"])


def test_every_field_and_parameter_is_explained() -> None:
    """By its model."""
    assert [f"{owner}.{name}" for owner, name, each in named() if not each.get("description", "").strip()] == []


def test_every_time_field_has_the_date_time_format() -> None:
    """So that a client made from the document has times, and no text."""
    moments = {f"{owner}.{name}": json.dumps(each) for owner, name, each in named() if name.endswith("_at")}
    assert len(moments) > 10
    assert [name for name, schema in moments.items() if '"format": "date-time"' not in schema] == []


def test_headers_that_are_always_there_are_promised() -> None:
    """A client may rely on them; a test of the wire holds the gateway to it."""
    assert [name for name, each in DOCUMENT["components"]["headers"].items() if each.get("required") is not True] == []


def test_every_tag_is_explained() -> None:
    """Those there are, and no other."""
    tags = {tag["name"]: tag["description"] for tag in DOCUMENT["tags"]}
    assert tags == introduction.TAGS
    assert all(tags.values())


def test_every_component_is_used() -> None:
    """Each schema, header and answer is referred to."""
    text = json.dumps(DOCUMENT)
    for kind in ("schemas", "headers", "responses"):
        unused = [name for name in DOCUMENT["components"][kind] if f'"#/components/{kind}/{name}"' not in text]
        assert unused == [], kind


def test_links_name_operations_and_their_parameters() -> None:
    """Each names an operation that is there, all of its path, and values that the answer or the request has."""
    assert set(links.NEXT) <= set(BY_ID)
    for source, following in links.NEXT.items():
        answers = [
            BY_ID[source]["responses"][status] for status in ("201", "200") if status in BY_ID[source]["responses"]
        ]
        assert not [other for other in answers[1:] if "links" in other]
        for answer in answers[:1]:
            assert set(answer["links"]) == set(following)
            for name, link in answer["links"].items():
                assert set(link["parameters"]) == set(parameters(BY_ID[name], "path")), f"{source} → {name}"
                for expression in link["parameters"].values():
                    assert _has(BY_ID[source], answer, expression), f"{source}: {expression}"


def _has(source: Json, answer: Json, expression: str) -> bool:
    if expression.startswith(PLACES["path"]):
        return expression.removeprefix(PLACES["path"]) in parameters(source, "path")
    schema: Any = answer["content"]["application/json"]["schema"]
    for part in expression.removeprefix(PLACES["body"]).split("/"):
        schema = SCHEMAS[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        schema = schema["items"] if part.isdecimal() else schema["properties"].get(part, {})
    return bool(schema)


def test_every_operation_can_be_reached_by_a_link_or_needs_no_id() -> None:
    """Whatever asks for a command, webhook or delivery is what some answer leads to."""
    reached = {name for following in links.NEXT.values() for name in following}
    for operation in OPERATIONS:
        if re.search(r"\{(command|webhook|delivery)_id\}", operation.path):
            assert operation.id in reached, operation.id


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_error_examples_say_what_to_do(code: str) -> None:
    """Each is an error of the contract whose message is a sentence, or two."""
    error = ErrorBody.model_validate(ERRORS[code])
    assert error.code == code
    assert error.message.endswith(".")
    assert " " in error.message


def test_every_conflict_has_an_example_or_is_named() -> None:
    """Each code of a 409 is in the words of the operation that answers it."""
    for operation in OPERATIONS:
        described = BY_ID[operation.id]["responses"].get("409", {}).get("description", "")
        assert [code for code in operation.conflicts if f"`{code}`" not in described] == []
