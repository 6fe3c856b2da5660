"""Imports run one way: models → store → lifecycle → transports → app → cli."""

import ast
from pathlib import Path

import gateway

ROOT = Path(gateway.__file__).parent
LAYERS = (
    (
        "build_info canonical clock command_types credentials device_settings entropy errors ids imports log model "
        "os_user paced precedence private_files problems received_json redaction sealing signatures targets topics "
        "visible_text wording"
    ),
    "tracing",
    "event_meanings fleet_model mqtt_model webhooks_model",
    "addresses broker_api settings settings_agreement settings_model settings_types whereabouts",
    "store",
    (
        "acknowledgements administration backlog commands epoch first_start grants heartbeats inbound lifecycle newest "
        "outbox outgrown position_notes presence refused_sign_ins restoring sweeper upkeep watcher webhooks"
    ),
    "authority certificates metrics otel",
    "scrape",
    "broker client http mqtt outbound readiness",
    "brokers",
    "announce app collector demo doctor setup",
    "cli __main__",
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer.split()}


def _imported(source: Path) -> set[str]:
    """Dotted names of the modules that this file imports, under ``TYPE_CHECKING`` too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "gateway":
            found |= {f"gateway.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module)
    return found


def _part(source: Path) -> str:
    """The top-level name inside the package: ``store`` for ``gateway/store/outbox_sql.py``."""
    return source.relative_to(ROOT).with_suffix("").parts[0]


def test_imports_run_one_way() -> None:
    """No module imports from a layer above its own; each top-level module has a layer."""
    for source in sorted(ROOT.rglob("*.py")):
        if _part(source) == "__init__":
            continue
        assert _part(source) in RANK, f"{source.relative_to(ROOT)} has no layer: name it in LAYERS"
        for name in _imported(source):
            package, _, rest = name.partition(".")
            target = rest.partition(".")[0]
            if package == "gateway" and target in RANK:
                assert RANK[target] <= RANK[_part(source)], f"{source.relative_to(ROOT)} imports {name}"


def test_the_simulator_and_the_gateway_know_nothing_of_each_other() -> None:
    """``device_sim`` imports nothing of the gateway; of the gateway only the demo and the command line import it."""
    for source in (ROOT.parent / "device_sim").rglob("*.py"):
        assert not {name for name in _imported(source) if name.partition(".")[0] == "gateway"}, source.name
    for source in ROOT.rglob("*.py"):
        if _part(source) not in {"demo", "cli"}:
            assert not {name for name in _imported(source) if name.partition(".")[0] == "device_sim"}, source.name


def test_the_core_knows_no_transport() -> None:
    """Neither the store nor the verbs import a web framework, an MQTT library."""
    for source in ROOT.rglob("*.py"):
        if RANK.get(_part(source), len(LAYERS)) <= RANK["lifecycle"]:
            imported = {name.partition(".")[0] for name in _imported(source)}
            assert not imported & {"starlette", "uvicorn", "httpx", "aiomqtt", "paho", "amqtt"}, source.name
