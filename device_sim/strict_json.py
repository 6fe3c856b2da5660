"""Strict reader of JSON: what a device accepts has one meaning only, whichever parser reads it."""

import json
import re
from typing import Any

MAX_COMMAND_BYTES = 18 * 1024
"""Largest payload of a command: its params have at most 16 KiB (the gateway's limit), the rest below 2 KiB."""
MAX_DEPTH = 16
"""Levels of objects and lists. The reader of a small board is recursive, and its stack has a few KiB."""
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def read_json(raw: bytes, *, finite: bool = True) -> Any:
    """Return the value of a JSON text in UTF-8, of at most `MAX_COMMAND_BYTES`.

    Without `finite` it may hold `NaN` and `Infinity`, for params: those have no canonical form, which is said later.

    Raises:
        ValueError: it is too long, not UTF-8, not JSON, nested too deeply, or an object has two members of one name.
    """
    if len(raw) > MAX_COMMAND_BYTES:
        raise ValueError(f"{len(raw)} bytes, at most {MAX_COMMAND_BYTES} are accepted")
    text = raw.decode()
    if _depth(text) > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
    constant = _refuse_constant if finite else float
    return json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=constant)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _depth(text: str) -> int:
    """Return how many brackets are open at most, outside of strings."""
    depth = deepest = 0
    for each in _STRING.sub("", text):
        depth += (each in "[{") - (each in "]}")
        deepest = max(deepest, depth)
    return deepest


def _without_duplicates(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse duplicate names: of two such values one parser takes the first, another one the last."""
    found = dict(members)
    if len(found) != len(members):
        raise ValueError("two members of an object have the same name")
    return found
