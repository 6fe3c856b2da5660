"""The document in the hands of generators: clients are made of it, pass the strict checks, and live a device's life."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.http.contract import DOCUMENT
from tests.http.support import Api
from tests.support import generated, node

ROOT = Path(__file__).parents[3]
COPY = ROOT / "docs" / "openapi.json"


def schemas(where: Any) -> Iterator[dict[str, Any]]:
    """Every object of a part of the document."""
    if isinstance(where, dict):
        yield where
    for each in where.values() if isinstance(where, dict) else where if isinstance(where, list) else ():
        yield from schemas(each)


def test_no_field_has_a_default() -> None:
    """Generators demand such a field of the caller, or send it where the caller left it out."""
    assert [each for each in schemas(DOCUMENT["components"]) if "default" in each and "title" in each] == []
    bodies = [each.get("requestBody", {}) for methods in DOCUMENT["paths"].values() for each in methods.values()]
    assert [each for body in bodies for each in schemas(body.get("content", {})) if "default" in each] == []


@pytest.mark.parametrize("path", ["/metrics", "/v1/events/stream"])
def test_other_content_is_text(path: str) -> None:
    """One schema that every generator knows."""
    (content,) = DOCUMENT["paths"][path]["get"]["responses"]["200"]["content"].values()
    assert content["schema"] == {"type": "string"}


def test_settings_in_answers_are_typed() -> None:
    """Down to the last field, each of which is always there."""
    schema: Any = DOCUMENT["components"]["schemas"]["Device"]["properties"]["settings"]
    for part in ("upload", "off_peak_hours"):
        assert schema["$ref"].startswith("#/components/schemas/")
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        assert schema["required"] == list(schema["properties"])
        schema = schema["properties"][part]
    assert {"type": "null"} in schema["anyOf"]


async def test_a_generated_python_client_works(api: Api, tmp_path: Path) -> None:
    """openapi-python-client makes it without a warning; mypy --strict and the gateway take it."""
    await generated.python_client(COPY, tmp_path)
    life = generated.SOURCE / "life.py"
    checked = (
        "--strict",
        "--config-file=",
        "--cache-dir",
        tmp_path / ".mypy",
        life,
        tmp_path / "device_gateway_client",
    )
    await generated.run(sys.executable, "-m", "mypy", *checked, MYPYPATH=str(tmp_path))
    await generated.run(sys.executable, life, api.url, api.key, PYTHONPATH=str(tmp_path))


async def test_a_generated_typescript_client_works(api: Api, tmp_path: Path) -> None:
    """openapi-typescript makes its types; tsc --strict and the gateway take what is written with them."""
    modules = node.folder() / "node_modules"
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "package.json").write_text(json.dumps({"type": "module"}))
    (tmp_path / "life.ts").write_bytes((node.SOURCE / "life.ts").read_bytes())
    tool = (node.node(), modules / "openapi-typescript" / "bin" / "cli.js")
    await generated.run(*tool, COPY, "-o", "api.d.ts", folder=tmp_path)
    options = ("--strict", "--target", "es2022", "--module", "nodenext", "--types", "node")
    await generated.run(node.node(), modules / "typescript" / "bin" / "tsc", *options, "life.ts", folder=tmp_path)
    assert await generated.run(node.node(), tmp_path / "life.js", api.url, api.key) == "lived\n"
