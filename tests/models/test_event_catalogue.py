"""Every type of event that the code writes is one that can be asked for, and the other way round."""

import ast
import re
from pathlib import Path

import gateway
from gateway.models.events import EventType

ROOT = Path(gateway.__file__).parent
WRITERS = {
    "domain/acknowledgements.py",
    "domain/cells.py",
    "domain/commands.py",
    "domain/device_updates.py",
    "domain/devices.py",
    "domain/grant_keys.py",
    "domain/heartbeats.py",
    "domain/messages.py",
}
ADMINISTRATIVE_WRITERS = {
    "domain/administration.py",
    "domain/erasures.py",
    "domain/jobs.py",
    "domain/refused_sign_ins.py",
    "domain/sessions.py",
    "domain/webhooks.py",
}


def _written() -> set[str]:
    """Texts that have the form of a type and stand in a module that writes events."""
    found: set[str] = set()
    for source in (ROOT / name for name in WRITERS):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
                kind, _, rest = node.value.partition(".")
                if kind in {each.partition(".")[0] for each in EventType} and rest.isidentifier():
                    found.add(node.value)
    for source in (ROOT / name for name in ADMINISTRATIVE_WRITERS):
        text = source.read_text(encoding="utf-8")
        found |= {EventType[name] for name in re.findall(r"EventType\.([A-Z_]+)", text)}
    return found


def test_the_types_are_those_that_are_written() -> None:
    """A type that is missing in :class:`EventType` could be neither filtered by nor subscribed to."""
    assert _written() == set(EventType)


def test_every_record_is_made_where_this_looks() -> None:
    """No other module writes events, or this file would miss its types."""
    writers = {
        source.relative_to(ROOT).as_posix()
        for source in ROOT.rglob("*.py")
        if re.search(r"event(_budget)?_sql\.record(_administrative)?\(", source.read_text(encoding="utf-8"))
    }
    told_the_type = {"store/event_budget_sql.py"}
    assert writers - told_the_type == WRITERS | ADMINISTRATIVE_WRITERS
