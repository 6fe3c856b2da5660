"""Imports run one way: each package of the gateway imports packages of a lower rank only, never one of its own rank."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import gateway

ROOT = Path(gateway.__file__).parent
RANKS = (
    "core",
    "errors",
    "runtime",
    "models settings tls",
    "store",
    "domain observability cluster",
    "mqtt webhooks workers bootstrap client oidc",
    "http outbound",
    "broker",
    "readiness",
    "setup doctor running",
    "announce",
    "app",
    "demo",
    "cli",
    "__main__",
)
"""Lowest first; a name is a package or a file directly in ``gateway/``."""
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names.split()}
MOST_FILES_AT_THE_TOP = 8
TRANSPORTS = {"starlette", "uvicorn", "httpx", "aiomqtt", "paho", "amqtt"}
LIBRARIES = {
    "aiomqtt": {"mqtt/v3", "mqtt/probe.py", "demo/outside_checks.py"},
    "paho": {"mqtt/v3", "mqtt/probe.py"},
    "amqtt": {"broker/embedded"},
    "device_sim": {"demo", "cli"},
}
"""Which parts of the gateway may import a library."""


def _sources() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def _module(source: Path) -> str:
    parts = ("gateway", *source.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module(source): source for source in _sources()}


def _imported(source: Path) -> Iterator[str]:
    """Dotted names of the modules that this file imports, under ``TYPE_CHECKING`` and inside functions too."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


def _part(module: str) -> str:
    """The package inside the gateway: ``store`` for ``gateway.store.outbox_sql``."""
    return module.split(".")[1] if "." in module else ""


def wrong_imports(imports: dict[str, set[str]]) -> list[str]:
    """Imports of a package that does not rank below the importing one."""
    return [
        f"{source} imports {target}"
        for source, targets in sorted(imports.items())
        for target in sorted(targets)
        if _part(source) and _part(target) and _part(source) != _part(target)
        if RANK[_part(target)] >= RANK[_part(source)]
    ]


def _graph() -> dict[str, set[str]]:
    return {module: {name for name in _imported(source) if name in MODULES} for module, source in MODULES.items()}


def test_each_part_has_a_rank() -> None:
    """A new package or top-level file has to be named in RANKS."""
    assert {_part(module) for module in MODULES} - {""} <= RANK.keys()


def test_imports_run_one_way() -> None:
    """No package imports one of its own rank or a higher one."""
    assert wrong_imports(_graph()) == []


@pytest.mark.parametrize(
    ("source", "target"),
    [("gateway.store", "gateway.domain.commands"), ("gateway.models.bulk", "gateway.settings.loading")],
)
def test_a_wrong_import_is_found(source: str, target: str) -> None:
    """An import upwards is found, and so is one between packages of one rank."""
    graph = _graph()
    graph[source].add(target)
    assert wrong_imports(graph) == [f"{source} imports {target}"]


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import themselves by way of others."""
    left = {module: set(targets) - {module} for module, targets in graph.items()}
    while free := [module for module, targets in left.items() if not targets & left.keys()]:
        for module in free:
            del left[module]
    return sorted(left)


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Imports for types alone count as well."""
    assert circles(_graph()) == []


def test_a_circle_is_found() -> None:
    """Two modules that import each other are found."""
    graph = _graph()
    graph["gateway.core.ids"].add("gateway.core.clock")
    graph["gateway.core.clock"].add("gateway.core.ids")
    assert {"gateway.core.ids", "gateway.core.clock"} <= set(circles(graph))


def test_few_files_are_at_the_top() -> None:
    """Everything else belongs to a package."""
    assert len(list(ROOT.glob("*.py"))) <= MOST_FILES_AT_THE_TOP


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_where_it_belongs(library: str) -> None:
    """One part of the gateway wraps each MQTT library; only the demo and the command line know the simulator."""
    for source in _sources():
        if library in {name.partition(".")[0] for name in _imported(source)}:
            path = source.relative_to(ROOT).as_posix()
            assert any(path == part or path.startswith(f"{part}/") for part in LIBRARIES[library]), path


def test_the_simulator_imports_nothing_of_the_gateway() -> None:
    """``device_sim`` imports nothing of ``gateway``: it stands for firmware."""
    for source in (ROOT.parent / "device_sim").rglob("*.py"):
        assert "gateway" not in {name.partition(".")[0] for name in _imported(source)}, source.name


def test_the_domain_imports_no_transport() -> None:
    """Neither the store nor the verbs import a web framework or an MQTT library."""
    for module, source in MODULES.items():
        if _part(module) and RANK[_part(module)] <= RANK["domain"]:
            assert not TRANSPORTS & {name.partition(".")[0] for name in _imported(source)}, module


def test_the_sqlite_engine_imports_no_queries() -> None:
    """The files of an engine import no SQL of a table family, so another engine can stand beside it."""
    for module in MODULES:
        if module.startswith(("gateway.store.sqlite.", "gateway.store.postgres.")):
            assert not [name for name in _graph()[module] if name.endswith("_sql")], module


def test_rows_stay_in_the_store() -> None:
    """Queries return typed records: mypy finds a renamed column, and another engine can return the same records."""
    found = [
        str(source.relative_to(ROOT))
        for source in _sources()
        if source.relative_to(ROOT).parts[0] != "store"
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Name) and node.id == "Row") or (isinstance(node, ast.alias) and node.name == "Row")
    ]
    assert found == []
