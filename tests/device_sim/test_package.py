"""The package as others see it: independent of the gateway, typed, and with the names that it promises."""

import ast
import importlib
from pathlib import Path

import pytest

import device_sim

PACKAGE = Path(device_sim.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(module: Path) -> set[str]:
    """The first part of every name that a module imports."""
    nodes = list(ast.walk(ast.parse(module.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.split(".")[0] for name in plain | {str(n.module) for n in nodes if isinstance(n, ast.ImportFrom)}}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_the_package_does_not_import_the_gateway(module: Path) -> None:
    """A simulator that shares the gateway's models can't catch a drift of the contract."""
    assert "gateway" not in imported(module)


def test_the_firmware_imports_no_io() -> None:
    """Clock, network, files and randomness come from outside: what the firmware imports can't reach them."""
    pure = ["device", "binding", "actions", "journal", "grant", "wire", "telemetry", "backoff", "recordings", "reset"]
    reach = set().union(*(imported(PACKAGE / f"{name}.py") for name in pure))
    assert reach.isdisjoint({"asyncio", "time", "socket", "os", "pathlib", "httpx", "aiomqtt", "secrets"})


def test_public_names_exist_and_are_sorted() -> None:
    """What `__all__` promises is there, sorted, and the types are exported."""
    assert list(device_sim.__all__) == sorted(device_sim.__all__)
    assert all(hasattr(importlib.import_module("device_sim"), name) for name in device_sim.__all__)
    assert (PACKAGE / "py.typed").exists()
